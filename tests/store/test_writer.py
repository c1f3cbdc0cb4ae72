"""The writer: a flush that is refused harms nobody but the unit that is to blame, and that one is told."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from runtime.core.changes import Changes, Creation, Mail, Parked, Timer
from runtime.core.invocation import Invocation, Status
from runtime.core.tally import Tally
from runtime.errors import DatabaseError, Disconnected
from runtime.store import writer as writers
from runtime.store.claim import Key
from runtime.store.commit import Receipt
from runtime.store.link import Link, Pipeline, Statement
from runtime.store.writer import Extras, Writer
from tests.support.sessions import WITHIN, Sessions, born, ended, letter, service

YEAR_300000 = 298_000 * 365 * 86_400_000
RANDOM = secrets.token_hex(4_500)  # 9 kB that cannot be compressed to what an index row holds


class Diary:
    """A writer, and what it said became of each of its changes."""

    def __init__(self, link: Link, engine: bytes | None = None, extras: Extras | None = None) -> None:
        self.committed: list[Changes] = []
        self.refused: list[Changes] = []
        self.receipts: list[Receipt] = []
        self.errors: list[DatabaseError] = []
        self.writer = Writer(
            link,
            engine=engine,
            committed=self._committed,
            refused=self._refused,
            tally=Tally("engine"),
            extras=extras,
        )

    async def flush(self, *all_changes: Changes) -> None:
        for changes in all_changes:
            self.writer.add(changes)
        await self.writer.flush()

    def _committed(self, batch: Sequence[Changes], receipt: Receipt) -> None:
        self.committed += batch
        self.receipts.append(receipt)

    def _refused(self, batch: Sequence[Changes], error: DatabaseError) -> None:
        self.refused += batch
        self.errors.append(error)


@pytest.fixture
async def link(sessions: Sessions) -> Link:
    """As impatient as in earnest, and more."""
    link = await sessions.link(patient=False)
    pipeline = Pipeline()
    pipeline.call(Statement("SET lock_timeout = '50ms'"))
    await link.run(pipeline)
    return link


async def driven(sessions: Sessions, engine: bytes) -> Invocation:
    """One that an engine drives."""
    one = service()
    await Diary(await sessions.link(), engine).flush(born(one, owner=engine))
    return one


# Poison


def of_a_caller(**fields: Any) -> Callable[[Invocation], Changes]:
    new = letter("k")
    for name, value in fields.items():
        setattr(new, name, value)
    return lambda _: Changes(creations=[Creation(new)])


def of_a_handler(**fields: Any) -> Callable[[Invocation], Changes]:
    return lambda one: Changes(one, **fields)


def of_an_object(name: str, value: bytes = b"1") -> Callable[[Invocation], Changes]:
    return lambda _: Changes(letter("k"), state={name: value})


def of_nobody(_: Invocation) -> Changes:
    return ended(service())


POISON: dict[str, Callable[[Invocation], Changes]] = {
    "NUL in a key": of_a_caller(key="a\0b"),
    "a lone surrogate in a key": of_a_caller(key="\ud800"),
    "a key of 9 kB": of_a_caller(key=RANDOM),
    "a mode that there is not": of_a_caller(mode="strange"),
    "a caller's completion beyond all numbers": of_a_caller(caller=bytes(16), caller_completion=2**40),
    "an id that is there already": born,
    "a timer in the year 300000": of_a_handler(timers=[Timer(YEAR_300000, 1)]),
    "a timer beyond the database's calendar": of_a_handler(timers=[Timer(9_224_318_016_000_000, 1)]),
    "NUL in a failure": of_a_handler(ending=Parked(Status.PAUSED, failure='{"message": "\\u0000"}')),
    "a failure that is no JSON": of_a_handler(ending=Parked(Status.PAUSED, failure="{")),
    "an entry that is there already": of_a_handler(first=1, frames=[b"other"]),
    "mail to a slot beyond all numbers": of_a_handler(mails=[Mail(bytes(16), 2**40)]),
    "a value's name of 9 kB": of_an_object(RANDOM),
    "NUL in a value's name": of_an_object("a\0b"),
    "an end that somebody else has made": of_nobody,
}


@pytest.mark.parametrize("poison", POISON)
async def test_poison_harms_only_itself_wherever_it_stands(sessions: Sessions, link: Link, poison: str) -> None:
    engine = await sessions.engine()
    one = await driven(sessions, engine)
    await Diary(await sessions.link(), engine).flush(Changes(one, first=1, frames=[b"entry"]))
    for place in (0, 3, 8):
        others = [service() for _ in range(8)]
        healthy = [born(other) for other in others]
        poisonous = POISON[poison](one)
        diary = Diary(link, engine)
        await diary.flush(*healthy[:place], poisonous, *healthy[place:])

        assert diary.refused == [poisonous]
        assert diary.errors[0].is_poison
        assert diary.committed == healthy
        assert [await sessions.status(other) for other in others] == ["ready"] * 8
        assert await sessions.status(one) == "running"
        assert diary.writer.in_flight == []


async def test_what_belongs_together_is_refused_together(sessions: Sessions, link: Link) -> None:
    """The successor on a key has computed on what its predecessor left: without that it must not become true."""
    engine = await sessions.engine()
    first, second, other = letter("k"), letter("k"), service()
    await Diary(await sessions.link(), engine).flush(born(first, second, owner=engine))
    poisonous = ended(first, position=await sessions.position(first))
    poisonous.state = {"a\0b": b"1"}
    successor = ended(second, position=await sessions.position(second))
    healthy = born(other)
    diary = Diary(link, engine)
    await diary.flush(poisonous, healthy, successor)
    assert diary.refused == [poisonous, successor]
    assert diary.committed == [healthy]
    assert await sessions.inbox(("Counter", "k")) == [first.id, second.id]


async def test_a_large_value_is_no_poison(sessions: Sessions, link: Link) -> None:
    value = secrets.token_bytes(20_000_000)
    diary = Diary(link, await sessions.engine())
    await diary.flush(Changes(letter("k"), state={"photo": value}))
    assert diary.refused == []
    assert await sessions.value("SELECT value FROM state WHERE name = 'photo'") == value


async def test_a_flush_takes_no_more_than_is_good_for_it_and_the_next_one_the_rest(
    sessions: Sessions, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "MAX_EFFECTS", 10)
    all_changes = [born(service()) for _ in range(12)]
    diary = Diary(link)
    await diary.flush(*all_changes)
    assert diary.committed == all_changes[:5], "each is an effect, and so is its birth"
    while await diary.writer.flush():
        pass
    assert diary.committed == all_changes


# Locked keys


@pytest.fixture
async def stuck(sessions: Sessions) -> Any:
    """A transaction that locks the row of the key `stuck`, as a frozen client would."""
    await Diary(await sessions.link()).flush(born(letter("stuck")))
    holder = await sessions.connection()
    await holder.execute("SELECT FROM object_key WHERE key = 'stuck' FOR UPDATE")
    return holder


async def test_a_stuck_key_delays_only_itself(
    sessions: Sessions, link: Link, stuck: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "PATIENCE", 0.05)
    late, free, other = [born(one) for one in (letter("stuck"), service(), letter("free"))]
    diary = Diary(link)
    await diary.flush(late, free, other)
    assert diary.committed == [free, other]
    assert (list(diary.writer.waiting), diary.writer.in_flight) == ([late], [])
    assert not await diary.writer.flush(), "it is not tried at once"
    running = sessions.start(diary.writer.run())
    await asyncio.sleep(0.15)  # while it is tried in vain
    assert diary.committed == [free, other]
    await stuck.commit()
    async with asyncio.timeout(5):
        while late not in diary.committed:
            assert not running.done()
            await asyncio.sleep(0.005)
    assert diary.refused == []


async def test_what_follows_on_a_stuck_unit_stays_behind_it(
    sessions: Sessions, link: Link, stuck: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "PATIENCE", 0.05)
    engine = await sessions.engine()
    one = await driven(sessions, engine)
    sending, ending = born(letter("stuck"), letter("stuck")), ended(one)
    sending.invocation = one
    ending.frames = [b"last"]
    diary = Diary(link, engine)
    await diary.flush(sending)
    await diary.flush(ending)
    assert diary.committed == []
    assert list(diary.writer.waiting) == [sending, ending]
    await stuck.commit()
    sessions.start(diary.writer.run())
    async with asyncio.timeout(5):
        while len(diary.committed) < 2:
            await asyncio.sleep(0.005)
    assert diary.committed == [sending, ending]
    assert await sessions.status(one) == "completed"
    assert len(await sessions.inbox(("Counter", "stuck"))) == 3


class Restless(Extras):
    def take_release(self) -> list[Key]:
        return [("Counter", "stuck")]


async def test_a_lease_that_cannot_be_given_back_now_is_answered_all_the_same(
    sessions: Sessions, link: Link, stuck: Any
) -> None:
    diary = Diary(link, await sessions.engine(), Restless())
    new = born(service())
    await diary.flush(new)
    assert diary.committed == [new]
    assert [receipt.released for receipt in diary.receipts] == [set()]
    await diary.flush()
    assert [receipt.released for receipt in diary.receipts] == [set(), set()], "also when there is nothing else"


# What is no unit's fault


class Refusing:
    """Stands in for `commit`: refuses with one code after the other, then passes."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self, link: Link, batch: Sequence[Changes], **_: Any) -> Receipt:
        if self.errors:
            raise self.errors.pop(0)
        return Receipt()


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda *errors: monkeypatch.setattr(writers, "commit", Refusing(*errors))


@pytest.mark.parametrize("code", ["40001", "40P01", "57014"])
async def test_what_may_pass_when_tried_again_is_tried_again(
    link: Link, refusing: Callable[..., None], code: str
) -> None:
    refusing(*[DatabaseError(code, "not now")] * 3)
    diary, all_changes = Diary(link), [born(service()) for _ in range(2)]
    await diary.flush(*all_changes)
    assert (diary.committed, diary.refused) == (all_changes, [])


@pytest.mark.parametrize("code", ["53100", "57P01", "XX000", "42P01", "01000", "PF001"])
async def test_a_trouble_of_the_server_ends_the_writer_and_blames_nobody(
    link: Link, refusing: Callable[..., None], code: str
) -> None:
    """A full disk, a shut down, a bug, a missing table, a missing standby, a fenced engine."""
    refusing(DatabaseError(code, "no"))
    diary, all_changes = Diary(link), [born(service()) for _ in range(2)]
    with pytest.raises(DatabaseError):
        await diary.flush(*all_changes)
    assert diary.refused == []
    assert diary.writer.in_flight == all_changes, "what became of them is to be found out"


async def test_of_a_torn_flush_only_what_is_not_settled_is_uncertain(link: Link, refusing: Callable[..., None]) -> None:
    refusing(DatabaseError("22000", "poison"), DatabaseError("22000", "poison"), Disconnected("gone"))
    diary, all_changes = Diary(link), [born(service()) for _ in range(3)]
    with pytest.raises(Disconnected):
        await diary.flush(*all_changes)
    assert diary.refused == all_changes[:1]
    assert diary.writer.in_flight == all_changes[1:]


async def test_work_for_an_engine_that_has_died_is_handed_back_unharmed(sessions: Sessions, link: Link) -> None:
    engine = await sessions.engine()
    await sessions.execute("UPDATE engine SET alive = false")
    work = [born(service(), owner=engine), born(service())]
    diary = Diary(link)
    await diary.flush(*work)
    assert diary.errors[0].is_vouch
    assert (diary.committed, diary.refused, diary.writer.in_flight) == ([], work, [])
    assert await sessions.count("invocation") == 0


async def test_a_writer_with_nothing_to_flush_ends_when_its_link_is_closed(sessions: Sessions, link: Link) -> None:
    writing = asyncio.create_task(Diary(link).writer.run())
    await sessions.execute(f"SELECT pg_terminate_backend({link.backend_pid})")
    async with asyncio.timeout(WITHIN):
        with pytest.raises(Disconnected):
            await writing
