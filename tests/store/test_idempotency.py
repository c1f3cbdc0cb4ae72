"""Idempotency: of submissions with one key the first is the first, and all others get what became of it."""

from __future__ import annotations

from uuid import uuid4

import pytest

from runtime.core.changes import Changes
from runtime.core.invocation import Invocation
from runtime.store.commit import commit
from runtime.store.link import Link
from tests.support.sessions import Sessions, begun, born, ended, open_flush, parked, service


@pytest.fixture
async def link(sessions: Sessions) -> Link:
    return await sessions.link()


@pytest.fixture
async def other(sessions: Sessions) -> Link:
    return await sessions.link()


def same(one: Invocation, *, caller: Invocation | None = None) -> Invocation:
    """A repetition: the id follows from the idempotency key."""
    repetition = service(caller=caller, once=one.idempotency_key)
    repetition.id = one.id
    return repetition


def submitted(one: Invocation) -> Changes:
    """With a token of its own, as every submission."""
    return born(one, token=uuid4().bytes)


async def under_way(sessions: Sessions, *invocations: Invocation) -> bytes:
    """An engine drives them."""
    engine, link = await sessions.engine(), await sessions.link()
    await commit(link, [born(one, owner=engine) for one in invocations])
    await commit(link, [begun(one) for one in invocations], engine=engine)
    return engine


# Coming first


async def test_of_two_that_come_at_once_one_is_created(sessions: Sessions, link: Link, other: Link) -> None:
    first = service(once="x")

    async with open_flush(link, submitted(first)) as receipt:
        second = await sessions.blocked(commit(other, [submitted(same(first))]), other, by=link)

    assert receipt.created == {first.id}
    assert (await second).created == set()
    assert await sessions.count("invocation") == await sessions.count("ready") == 1


async def test_the_second_is_created_when_the_first_is_undone(sessions: Sessions, link: Link, other: Link) -> None:
    first = service(once="x")

    with pytest.raises(ZeroDivisionError):
        async with open_flush(link, submitted(first)):
            second = await sessions.blocked(commit(other, [submitted(same(first))]), other, by=link)
            raise ZeroDivisionError

    assert (await second).created == {first.id}
    assert await sessions.queued() == [first.id]


async def test_one_key_twice_in_a_flush_is_created_once(sessions: Sessions, link: Link) -> None:
    first, neighbour = service(once="x"), service()

    receipt = await commit(link, [submitted(first), submitted(same(first)), born(neighbour)])

    assert receipt.created == {first.id, neighbour.id}
    assert await sessions.queued() == [first.id, neighbour.id]


async def test_two_callers_with_one_key_in_a_flush_both_get_the_result(sessions: Sessions, link: Link) -> None:
    one, two = service(), service()
    engine = await under_way(sessions, one, two)
    first = service(caller=one, once="x")

    await commit(link, [submitted(first), submitted(same(first, caller=two))], engine=engine)
    await commit(link, [ended(first)], engine=engine)

    assert await sessions.mail(one) == await sessions.mail(two) == {1: b"result"}
    assert await sessions.count("waiter") == 0


async def test_several_keys_in_any_order_are_locked_in_one(sessions: Sessions, link: Link, other: Link) -> None:
    """While both wait for the first key, nobody has the second."""
    one, two, holder = service(once="1"), service(once="2"), await sessions.connection()
    await commit(link, [submitted(one), submitted(two)])
    await holder.execute("SELECT FROM idempotency WHERE invocation = %s FOR UPDATE", [one.id.hex()])

    there = await sessions.blocked(commit(link, [submitted(same(one)), submitted(same(two))]), link, by=holder)
    back = await sessions.blocked(commit(other, [submitted(same(two)), submitted(same(one))]), other, by=link)
    await sessions.execute("SELECT FROM idempotency WHERE invocation = %s FOR UPDATE NOWAIT", two.id.hex())
    await holder.rollback()

    assert (await there).created == (await back).created == set()


async def test_new_keys_in_opposite_orders_do_not_deadlock(sessions: Sessions, link: Link, other: Link) -> None:
    one, two = service(once="1"), service(once="2")

    async with open_flush(link, submitted(one)):
        back = await sessions.blocked(commit(other, [submitted(same(two)), submitted(same(one))]), other, by=link)
        # Had it taken its second key before it waited for the first, this would be a cycle.
        third = await sessions.link()
        await commit(third, [submitted(same(two))])

    assert (await back).created == set()
    assert await sessions.count("invocation") == 2


# Attaching against ending


async def test_the_end_waits_for_one_that_attaches_and_tells_it(sessions: Sessions, link: Link, other: Link) -> None:
    first, caller = service(once="x"), service()
    await commit(link, [submitted(first)])
    engine = await under_way(sessions, caller)

    async with open_flush(other, submitted(same(first, caller=caller)), engine=engine):
        end = await sessions.blocked(commit(link, [ended(first)]), link, by=other)
    await end

    assert await sessions.mail(caller) == {1: b"result"}
    assert await sessions.count("waiter") == 0


async def test_one_that_attaches_waits_for_the_end_and_gets_its_result(
    sessions: Sessions, link: Link, other: Link
) -> None:
    first, caller = service(once="x"), service()
    await commit(link, [submitted(first)])
    engine = await under_way(sessions, caller)

    async with open_flush(link, ended(first)):
        attach = commit(other, [submitted(same(first, caller=caller))], engine=engine)
        attaching = await sessions.blocked(attach, other, by=link)
    assert (await attaching).created == set()

    assert await sessions.mail(caller) == {1: b"result"}
    assert await sessions.count("waiter") == 0


async def test_one_that_attaches_to_what_has_ended_does_not_fall_asleep(sessions: Sessions, link: Link) -> None:
    first, caller = service(once="x"), service()
    await commit(link, [submitted(first)])
    engine = await under_way(sessions, caller)
    await commit(link, [ended(first)])

    receipt = await commit(link, [submitted(same(first, caller=caller)), parked(caller, waits=[1])], engine=engine)

    assert receipt.parked == set()
    assert await sessions.mail(caller) == {1: b"result"}


async def test_the_end_wakes_one_that_has_attached_and_is_falling_asleep(
    sessions: Sessions, link: Link, other: Link
) -> None:
    first, caller = service(once="x"), service()
    await commit(link, [submitted(first)])
    engine = await under_way(sessions, caller)
    await commit(other, [submitted(same(first, caller=caller))], engine=engine)

    async with open_flush(other, parked(caller, waits=[1]), engine=engine):
        end = await sessions.blocked(commit(link, [ended(first)]), link, by=other)
    await end

    assert await sessions.status(caller) == "ready"
    assert await sessions.mail(caller) == {1: b"result"}


async def test_one_that_falls_asleep_while_what_it_attached_to_ends_stays_awake(
    sessions: Sessions, link: Link, other: Link
) -> None:
    first, caller = service(once="x"), service()
    await commit(link, [submitted(first)])
    engine = await under_way(sessions, caller)
    await commit(other, [submitted(same(first, caller=caller))], engine=engine)

    async with open_flush(link, ended(first)):
        parking = await sessions.blocked(commit(other, [parked(caller, waits=[1])], engine=engine), other, by=link)

    assert (await parking).parked == set()
    assert await sessions.mail(caller) == {1: b"result"}


async def test_one_that_attaches_stays_waiting_when_the_end_is_undone(
    sessions: Sessions, link: Link, other: Link
) -> None:
    first, caller = service(once="x"), service()
    await commit(link, [submitted(first)])
    engine = await under_way(sessions, caller)

    with pytest.raises(ZeroDivisionError):
        async with open_flush(link, ended(first), engine=engine):
            attaching = await sessions.blocked(commit(other, [submitted(same(first, caller=caller))]), other, by=link)
            raise ZeroDivisionError
    await attaching

    assert await sessions.mail(caller) == {}
    assert await sessions.count("waiter") == 1


# Expiring


async def test_a_key_that_has_expired_starts_anew_for_one_of_two(sessions: Sessions, link: Link, other: Link) -> None:
    first = service(once="x")
    engine = await sessions.engine()
    await commit(link, [submitted(first)])
    await commit(link, [begun(first, b"step")], engine=engine)
    await commit(link, [ended(first, retention=0)], engine=engine)
    await sessions.execute("UPDATE idempotency SET expires_at = now() - interval '1 second'")

    async with open_flush(link, submitted(same(first))) as receipt:
        second = await sessions.blocked(commit(other, [submitted(same(first))]), other, by=link)

    assert receipt.created == {first.id}
    assert (await second).created == set()
    assert await sessions.status(first) == "ready"
    assert await sessions.count("journal") == 0, "what its predecessor of the same id did"


async def test_a_key_does_not_expire_while_its_invocation_is_under_way(sessions: Sessions, link: Link) -> None:
    first = service(once="x")
    await commit(link, [submitted(first)])

    assert await sessions.value("SELECT expires_at FROM idempotency") is None
    assert (await commit(link, [submitted(same(first))])).created == set()
