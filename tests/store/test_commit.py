"""A commit: all that is in it or nothing, and nothing that contradicts what others have committed."""

from __future__ import annotations

from uuid import UUID

import pytest

from runtime.core.changes import Changes, Timer
from runtime.core.invocation import Invocation, Status
from runtime.errors import DatabaseError
from runtime.store.commit import commit
from runtime.store.link import Link
from tests.support.sessions import Sessions, begun, born, ended, key_of, letter, open_flush, parked, service, told


@pytest.fixture
async def engine(sessions: Sessions) -> bytes:
    return await sessions.engine()


@pytest.fixture
async def link(sessions: Sessions) -> Link:
    return await sessions.link()


async def driven(link: Link, engine: bytes, *invocations: Invocation) -> None:
    await commit(link, [born(one, owner=engine) for one in invocations], engine=engine)
    await commit(link, [begun(one) for one in invocations], engine=engine)


async def refused(link: Link, *all_changes: Changes, engine: bytes | None) -> DatabaseError:
    with pytest.raises(DatabaseError) as error:
        await commit(link, all_changes, engine=engine)
    return error.value


# Ends


async def test_an_end_of_what_has_ended_is_refused_with_all_that_came_along(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    one, other, child = service(), service(), service()
    await driven(link, engine, one, other)
    await commit(link, [ended(one, result=b"the first")], engine=engine)

    again = ended(one, result=b"the second")
    again.creations += born(child).creations
    error = await refused(link, begun(other, b"step"), again, ended(other), engine=engine)

    assert error.sqlstate == "PF003"
    assert error.is_poison
    assert await sessions.status(other) == "running"
    assert await sessions.status(child) == "unknown"
    assert await sessions.count("journal") == 0
    assert await sessions.rows("SELECT id, result FROM done") == [(UUID(bytes=one.id), b"the first")]


@pytest.mark.parametrize("is_end", [False, True])
async def test_what_a_late_hint_had_driven_changes_nothing(
    sessions: Sessions, link: Link, engine: bytes, *, is_end: bool
) -> None:
    """It was found without the hint, its first attempt failed after a send, and it waits for a person."""
    one, child = service(), service()
    await commit(link, [born(one, owner=engine)], engine=engine)
    await commit(link, [parked(one, Status.PAUSED)], engine=engine)

    zombie = ended(one) if is_end else begun(one, b"step")
    zombie.begun, zombie.is_first_word = None, True
    zombie.creations += born(child).creations
    error = await refused(link, zombie, engine=engine)

    assert error.is_mismatch
    assert await sessions.status(one) == "paused"
    assert await sessions.status(child) == "unknown"


@pytest.mark.parametrize("is_end", [False, True])
async def test_what_a_hint_in_time_had_driven_is_kept(
    sessions: Sessions, link: Link, engine: bytes, *, is_end: bool
) -> None:
    one = service()
    await commit(link, [born(one, owner=engine)], engine=engine)

    first = ended(one) if is_end else begun(one, b"step")
    first.begun, first.is_first_word = None, True
    await commit(link, [first], engine=engine)

    assert await sessions.status(one) == ("completed" if is_end else "running")


async def test_of_two_ends_at_once_one_waits_and_is_refused(sessions: Sessions, link: Link, engine: bytes) -> None:
    """As a kill and the handler's own end may come together."""
    one, killer = service(), await sessions.link()
    await driven(link, engine, one)

    async with open_flush(killer, ended(one, result=b"killed")):
        end = await sessions.blocked(commit(link, [ended(one, result=b"done")], engine=engine), link, by=killer)

    with pytest.raises(DatabaseError, match="finish: 0 rows, expected 1"):
        await end
    assert await sessions.value("SELECT result FROM done") == b"killed"


async def test_an_end_that_waited_for_one_that_was_undone_passes(sessions: Sessions, link: Link, engine: bytes) -> None:
    one, killer = service(), await sessions.link()
    await driven(link, engine, one)

    with pytest.raises(ZeroDivisionError):
        async with open_flush(killer, ended(one, result=b"killed")):
            end = await sessions.blocked(commit(link, [ended(one, result=b"done")], engine=engine), link, by=killer)
            raise ZeroDivisionError
    await end

    assert await sessions.value("SELECT result FROM done") == b"done"


async def test_an_end_whose_place_in_the_inbox_is_gone_is_refused(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    """Somebody else has run it: what this one computed from the key's state is not true."""
    one = letter()
    await driven(link, engine, one)
    changes = ended(one, position=await sessions.position(one))
    changes.state["count"] = b"1"
    await sessions.execute("DELETE FROM inbox")

    error = await refused(link, changes, engine=engine)

    assert error.sqlstate == "PF003"
    assert await sessions.status(one) == "running"
    assert await sessions.count("state") == 0


async def test_the_same_end_twice_in_a_flush_is_refused(sessions: Sessions, link: Link, engine: bytes) -> None:
    one = service()
    await driven(link, engine, one)

    await refused(link, ended(one), ended(one), engine=engine)

    assert await sessions.status(one) == "running"


async def test_an_end_takes_along_all_that_is_left(sessions: Sessions, link: Link, engine: bytes) -> None:
    caller = service()
    one = letter(caller=caller)
    await driven(link, engine, caller, one)
    await commit(link, [told(one, 5, b"unread")])

    await commit(link, [ended(one, position=await sessions.position(one))], engine=engine)
    await commit(link, [ended(caller)], engine=engine, release=[key_of(one)])

    for table in ("invocation", "claimed", "inbox", "mail", "ready", "object_key", "waiter", "timer"):
        assert await sessions.count(table) == 0, table
    assert await sessions.count("done") == 2


# Journals


async def test_an_entry_that_is_in_the_journal_is_not_written_again(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    one, other = service(), service()
    await driven(link, engine, one, other)
    await commit(link, [begun(one, b"first")], engine=engine)

    error = await refused(link, begun(other, b"first"), begun(one, b"another"), engine=engine)

    assert error.is_poison
    assert await sessions.rows("SELECT invocation, frames FROM journal") == [(UUID(bytes=one.id), b"first")]


async def test_one_that_does_not_fall_asleep_keeps_what_it_did(sessions: Sessions, link: Link, engine: bytes) -> None:
    """News keeps it awake, not its flush from being made: the journal goes on behind it."""
    one = service()
    await driven(link, engine, one)
    await commit(link, [told(one, 1)])

    sleep = parked(one, waits=[1])
    sleep.first, sleep.frames, sleep.timers = 1, [b"sleep"], [Timer(9_000_000_000_000, 1)]
    receipt = await commit(link, [sleep], engine=engine)

    assert receipt.parked == set()
    assert await sessions.value("SELECT frames FROM journal") == b"sleep"
    assert await sessions.count("timer") == 1


async def test_mail_that_is_in_the_journal_is_gone_and_other_mail_is_not(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    one = service()
    await driven(link, engine, one)
    await commit(link, [told(one, 1, b"heard"), told(one, 2, b"new")])

    heard = begun(one, b"notification")
    heard.read.append(1)
    await commit(link, [heard], engine=engine)

    assert await sessions.mail(one) == {2: b"new"}


# State


async def test_of_several_words_on_a_value_in_one_flush_the_last_counts(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    """An upsert takes no row twice: they are merged before."""
    one, two, three = letter(), letter(), letter()
    await driven(link, engine, one, two, three)
    words: list[tuple[Invocation, dict[str, bytes | None], bool]] = [
        (one, {"a": b"1", "b": b"1", "c": b"1"}, False),
        (two, {"b": b"2", "c": None}, True),
        (three, {"d": b"3", "c": b"3", "b": b"3"}, False),
    ]

    await commit(
        link, [Changes(who, state=dict(state), cleared=cleared) for who, state, cleared in words], engine=engine
    )
    assert dict(await sessions.rows("SELECT name, value FROM state")) == {"b": b"3", "c": b"3", "d": b"3"}

    await commit(link, [Changes(one, state={"b": None}), Changes(two, state={"b": b"4", "d": None})], engine=engine)
    assert dict(await sessions.rows("SELECT name, value FROM state")) == {"b": b"4", "c": b"3"}


async def test_a_cleared_key_keeps_nothing_and_its_neighbour_all(sessions: Sessions, link: Link, engine: bytes) -> None:
    one, neighbour = letter("k"), letter("l")
    await driven(link, engine, one, neighbour)
    await commit(link, [Changes(one, state={"a": b"1"}), Changes(neighbour, state={"a": b"1"})], engine=engine)

    await commit(link, [Changes(one, cleared=True)], engine=engine)

    assert await sessions.rows("SELECT key FROM state") == [("l",)]
