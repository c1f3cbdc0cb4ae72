"""Burial: all that a dead engine had goes on elsewhere, once, however often its burial is begun or cut off."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from uuid import UUID

import pytest

from runtime.core.changes import Changes, Timer
from runtime.core.invocation import Invocation, Status
from runtime.core.slots import CANCEL
from runtime.errors import Disconnected
from runtime.store import owners
from runtime.store.claim import Claim
from runtime.store.commit import commit
from runtime.store.link import Link
from tests.support.faults import SESSION_ENDS, Faults
from tests.support.sessions import (
    QUEUE,
    WITHIN,
    Sessions,
    begun,
    born,
    ended,
    key_of,
    letter,
    open_flush,
    parked,
    service,
    told,
)

FAR_OFF = 9_000_000_000_000


@pytest.fixture
async def engine(sessions: Sessions) -> bytes:
    return await sessions.engine()


@pytest.fixture
async def link(sessions: Sessions) -> Link:
    return await sessions.link()


@pytest.fixture
async def rescuer(sessions: Sessions) -> Link:
    return await sessions.link()


async def at_work(link: Link, engine: bytes, *invocations: Invocation) -> None:
    await commit(link, [born(*invocations, owner=engine)], engine=engine)
    await commit(link, [begun(one) for one in invocations], engine=engine)


async def test_what_it_drove_goes_back_to_the_queue(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    one, holder, behind = service(), letter(), letter()
    await at_work(link, engine, one, holder)
    await commit(link, [born(behind)])

    assert await owners.bury(rescuer, engine) == 2

    assert await sessions.status(one) == await sessions.status(holder) == "ready"
    assert await sessions.status(behind) == "pending"
    assert sorted(map(str, await sessions.queued())) == sorted(map(str, [one.id, key_of(holder)]))
    assert await sessions.inbox(key_of(holder)) == [holder.id, behind.id]
    assert await sessions.lease(key_of(holder)) is None
    assert await sessions.count("claimed") == await sessions.count("heartbeat") == 0


async def test_a_key_at_rest_is_free_again(sessions: Sessions, link: Link, rescuer: Link, engine: bytes) -> None:
    one = letter()
    await at_work(link, engine, one)
    await commit(link, [ended(one, position=await sessions.position(one))], engine=engine)

    await owners.bury(rescuer, engine)

    assert await sessions.count("object_key") == await sessions.count("ready") == 0


async def test_who_sleeps_sleeps_on(sessions: Sessions, link: Link, rescuer: Link, engine: bytes) -> None:
    one, holder = service(), letter()
    await at_work(link, engine, one, holder)
    await commit(link, [parked(one, waits=[1]), parked(holder, waits=[1])], engine=engine)

    assert await owners.bury(rescuer, engine) == 0

    assert await sessions.status(one) == await sessions.status(holder) == "suspended"
    await commit(link, [told(one, 1), told(holder, 1)])
    assert sorted(map(str, await sessions.queued())) == sorted(map(str, [one.id, key_of(holder)]))


@pytest.mark.parametrize("status", [Status.SUSPENDED, Status.BACKING_OFF, Status.PAUSED])
async def test_who_sleeps_behind_a_leased_key_sleeps_on(
    sessions: Sessions, link: Link, rescuer: Link, status: Status
) -> None:
    """An engine may come to lease the key of a sleeper, by a row that was left in the queue: it did not drive it."""
    holder, first, second = letter(), await sessions.engine(), await sessions.engine()
    await at_work(link, first, holder)
    await commit(link, [parked(holder, status, waits=[1], due=FAR_OFF)], engine=first)
    await sessions.execute("INSERT INTO ready (queue, service, key) VALUES (%s, %s, %s)", QUEUE, *key_of(holder))
    await sessions.execute("UPDATE invocation SET crashes = %s", owners.CRASH_LIMIT - 1)
    everything = Claim(room=1, floor=0, queues=[QUEUE], services={"Counter": "code"}, deployments=[])
    assert (await commit(link, [], engine=second, wanted=everything)).claimed.keys == [key_of(holder)]

    assert await owners.bury(rescuer, second) == 1

    assert await sessions.status(holder) == status
    assert await sessions.value("SELECT crashes FROM invocation") == owners.CRASH_LIMIT - 1
    assert await sessions.lease(key_of(holder)) is None
    await commit(link, [told(holder, CANCEL)])
    assert await sessions.queued() == [key_of(holder)]


async def test_heads_are_locked_in_one_order_with_everybody(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    """While it waits for the first, it has none of those that others lock after that."""
    first, second, third = letter("b"), letter("a"), service()
    await at_work(link, engine, first, second, third)
    holder = await sessions.connection()
    await holder.execute("SELECT FROM invocation WHERE id = %s FOR UPDATE", [first.id.hex()])

    burial = await sessions.blocked(owners.bury(rescuer, engine), rescuer, by=holder)
    for other in (second, third):
        await sessions.execute("SELECT FROM invocation WHERE id = %s FOR UPDATE NOWAIT", other.id.hex())
    await holder.rollback()

    assert await burial == 3


async def test_mail_and_timers_of_what_it_drove_stay(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    one = service()
    await at_work(link, engine, one)
    await commit(link, [Changes(one, timers=[Timer(FAR_OFF, 1)])], engine=engine)
    await commit(link, [told(one, CANCEL)])

    await owners.bury(rescuer, engine)

    assert set(await sessions.mail(one)) == {CANCEL}
    assert await sessions.count("timer") == 1


@pytest.mark.parametrize(("crashed", "counted"), [(True, 1), (False, 0)])
async def test_only_a_crash_counts_against_what_it_drove(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes, crashed: bool, counted: int
) -> None:
    await at_work(link, engine, service(), letter())

    await owners.bury(rescuer, engine, crashed=crashed)

    assert await sessions.rows("SELECT DISTINCT crashes FROM invocation") == [(counted,)]


@pytest.mark.parametrize("make", [service, letter])
async def test_of_all_suspects_a_death_counts_against_the_one_that_was_tried(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes, make: Callable[[], Invocation]
) -> None:
    tried, suspects = make(), [service(), letter("suspect")]
    others = [service(), letter("other")]  # one of them may be another that kills
    await at_work(link, engine, tried, *suspects, *others)
    await sessions.execute(
        "UPDATE invocation SET crashes = %s WHERE NOT id = ANY(%s)",
        owners.SUSPICIOUS, [UUID(bytes=other.id) for other in others],
    )  # fmt: skip
    await owners.suspect(link, engine, tried.id)

    await owners.bury(rescuer, engine)

    counted = dict(await sessions.rows("SELECT id, crashes FROM invocation"))
    assert counted == {
        UUID(bytes=tried.id): owners.SUSPICIOUS + 1,
        **{UUID(bytes=one.id): owners.SUSPICIOUS for one in suspects},
        **{UUID(bytes=one.id): 1 for one in others},
    }


@pytest.mark.parametrize("make", [service, letter])
async def test_a_death_whose_culprit_is_known_counts_against_nobody_else(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes, make: Callable[[], Invocation]
) -> None:
    culprit, neighbour, other = make(), service(), letter("other")
    await at_work(link, engine, culprit, neighbour, other)
    await sessions.execute("UPDATE engine SET culprit = %s", UUID(bytes=culprit.id))

    await owners.bury(rescuer, engine)

    counted = dict(await sessions.rows("SELECT id, crashes FROM invocation"))
    assert counted == {UUID(bytes=culprit.id): 1, UUID(bytes=neighbour.id): 0, UUID(bytes=other.id): 0}


@pytest.mark.parametrize("make", [service, letter])
async def test_what_was_driven_by_too_many_as_they_died_is_paused(
    sessions: Sessions, link: Link, rescuer: Link, make: Callable[[], Invocation]
) -> None:
    one = make()
    engine = await sessions.engine()
    await at_work(link, engine, one)
    await sessions.execute("UPDATE invocation SET crashes = %s", owners.CRASH_LIMIT - 1)

    await owners.bury(rescuer, engine)

    assert await sessions.status(one) == "paused"
    assert "may be what kills them" in await sessions.value("SELECT failure ->> 'message' FROM invocation")
    assert await sessions.queued() == []
    await commit(link, [told(one, CANCEL)])
    assert await sessions.queued() == [key_of(one) if one.key else one.id], "a person can end it"


async def test_a_second_burial_finds_nothing_to_do(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    await at_work(link, engine, service(), letter())

    assert await owners.bury(rescuer, engine) == 2
    assert await owners.bury(rescuer, engine) == 0

    assert await sessions.count("ready") == 2
    assert await sessions.rows("SELECT DISTINCT crashes FROM invocation") == [(1,)]


async def test_two_rescuers_at_once_put_everything_back_once(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    """More than a batch of either kind."""
    many = [service() for _ in range(owners.BATCH + 1)] + [letter(str(number)) for number in range(owners.BATCH + 1)]
    await at_work(link, engine, *many)
    other = await sessions.link()

    async with open_flush(link, engine=engine):  # both stand before it
        burials = [
            await sessions.blocked(owners.bury(rescuer, engine), rescuer, by=link),
            await sessions.blocked(owners.bury(other, engine), other, by=rescuer),
        ]

    async with asyncio.timeout(WITHIN):
        assert sum(await asyncio.gather(*burials)) == len(many)
    assert await sessions.count("ready") == len(many)
    assert await sessions.value("SELECT count(DISTINCT (invocation, key)) FROM ready") == len(many)
    assert await sessions.rows("SELECT DISTINCT crashes, status FROM invocation") == [(1, "ready")]


async def test_whoever_comes_next_ends_a_burial_that_was_cut_off_anywhere(
    sessions: Sessions, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(monkeypatch)
    for number in itertools.count(1):
        engine, one, holder = await sessions.engine(), service(), letter(f"key {number}")
        await at_work(link, engine, one, holder)
        first, second = await sessions.link(), await sessions.link()

        faults.arm(number, SESSION_ENDS)
        with contextlib.suppress(Disconnected):
            await owners.bury(first, engine)
        if not faults.disarm():
            break

        unfinished = await owners.unfinished(second)
        is_marked = not await sessions.value("SELECT alive FROM engine WHERE id = %s", UUID(bytes=engine))
        is_there = await sessions.owner(one) == engine
        assert unfinished == ([engine] if is_marked and is_there else [])
        await owners.bury(second, engine)

        assert sorted(map(str, await sessions.queued())) == sorted(map(str, [one.id, key_of(holder)])), number
        assert await sessions.rows("SELECT DISTINCT crashes, owner, status FROM invocation") == [(1, None, "ready")]
        await sessions.execute("TRUNCATE ready, invocation, inbox, object_key")
    assert number > 10, "it has met the fault again and again"


async def test_a_burial_is_found_unfinished_by_its_keys_too(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    await at_work(link, engine, letter())
    await sessions.execute("UPDATE engine SET alive = false")

    assert await owners.unfinished(rescuer) == [engine]
    await owners.bury(rescuer, engine)
    assert await owners.unfinished(rescuer) == []


async def test_who_comes_in_while_a_key_is_taken_back_waits_and_is_in_its_inbox(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    holder, second, caller = letter(), letter(), await sessions.link()
    await at_work(link, engine, holder)

    async with open_flush(caller, born(second)):
        burial = await sessions.blocked(owners.bury(rescuer, engine), rescuer, by=caller)
    assert await burial == 1

    assert await sessions.inbox(key_of(holder)) == [holder.id, second.id]
    assert await sessions.queued() == [key_of(holder)]


async def test_who_comes_to_a_key_at_rest_as_it_is_taken_back_is_not_forgotten(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    first, second, caller = letter(), letter(), await sessions.link()
    await at_work(link, engine, first)
    await commit(link, [ended(first, position=await sessions.position(first))], engine=engine)

    async with open_flush(caller, born(second)):
        burial = await sessions.blocked(owners.bury(rescuer, engine), rescuer, by=caller)
    await burial

    assert await sessions.inbox(key_of(second)) == [second.id]
    assert await sessions.lease(key_of(second)) is None
    assert await sessions.queued() == [key_of(second)]


async def test_news_that_comes_as_its_target_is_taken_back_is_kept(
    sessions: Sessions, link: Link, rescuer: Link, engine: bytes
) -> None:
    one, sender = service(), await sessions.link()
    await at_work(link, engine, one)

    async with open_flush(sender, told(one, 1, b"news")) as receipt:
        burial = await sessions.blocked(owners.bury(rescuer, engine), rescuer, by=sender)
    await burial

    assert receipt.told == {one.id: engine}
    assert await sessions.status(one) == Status.READY
    assert await sessions.mail(one) == {1: b"news"}
