"""Timers: in the order in which they are due, never early, each once, whoever looks."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import UUID

import pytest

from runtime.core.changes import Changes, Timer
from runtime.core.invocation import Invocation, Status
from runtime.errors import DatabaseError
from runtime.store import owners
from runtime.store.commit import commit
from runtime.store.link import Link, Pipeline, Statement
from runtime.store.timers import BATCH, Fired, fire_due, next_due
from tests.support.sessions import WITHIN, Sessions, begun, born, ended, key_of, letter, open_flush, parked, service

LONG_AGO = 1_000_000_000_000
FAR_OFF = 9_000_000_000_000


@pytest.fixture
async def engine(sessions: Sessions) -> bytes:
    return await sessions.engine()


@pytest.fixture
async def link(sessions: Sessions) -> Link:
    return await sessions.link()


async def fire(link: Link, engine: bytes, *, room: int = 0, takes: bool = True) -> Fired:
    return await fire_due(link, engine, room, lambda *_: takes)


async def asleep(link: Link, engine: bytes, one: Invocation, *, due: int, suspended: bool = True) -> None:
    """It sleeps until then, under completion id 1."""
    await commit(link, [born(one, owner=engine)])
    await commit(link, [begun(one)], engine=engine)
    await commit(link, [Changes(one, timers=[Timer(due, 1)])], engine=engine)
    if suspended:
        await commit(link, [parked(one, waits=[1])], engine=engine)


# Around locks


@pytest.mark.parametrize("locked", ["key", "invocation"])
async def test_what_somebody_has_locked_does_not_hold_up_the_others(
    sessions: Sessions, link: Link, engine: bytes, locked: str
) -> None:
    holder = letter("stuck")
    await commit(link, [born(holder, owner=engine)])
    stuck, free = letter("stuck"), letter("free")
    await commit(link, [born(one, due=LONG_AGO) for one in (stuck, free)])
    other = await sessions.link()
    statements = {
        "key": "SELECT FROM object_key WHERE key = 'stuck' FOR UPDATE",
        "invocation": f"SELECT FROM invocation WHERE id = '{UUID(bytes=stuck.id)}' FOR UPDATE",
    }
    holding = Pipeline()
    holding.begin()
    holding.call(Statement(statements[locked]))
    await other.run(holding)

    with pytest.raises(DatabaseError) as error:
        await fire(await sessions.link(patient=False), engine)
    assert error.value.is_lock_timeout
    fired = await fire_due(link, engine, 0, lambda *_: True, around_locks=True)

    assert fired.postponed == 1
    assert await sessions.status(free) == "pending"
    assert await sessions.status(stuck) == "scheduled"
    other.close()
    await sessions.execute("UPDATE timer SET due = now()")  # the second is over
    assert (await fire(link, engine)).taken == 1
    assert await sessions.status(stuck) == "pending"


@pytest.mark.parametrize("locked", ["key", "invocation"])
async def test_what_is_postponed_is_not_overtaken(sessions: Sessions, link: Link, engine: bytes, locked: str) -> None:
    holder = letter()
    await commit(link, [born(holder, owner=engine)])
    first, beside, soon = letter(), letter(), letter()
    soon_due = await now(sessions) + 500
    await commit(link, [born(first, due=LONG_AGO), born(beside, due=LONG_AGO), born(soon, due=soon_due)])
    other = await sessions.connection()
    statements = {
        "key": "SELECT FROM object_key FOR UPDATE",
        "invocation": f"SELECT FROM invocation WHERE id = '{UUID(bytes=first.id)}' FOR UPDATE",
    }
    await other.execute(statements[locked])

    fired = await fire_due(link, engine, 0, lambda *_: True, around_locks=True)

    assert fired.postponed == 3
    await other.rollback()
    assert [id.bytes for (id,) in await sessions.rows("SELECT invocation FROM timer ORDER BY due")] == [
        first.id,
        beside.id,
        soon.id,
    ]
    assert (await next_due(link) or 0) >= soon_due, "nothing is early"


# In order
# In order


async def test_delayed_letters_come_in_by_the_order_of_their_due_times(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    letters = [letter() for _ in range(20)]
    dues = random.sample(range(LONG_AGO, LONG_AGO + 1000), len(letters))
    await commit(link, [born(one, due=due) for one, due in zip(letters, dues, strict=True)])

    fired = await fire(link, engine)

    assert fired.taken == len(letters)
    assert await sessions.inbox(("Counter", "k")) == [
        one.id for _, one in sorted(zip(dues, letters, strict=True), key=lambda pair: pair[0])
    ]


async def test_what_is_due_at_one_moment_comes_in_by_the_order_of_sending(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    letters = [letter() for _ in range(BATCH + 100)]
    random.shuffle(letters)  # ids that were derived from idempotency keys have no order
    for some in (letters[:100], letters[100:]):
        await commit(link, [born(one, due=LONG_AGO) for one in some])
    sleepers = [service() for _ in range(10)]
    for one in sleepers:
        await asleep(link, engine, one, due=LONG_AGO)

    assert [(await fire(link, engine)).taken for _ in range(3)] == [BATCH, 110, 0]

    assert await sessions.inbox(("Counter", "k")) == [one.id for one in letters]


async def test_delayed_sends_are_queued_by_the_order_of_their_due_times(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    late, soon = service(), service()
    await commit(link, [born(late, due=LONG_AGO + 1), born(soon, due=LONG_AGO)])

    assert (await fire(link, engine)).queued

    assert await sessions.queued() == [soon.id, late.id]


async def test_of_more_than_a_batch_the_earliest_are_taken_first(sessions: Sessions, link: Link, engine: bytes) -> None:
    many = [service() for _ in range(BATCH + 1)]
    await commit(link, [born(one, due=LONG_AGO + BATCH - number) for number, one in enumerate(many)])

    assert (await fire(link, engine)).taken == BATCH
    assert await sessions.status(many[0]) == "scheduled"
    assert await next_due(link) == LONG_AGO + BATCH
    assert (await fire(link, engine)).taken == 1
    assert (await fire(link, engine)).taken == 0


# Never early


async def test_what_is_not_due_stays(sessions: Sessions, link: Link, engine: bytes) -> None:
    one, other = service(), service()
    await commit(link, [born(one, due=FAR_OFF), born(other, due=LONG_AGO)])

    assert (await fire(link, engine)).taken == 1

    assert (await sessions.status(one), await sessions.status(other)) == ("scheduled", "ready")
    assert await next_due(link) == FAR_OFF


async def test_nothing_begins_before_the_databases_clock_says_so(sessions: Sessions, link: Link, engine: bytes) -> None:
    due = await now(sessions) + 150
    await commit(link, [born(service(), due=due)])

    async with asyncio.timeout(WITHIN):
        while not (await fire(link, engine)).taken:
            await asyncio.sleep(0.001)

    assert await now(sessions) >= due


async def test_a_retry_does_not_come_before_its_own_time(sessions: Sessions, link: Link, engine: bytes) -> None:
    """The timer of an earlier one, which was called off, may still be about."""
    one = service()
    await commit(link, [born(one, owner=engine)])
    await commit(link, [parked(one, Status.BACKING_OFF, due=FAR_OFF)], engine=engine)
    await sessions.execute("INSERT INTO timer VALUES ('2001-09-09', %s, -2)", UUID(bytes=one.id))

    await fire(link, engine)
    assert await sessions.status(one) == "backing-off"

    await sessions.execute("UPDATE invocation SET due_at = '2001-09-09'")
    await sessions.execute("UPDATE timer SET due = '2001-09-09'")
    await fire(link, engine)
    assert await sessions.status(one) == "ready"
    assert await sessions.queued() == [one.id]


async def now(sessions: Sessions) -> int:
    return int(await sessions.value("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"))


# Each once


async def test_a_batch_under_way_is_nobody_elses(sessions: Sessions, link: Link, engine: bytes) -> None:
    one, rival = service(), await sessions.connection()
    await commit(link, [born(one, due=LONG_AGO)])
    assert (await rival.execute("SELECT * FROM take_due(500)")).rowcount == 1

    async with asyncio.timeout(WITHIN):
        assert (await fire(link, engine)).taken == 0
    await rival.rollback()

    assert (await fire(link, engine)).taken == 1
    assert await sessions.queued() == [one.id]


async def test_many_due_together_are_each_taken_once_by_whoever_looks(sessions: Sessions, link: Link) -> None:
    many = [service() for _ in range(3 * BATCH + 7)]
    await commit(link, [born(one, due=LONG_AGO) for one in many])
    engines = [await sessions.engine() for _ in range(3)]

    async def look(engine: bytes) -> int:
        taken, looking = 0, await sessions.link()
        while await next_due(looking) is not None:
            taken += (await fire(looking, engine)).taken
        return taken

    async with asyncio.timeout(WITHIN):
        assert sum(await asyncio.gather(*map(look, engines))) == len(many)
    assert sorted(await sessions.queued()) == [one.id for one in many]


async def test_a_dead_engine_sets_nothing_going(sessions: Sessions, link: Link, engine: bytes) -> None:
    one = service()
    await commit(link, [born(one, due=LONG_AGO)])
    await owners.bury(await sessions.link(), engine)

    with pytest.raises(DatabaseError) as error:
        await fire(link, engine, room=1)

    assert error.value.is_vouch
    other = await sessions.engine()
    assert (await fire(link, other, room=1)).owned == [one.id]


async def test_a_burial_takes_what_was_being_given_to_the_engine(sessions: Sessions, link: Link, engine: bytes) -> None:
    one, two, rescuer, holder = service(), service(), await sessions.link(), await sessions.connection()
    await commit(link, [born(one, two, due=LONG_AGO)])
    await holder.execute("SELECT FROM invocation WHERE id = %s FOR UPDATE", [two.id.hex()])

    firing = await sessions.blocked(fire(link, engine, room=2), link, by=holder)
    burial = await sessions.blocked(owners.bury(rescuer, engine), rescuer, by=link)
    await holder.rollback()

    assert (await firing).owned == [one.id, two.id]
    assert await burial == 2
    assert await sessions.queued() == [one.id, two.id]


# To whom


@pytest.mark.parametrize(("room", "takes"), [(1, True), (0, True), (1, False)])
async def test_an_engine_keeps_what_it_has_room_for(
    sessions: Sessions, link: Link, engine: bytes, room: int, takes: bool
) -> None:
    first, second = service(), service()
    await commit(link, [born(first, due=LONG_AGO), born(second, due=LONG_AGO + 1)])

    fired = await fire(link, engine, room=room, takes=takes)

    owned: list[Any] = [first.id] if room and takes else []
    assert fired.owned == owned
    assert await sessions.queued() == [one.id for one in (first, second) if one.id not in owned]
    assert await sessions.count("claimed") == len(owned)


async def test_a_delayed_letter_comes_to_the_engine_that_leases_its_key(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    other = await sessions.engine()
    here, delayed, alone = letter("k"), letter("k"), letter("l")
    await commit(link, [born(here, owner=other), born(delayed, alone, due=LONG_AGO)])

    fired = await fire(link, engine)

    assert fired.keys == {key_of(delayed): other, key_of(alone): engine}
    assert await sessions.inbox(key_of(delayed)) == [here.id, delayed.id]
    assert await sessions.queued() == []


async def test_a_delayed_letter_for_a_key_that_nobody_takes_is_queued_with_it(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    one = letter()
    await commit(link, [born(one, due=LONG_AGO)])

    await fire(link, engine, takes=False)

    assert await sessions.status(one) == "pending"
    assert await sessions.queued() == [key_of(one)]


# Sleepers


async def test_a_sleepers_time_wakes_it(sessions: Sessions, link: Link, engine: bytes) -> None:
    one = service()
    await asleep(link, engine, one, due=LONG_AGO)

    await fire(link, engine)

    assert await sessions.status(one) == "ready"
    assert await sessions.mail(one) == {1: b""}


async def test_one_that_waits_in_memory_is_told_through_its_engine(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    one, other = service(), await sessions.engine()
    await asleep(link, engine, one, due=LONG_AGO, suspended=False)

    fired = await fire(link, other)

    assert fired.told == {one.id: engine}
    assert [(letter.target, letter.slot) for letter in fired.mails] == [(one.id, 1)]


async def test_a_timer_that_waits_for_one_to_fall_asleep_wakes_it(
    sessions: Sessions, link: Link, engine: bytes
) -> None:
    one, looking = service(), await sessions.link()
    await asleep(link, engine, one, due=LONG_AGO, suspended=False)

    async with open_flush(link, parked(one, waits=[1]), engine=engine):
        firing = await sessions.blocked(fire(looking, engine), looking, by=link)
    await firing

    assert await sessions.status(one) == "ready"
    assert await sessions.queued() == [one.id]


async def test_one_that_waits_for_its_timer_does_not_fall_asleep(sessions: Sessions, link: Link, engine: bytes) -> None:
    one, other = service(), service()
    holder, looking = await sessions.connection(), await sessions.link()
    for each in (one, other):
        await asleep(link, engine, each, due=LONG_AGO, suspended=False)
    await holder.execute("SELECT FROM invocation WHERE id = %s FOR UPDATE", [other.id.hex()])

    firing = await sessions.blocked(fire(looking, engine), looking, by=holder)  # it has locked the first
    parking = await sessions.blocked(commit(link, [parked(one, waits=[1])], engine=engine), link, by=looking)
    await holder.rollback()
    await firing

    assert (await parking).parked == set()
    assert await sessions.status(one) == "running"
    assert await sessions.mail(one) == {1: b""}


async def test_a_timer_of_what_has_ended_finds_nobody(sessions: Sessions, link: Link, engine: bytes) -> None:
    one, other = service(), service()
    for each in (one, other):
        await asleep(link, engine, each, due=LONG_AGO, suspended=False)
    await commit(link, [ended(one)], engine=engine)

    await fire(link, engine)

    assert await sessions.count("timer") == 0
    assert await sessions.mail(one) == {}
    assert await sessions.mail(other) == {1: b""}


async def test_a_timer_that_waits_for_the_end_finds_nobody(sessions: Sessions, link: Link, engine: bytes) -> None:
    one, looking = service(), await sessions.link()
    await asleep(link, engine, one, due=LONG_AGO, suspended=False)

    async with open_flush(link, ended(one), engine=engine):
        firing = await sessions.blocked(fire(looking, engine), looking, by=link)
    await firing

    assert await sessions.count("mail") == await sessions.count("ready") == await sessions.count("timer") == 0
