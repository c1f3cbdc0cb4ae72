"""The fence: between an engine's flush and its burial one waits for the other, and nothing is in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from runtime.engine.pulse import BEAT
from runtime.errors import DatabaseError, Disconnected
from runtime.store import owners
from runtime.store.commit import commit
from runtime.store.link import Link, Pipeline, whole
from tests.support.sessions import WITHIN, Sessions, begun, born, open_flush, service


async def test_a_flush_of_a_buried_engine_is_refused_as_a_whole(sessions: Sessions) -> None:
    engine, link = await sessions.engine(), await sessions.link()
    await owners.bury(await sessions.link(), engine)

    with pytest.raises(DatabaseError) as refused:
        await commit(link, [born(service(), service())], engine=engine)

    assert refused.value.is_fence
    assert await sessions.count("invocation") == 0
    await commit(link, [born(service())])
    assert await sessions.count("invocation") == 1, "the link goes on to serve"


async def test_a_burial_waits_for_a_flush_that_has_passed_the_fence_and_takes_its_work(sessions: Sessions) -> None:
    engine, link, rescuer = await sessions.engine(), await sessions.link(), await sessions.link()
    one = service()

    async with open_flush(link, born(one, owner=engine), engine=engine):
        burial = await sessions.blocked(owners.bury(rescuer, engine), rescuer, by=link)

    assert await burial == 1
    assert await sessions.status(one) == "ready"
    assert await sessions.queued() == [one.id]
    assert await sessions.count("claimed") == 0


async def test_a_flush_waits_for_a_burial_that_is_under_way_and_keeps_nothing(sessions: Sessions) -> None:
    engine, link, rescuer = await sessions.engine(), await sessions.link(), await sessions.link()

    async with open_burial(rescuer, engine):
        flush = await sessions.blocked(commit(link, [born(service())], engine=engine), link, by=rescuer)

    with pytest.raises(DatabaseError) as refused:
        await flush
    assert refused.value.is_fence
    assert await sessions.count("invocation") == 0


async def test_a_flush_that_waited_for_a_burial_passes_when_that_is_undone(sessions: Sessions) -> None:
    engine, link, rescuer = await sessions.engine(), await sessions.link(), await sessions.link()
    one = service()

    with pytest.raises(ZeroDivisionError):
        async with open_burial(rescuer, engine):
            flush = await sessions.blocked(commit(link, [born(one)], engine=engine), link, by=rescuer)
            raise ZeroDivisionError

    await flush
    assert await sessions.status(one) == "ready"


async def test_a_redo_waits_for_the_open_flush_whose_answer_was_lost(sessions: Sessions) -> None:
    engine, old, new = await sessions.engine(), await sessions.link(), await sessions.link()
    one = service()
    await commit(old, [born(one, owner=engine)])

    async with open_flush(old, begun(one, b"step"), engine=engine):
        redo = await sessions.blocked(commit(new, [begun(one, b"step")], engine=engine), new, by=old)

    with pytest.raises(DatabaseError, match="duplicate key"):
        await redo
    assert await sessions.count("journal") == 1


async def test_two_flushes_of_one_engine_never_overlap(sessions: Sessions) -> None:
    """Also when they have no row in common: a redo must see what the open one has done, or not."""
    engine, old, new = await sessions.engine(), await sessions.link(), await sessions.link()

    async with open_flush(old, born(service()), engine=engine):
        redo = await sessions.blocked(commit(new, [born(service())], engine=engine), new, by=old)

    await redo
    assert await sessions.count("invocation") == 2


async def test_work_that_is_given_to_an_engine_is_seen_by_its_burial(sessions: Sessions) -> None:
    engine, giver, rescuer = await sessions.engine(), await sessions.link(), await sessions.link()
    one = service()

    async with open_flush(giver, born(one, owner=engine)):
        burial = await sessions.blocked(owners.bury(rescuer, engine), rescuer, by=giver)

    assert await burial == 1
    assert await sessions.queued() == [one.id]


async def test_nobody_gives_work_to_an_engine_that_is_being_buried(sessions: Sessions) -> None:
    engine, giver, rescuer = await sessions.engine(), await sessions.link(), await sessions.link()

    async with open_burial(rescuer, engine):
        gift = await sessions.blocked(commit(giver, [born(service(), owner=engine)]), giver, by=rescuer)

    with pytest.raises(DatabaseError) as refused:
        await gift
    assert refused.value.is_vouch
    assert await sessions.count("invocation") == 0


async def test_who_gives_work_waits_neither_for_a_flush_nor_for_another_giver(sessions: Sessions) -> None:
    engine, giver, link, other = await sessions.engine(), *[await sessions.link() for _ in range(3)]

    async with (
        asyncio.timeout(WITHIN),
        open_flush(link, born(service()), engine=engine),
        open_flush(giver, born(service(), owner=engine)),
    ):
        await commit(other, [born(service(), owner=engine)])

    assert await sessions.count("invocation") == 3


async def test_a_beat_does_not_wait_for_a_flush(sessions: Sessions) -> None:
    engine, link = await sessions.engine(), await sessions.link()

    async with asyncio.timeout(WITHIN), open_flush(link, born(service()), engine=engine):
        await sessions.execute(BEAT, True, 7, 3, 0, 0.0, 0.0, 0.0, engine.hex())

    assert await sessions.value("SELECT beat FROM heartbeat") == 1


async def test_a_frozen_clients_transaction_does_not_hold_up_its_burial(sessions: Sessions) -> None:
    engine, rescuer = await sessions.engine(), await sessions.link()
    frozen = await sessions.link(name=f"perdure engine {UUID(bytes=engine)}")
    await sessions.execute("UPDATE engine SET backends = %s WHERE id = %s", [frozen.backend_pid], UUID(bytes=engine))

    with pytest.raises(Disconnected):
        async with asyncio.timeout(WITHIN), open_flush(frozen, born(service(), owner=engine), engine=engine):
            await owners.bury(rescuer, engine)

    assert await sessions.count("invocation") == 0


async def test_a_burial_ends_nobody_who_was_given_the_number_of_a_backend_since(sessions: Sessions) -> None:
    stranger, rescuer = await sessions.link(name="somebody else"), await sessions.link()
    engine = await sessions.engine(backends=[stranger.backend_pid])

    await owners.bury(rescuer, engine)

    await commit(stranger, [born(service())])
    assert await sessions.count("invocation") == 1


async def test_an_engine_shows_as_unlocked_when_its_pulses_session_has_ended(sessions: Sessions) -> None:
    engine, watcher = await sessions.engine(lock_key=42), await sessions.link()
    pulse = await sessions.connection()
    await pulse.execute("SELECT pg_advisory_lock(42)")

    async def is_unlocked() -> bool:
        async with asyncio.timeout(WITHIN):
            while not (looks := await owners.look(watcher, b"\0" * 16)):  # a server that has just started
                await asyncio.sleep(0.05)
        assert [look.engine for look in looks] == [engine]
        return looks[0].is_unlocked

    assert not await is_unlocked()
    await sessions.execute("SELECT pg_terminate_backend(%s)", pulse.info.backend_pid)
    async with asyncio.timeout(WITHIN):
        while not await is_unlocked():
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def open_burial(rescuer: Link, engine: bytes) -> AsyncIterator[None]:
    """The mark is made when the block begins, and committed when it ends."""
    marking, committing = Pipeline(), Pipeline()
    marking.begin()
    marking.call(owners.LOCK_ENGINE, engine)
    marking.call(owners.MARK_DEAD, engine)
    committing.commit()
    async with whole(rescuer):
        await rescuer.run(marking)
        yield
        await rescuer.run(committing)
