"""Scheduled sends: moved, begun now or taken back, while engines look for what is due."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest

from runtime.core.access import Actor, Role
from runtime.core.audit import Act
from runtime.core.invocation import Invocation
from runtime.store.commit import commit
from runtime.store.link import Link, Pipeline, Statement
from runtime.store.scheduled import Word, cancel, move
from runtime.store.timers import fire_due
from tests.support.sessions import Sessions, born, letter, service

SOME_DAY = 4_102_444_800_000
DAY = 86_400_000
LONG_AGO = 1_000_000_000_000
NOW = 0


@pytest.fixture
async def link(sessions: Sessions) -> Link:
    return await sessions.link()


@pytest.fixture
async def other(sessions: Sessions) -> Link:
    return await sessions.link()


def by_mary(ids: Sequence[bytes]) -> Act:
    return Act(Actor("mary", Role.OPERATOR, "tests"), "scheduled.move", f"{len(ids)} sends")


async def fire(link: Link, engine: bytes) -> int:
    return (await fire_due(link, engine, 0, lambda *_: False)).taken


async def due(sessions: Sessions, one: Invocation) -> tuple[int, int]:
    """When the invocation says that it is due, and when its one timer does."""
    (row,) = await sessions.rows(
        "SELECT extract(epoch FROM due_at) * 1000, extract(epoch FROM due) * 1000"
        " FROM invocation JOIN timer ON invocation = id WHERE id = %s",
        UUID(bytes=one.id),
    )
    return int(row[0]), int(row[1])


async def test_a_send_that_is_moved_is_due_then_and_not_before(sessions: Sessions, link: Link) -> None:
    engine, one = await sessions.engine(), service()
    await commit(link, [born(one, due=SOME_DAY)])

    came = await move(link, [one.id], SOME_DAY - DAY, by_mary)

    assert (came.words, came.due) == ({one.id: Word.DONE}, {one.id: SOME_DAY - DAY})
    assert await due(sessions, one) == (SOME_DAY - DAY, SOME_DAY - DAY)
    assert await fire(link, engine) == 0
    await move(link, [one.id], NOW, by_mary)
    assert await fire(link, engine) == 1
    assert await sessions.status(one) == "ready"


async def test_a_send_that_is_taken_back_never_begins_and_frees_its_idempotency_key(
    sessions: Sessions, link: Link
) -> None:
    engine = await sessions.engine()
    one = service(once="once")
    await commit(link, [born(one, due=LONG_AGO, token=bytes(16))])

    came = await cancel(link, [one.id], by_mary)

    assert came.words == {one.id: Word.DONE}
    assert await sessions.value("SELECT outcome FROM done") == "cancelled"
    assert [await sessions.count(table) for table in ("timer", "invocation", "inbox", "object_key")] == [0] * 4
    assert await sessions.value("SELECT expires_at IS NOT NULL FROM idempotency")
    assert await fire(link, engine) == 0


@pytest.mark.parametrize("tell", ["move", "cancel"])
async def test_a_send_that_is_being_fired_is_not_waited_for_and_begins(
    sessions: Sessions, link: Link, other: Link, tell: str
) -> None:
    """The engine has taken the timer and waits for the invocation, which somebody holds."""
    engine, one = await sessions.engine(), service()
    await commit(link, [born(one, due=LONG_AGO)])
    holder = await sessions.connection()
    await holder.execute("SELECT FROM invocation WHERE id = %s FOR NO KEY UPDATE", [UUID(bytes=one.id)])
    firing = await sessions.blocked(fire(other, engine), other, by=holder)
    telling = move(link, [one.id], SOME_DAY, by_mary) if tell == "move" else cancel(link, [one.id], by_mary)
    waiting = await sessions.blocked(telling, link, by=other)

    await holder.commit()

    assert (await waiting).words == {one.id: Word.BEGUN}
    assert await firing == 1
    assert await sessions.status(one) == "ready"
    assert await sessions.count("timer") == 0


async def test_an_engine_that_comes_second_leaves_a_moved_send_alone(
    sessions: Sessions, link: Link, other: Link
) -> None:
    engine, one = await sessions.engine(), service()
    await commit(link, [born(one, due=LONG_AGO)])
    holder = (
        await sessions.connection()
    )  # between the mover and the invocation's row: it has its turn before the engine
    await holder.execute("SELECT FROM audit")
    await holder.execute("LOCK TABLE audit")
    moving = await sessions.blocked(move(link, [one.id], SOME_DAY, by_mary), link, by=holder)
    firing = await sessions.blocked(fire(other, engine), other, by=link)

    await holder.commit()

    assert (await moving).words == {one.id: Word.DONE}
    assert await firing == 0
    assert await sessions.status(one) == "scheduled"
    assert await due(sessions, one) == (SOME_DAY, SOME_DAY)


async def test_what_is_moved_together_stays_in_its_order(sessions: Sessions, link: Link) -> None:
    engine = await sessions.engine()
    sends = [letter("k") for _ in range(7)]
    for n, one in enumerate(reversed(sends)):
        await commit(link, [born(one, due=SOME_DAY - n * DAY)])

    came = await move(link, [one.id for one in sorted(sends, key=lambda one: one.id[::-1])], LONG_AGO, by_mary)

    assert came.passes == {}
    assert await fire(link, engine) == 7
    assert await sessions.inbox(("Counter", "k")) == [one.id for one in sends]


async def test_a_move_says_whose_order_it_changes(link: Link) -> None:
    first, second, third = letter("k"), letter("k"), letter("k")
    elsewhere, shared = letter("other"), service()
    for n, one in enumerate((first, second, third, elsewhere, shared)):
        await commit(link, [born(one, due=SOME_DAY + n)])

    assert (await move(link, [third.id], SOME_DAY + DAY, by_mary)).passes == {}
    assert (await move(link, [third.id], SOME_DAY - DAY, by_mary)).passes == {("Counter", "k"): 2}
    assert (await move(link, [first.id, second.id], SOME_DAY - 2 * DAY, by_mary)).passes == {("Counter", "k"): 2}
    assert (await move(link, [shared.id], NOW, by_mary)).passes == {}


async def test_what_has_begun_or_is_not_known_is_told_apart_and_the_others_are_moved(
    sessions: Sessions, link: Link
) -> None:
    scheduled, begun = service(), service()
    await commit(link, [born(scheduled, due=SOME_DAY), born(begun)])

    came = await move(link, [begun.id, b"?" * 16, scheduled.id], NOW, by_mary)

    assert came.words == {begun.id: Word.BEGUN, b"?" * 16: Word.UNKNOWN, scheduled.id: Word.DONE}
    assert await sessions.rows("SELECT actor, verb, target, result FROM audit") == [
        ("mary", "scheduled.move", "3 sends", "1 of 3 done")
    ]


async def test_a_move_that_is_undone_leaves_the_send_where_it_was(sessions: Sessions, link: Link) -> None:
    """A move whose audit line cannot be written: nothing of it stands."""
    one = service()
    await commit(link, [born(one, due=SOME_DAY)])
    refusing = Pipeline()
    refusing.call(Statement("ALTER TABLE audit ADD CHECK (verb <> 'scheduled.move')"))
    await link.run(refusing)

    with pytest.raises(Exception, match="audit"):
        await move(link, [one.id], NOW, by_mary)

    assert await due(sessions, one) == (SOME_DAY, SOME_DAY)
