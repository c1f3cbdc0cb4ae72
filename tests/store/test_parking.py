"""Falling asleep while a message arrives: whichever comes first, nobody sleeps on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.core.invocation import Invocation, Status
from runtime.core.slots import CANCEL, KILL
from runtime.store.commit import commit
from tests.support.sessions import Sessions, begun, born, ended, key_of, letter, open_flush, parked, service, told

NEWS = pytest.mark.parametrize(
    ("status", "slot"),
    [
        (Status.SUSPENDED, 1),
        (Status.SUSPENDED, CANCEL),
        (Status.BACKING_OFF, KILL),
        (Status.PAUSED, CANCEL),
    ],
)
KINDS = pytest.mark.parametrize("make", [service, letter])


async def running(sessions: Sessions, invocation: Invocation) -> bytes:
    """Let an engine of its own drive it."""
    engine = await sessions.engine()
    link = await sessions.link()
    await commit(link, [born(invocation, owner=engine)])
    await commit(link, [begun(invocation)], engine=engine)
    return engine


@NEWS
@KINDS
async def test_news_that_waits_for_one_to_fall_asleep_wakes_it(
    sessions: Sessions, make: Callable[[], Invocation], status: Status, slot: int
) -> None:
    one = make()
    engine, link, sender = await running(sessions, one), await sessions.link(), await sessions.link()

    async with open_flush(link, parked(one, status, waits=[1, 2], due=9_000_000_000_000), engine=engine) as receipt:
        telling = await sessions.blocked(commit(sender, [told(one, slot, b"news")]), sender, by=link)

    await telling
    assert receipt.parked == {one.id}
    assert await sessions.status(one) == "ready"
    assert await sessions.queued() == [key_of(one) if one.key else one.id]
    assert await sessions.mail(one) == {slot: b"news"}


@NEWS
@KINDS
async def test_one_that_waits_for_news_does_not_fall_asleep(
    sessions: Sessions, make: Callable[[], Invocation], status: Status, slot: int
) -> None:
    one = make()
    engine, link, sender = await running(sessions, one), await sessions.link(), await sessions.link()

    async with open_flush(sender, told(one, slot, b"news")) as receipt:
        sleep = parked(one, status, waits=[1, 2], due=9_000_000_000_000)
        parking = await sessions.blocked(commit(link, [sleep], engine=engine), link, by=sender)

    assert receipt.told == {one.id: engine}, "so that its engine can be told"
    assert (await parking).parked == set()
    assert await sessions.status(one) == "running"
    assert await sessions.count("timer") == 0
    assert await sessions.queued() == []
    assert (await sessions.lease(key_of(one)) if one.key else await sessions.owner(one)) == engine


async def test_one_falls_asleep_when_the_news_it_waited_for_is_taken_back(sessions: Sessions) -> None:
    one = service()
    engine, link, sender = await running(sessions, one), await sessions.link(), await sessions.link()

    with pytest.raises(ZeroDivisionError):
        async with open_flush(sender, told(one, 1)):
            parking = await sessions.blocked(commit(link, [parked(one, waits=[1])], engine=engine), link, by=sender)
            raise ZeroDivisionError

    assert (await parking).parked == {one.id}
    assert await sessions.status(one) == "suspended"


async def test_one_sleeps_on_through_news_that_it_does_not_wait_for(sessions: Sessions) -> None:
    one = service()
    engine, link, sender = await running(sessions, one), await sessions.link(), await sessions.link()

    async with open_flush(link, parked(one, waits=[1]), engine=engine):
        telling = await sessions.blocked(commit(sender, [told(one, 2)]), sender, by=link)
    await telling
    assert await sessions.status(one) == "suspended"
    assert await sessions.queued() == []

    await commit(sender, [told(one, 1)])
    assert await sessions.status(one) == "ready"


async def test_two_pieces_of_news_at_once_wake_one_once(sessions: Sessions) -> None:
    one = service()
    engine, link, first, second = await running(sessions, one), *[await sessions.link() for _ in range(3)]
    await commit(link, [parked(one, waits=[1, 2])], engine=engine)

    async with open_flush(first, told(one, 1)):
        telling = await sessions.blocked(commit(second, [told(one, 2)]), second, by=first)
    await telling

    assert await sessions.queued() == [one.id]
    assert set(await sessions.mail(one)) == {1, 2}


async def test_the_same_news_told_twice_counts_once(sessions: Sessions) -> None:
    one = service()
    engine, link, first, second = await running(sessions, one), *[await sessions.link() for _ in range(3)]
    await commit(link, [parked(one, waits=[1])], engine=engine)

    async with open_flush(first, told(one, 1, b"first")):
        telling = await sessions.blocked(commit(second, [told(one, 1, b"second")]), second, by=first)
    await telling

    assert await sessions.queued() == [one.id]
    assert await sessions.mail(one) == {1: b"first"}


@KINDS
async def test_a_caller_that_falls_asleep_as_its_callee_ends_is_woken(
    sessions: Sessions, make: Callable[[], Invocation]
) -> None:
    caller = make()
    engine = await running(sessions, caller)
    callee = service(caller=caller)
    other = await running(sessions, callee)
    link, ending = await sessions.link(), await sessions.link()

    async with open_flush(link, parked(caller, waits=[1]), engine=engine):
        end = await sessions.blocked(commit(ending, [ended(callee)], engine=other), ending, by=link)
    await end

    assert await sessions.status(caller) == "ready"
    assert await sessions.mail(caller) == {1: b"result"}


async def test_what_reads_two_rows_locks_them_in_one_order(sessions: Sessions) -> None:
    """Each of two flushes tells both: while both wait for the first row, nobody has the second."""
    one, two = service(), service()
    await commit(await sessions.link(), [born(one, two)])
    holder, left, right = await sessions.connection(), await sessions.link(), await sessions.link()
    await holder.execute("SELECT FROM invocation WHERE id = %s FOR UPDATE", [one.id.hex()])

    there = await sessions.blocked(commit(left, [told(one, 1), told(two, 1)]), left, by=holder)
    back = await sessions.blocked(commit(right, [told(two, 2), told(one, 2)]), right, by=left)
    await sessions.execute("SELECT FROM invocation WHERE id = %s FOR UPDATE NOWAIT", two.id.hex())
    await holder.rollback()

    await there
    await back
    assert set(await sessions.mail(two)) == {1, 2}


async def test_news_for_nobody_is_dropped_and_harms_no_other(sessions: Sessions) -> None:
    one, nobody = service(), service()
    await running(sessions, one)

    await commit(await sessions.link(), [told(nobody, 1), told(one, 1)])

    assert await sessions.count("mail") == 1
