"""Promises: who asks for one and who completes it, side by side: nobody misses it, and one wins."""

from __future__ import annotations

import asyncio
from uuid import UUID

from perdure.protocol.codec import encode
from perdure.protocol.messages import Failure, Output, Value
from runtime.core.changes import Changes, Mail, PromiseAsk, Question
from runtime.core.invocation import Invocation, Mode, Status
from runtime.core.lifecycle import COMPLETED_BEFORE
from runtime.store.commit import commit
from runtime.store.link import Link
from tests.support.sessions import QUEUE, WITHIN, Sessions, born, new_id, open_flush, parked, service

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
ONE, TWO = encode(Output(Value(b"1"))), encode(Output(Failure(500, "no")))


async def beside(sessions: Sessions, key: str = "k") -> tuple[Invocation, bytes, Link]:
    """A shared handler of a workflow, the engine that drives it, and that one's link."""
    one = Invocation(new_id(), "Flow", "look", key, Mode.SHARED, QUEUE, b"input")
    engine, link = await sessions.engine(), await sessions.link()
    await commit(link, [born(one, owner=engine)])
    return one, engine, link


def gets(asker: Invocation, name: str = "p", slot: int = 1) -> Changes:
    return Changes(asker, promises=[PromiseAsk(Question.GET, name, slot)])


def peeks(asker: Invocation, name: str = "p", slot: int = 1) -> Changes:
    return Changes(asker, promises=[PromiseAsk(Question.PEEK, name, slot)])


def completes(asker: Invocation, result: bytes = ONE, name: str = "p", slot: int = 1) -> Changes:
    return Changes(asker, promises=[PromiseAsk(Question.COMPLETE, name, slot, result)])


async def test_who_asks_while_it_is_being_completed_gets_its_result(sessions: Sessions) -> None:
    (teller, its_engine, its_link), (asker, engine, link) = await beside(sessions), await beside(sessions)

    async with open_flush(its_link, completes(teller), engine=its_engine) as receipt:
        asking = await sessions.blocked(commit(link, [gets(asker)], engine=engine), link, by=its_link)

    answered = await asking
    assert [(letter.target, letter.frame, owner) for letter, owner in receipt.answers] == [(teller.id, b"", its_engine)]
    assert [(letter.target, letter.frame, owner) for letter, owner in answered.answers] == [(asker.id, ONE, engine)]
    assert await sessions.mail(asker) == {1: ONE}
    assert not await sessions.count("promise_listener")


async def test_who_completes_it_while_it_is_being_asked_for_tells_who_asked(sessions: Sessions) -> None:
    (teller, its_engine, its_link), (asker, engine, link) = await beside(sessions), await beside(sessions)

    async with open_flush(link, gets(asker), engine=engine):
        telling = await sessions.blocked(commit(its_link, [completes(teller)], engine=its_engine), its_link, by=link)

    told = {letter.target: (letter.frame, owner) for letter, owner in (await telling).answers}
    assert told == {teller.id: (b"", its_engine), asker.id: (ONE, engine)}
    assert await sessions.mail(asker) == {1: ONE}
    assert not await sessions.count("promise_listener")


async def test_who_falls_asleep_over_a_promise_while_it_is_completed_is_woken(sessions: Sessions) -> None:
    (teller, its_engine, its_link), (asker, engine, link) = await beside(sessions), await beside(sessions)
    await commit(link, [gets(asker)], engine=engine)

    async with open_flush(link, parked(asker, waits=[1]), engine=engine) as receipt:
        telling = await sessions.blocked(commit(its_link, [completes(teller)], engine=its_engine), its_link, by=link)

    await telling
    assert receipt.parked == {asker.id}
    assert await sessions.status(asker) == "ready"
    assert await sessions.queued() == [asker.id]


async def test_who_falls_asleep_over_what_is_completed_already_stays_awake(sessions: Sessions) -> None:
    asker, engine, link = await beside(sessions)
    await commit(link, [completes(asker)], engine=engine)

    asks = gets(asker, slot=2)
    asks.ending = parked(asker, waits=[2]).ending
    receipt = await commit(link, [asks], engine=engine)

    assert not receipt.parked
    assert await sessions.status(asker) == "running"


async def test_the_first_that_completes_it_wins(sessions: Sessions) -> None:
    (first, engine, link), (second, its_engine, its_link) = await beside(sessions), await beside(sessions)

    async with open_flush(link, completes(first, ONE), completes(first, TWO, slot=2), engine=engine):
        other = await sessions.blocked(
            commit(its_link, [completes(second, TWO), peeks(second, slot=2)], engine=its_engine), its_link, by=link
        )

    await other
    assert await sessions.mail(first) == {1: b"", 2: COMPLETED_BEFORE}
    assert await sessions.mail(second) == {1: COMPLETED_BEFORE, 2: ONE}


async def test_promises_of_other_names_and_keys_are_others(sessions: Sessions) -> None:
    (one, engine, link), (other, its_engine, its_link) = await beside(sessions), await beside(sessions, "another")
    await commit(link, [completes(one)], engine=engine)

    await commit(link, [peeks(one, "q", 2)], engine=engine)
    await commit(its_link, [peeks(other)], engine=its_engine)

    assert await sessions.mail(one) == {1: b"", 2: b""}
    assert await sessions.mail(other) == {1: b""}


async def test_what_is_undone_completes_nothing(sessions: Sessions) -> None:
    asker, engine, link = await beside(sessions)

    try:
        async with open_flush(link, completes(asker), engine=engine):
            raise ConnectionResetError
    except ConnectionResetError:
        pass

    await commit(link, [completes(asker, TWO), peeks(asker, slot=2)], engine=engine)
    assert await sessions.mail(asker) == {1: b"", 2: TWO}


async def test_two_that_complete_what_the_other_sleeps_on_do_not_lock_each_other_out(sessions: Sessions) -> None:
    (one, engine, link), (other, its_engine, its_link) = await beside(sessions), await beside(sessions)
    third, stranger = service(), await sessions.connection()
    await commit(link, [born(third, owner=engine)])
    await commit(link, [gets(one, "q")], engine=engine)
    await commit(its_link, [gets(other, "p")], engine=its_engine)
    flushes = [completes(one, name="p", slot=2), completes(other, name="q", slot=2)]
    for flush in flushes:
        flush.ending = parked(flush.invocation, Status.SUSPENDED, waits=[1]).ending
        flush.mails = [Mail(third.id, flush.invocation.id[-1])]

    last = UUID(bytes=third.id)  # of all rows that they lock
    await stranger.execute("SELECT FROM invocation WHERE id = %s FOR UPDATE", [last])
    writing = [
        sessions.start(commit(link, [flushes[0]], engine=engine)),
        sessions.start(commit(its_link, [flushes[1]], engine=its_engine)),
    ]
    async with asyncio.timeout(WITHIN):
        while await sessions.value(WAITING) < 2:
            await asyncio.sleep(0.002)
    await stranger.rollback()

    await asyncio.gather(*writing)
    assert await sessions.mail(one) == {1: ONE, 2: b""}
    assert await sessions.mail(other) == {1: ONE, 2: b""}
    assert not await sessions.rows("SELECT FROM invocation WHERE status = 'suspended'")
