"""Verbs by filter: all whom it means are told, once each, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any
from uuid import UUID

import pytest

from perdure.protocol.ids import format_id
from runtime import bulk
from runtime.core.filters import InvocationFilter
from runtime.core.invocation import Status
from runtime.errors import Disconnected
from runtime.operations import Operations
from runtime.steering import Verb
from runtime.store import bulk as store
from runtime.store.link import Link, Statement
from tests.engine.conftest import OpenWorld
from tests.engine.test_cancel import app, begun
from tests.support.faults import SESSION_ENDS, Faults
from tests.support.world import TESTER, TOKEN, World

MANY = 10_000
WAITING = InvocationFilter(service="Worker", key="k", statuses=(Status.PENDING,))


@pytest.fixture(autouse=True)
def reads_come_from(database: str, use_database: Any) -> None:
    """What a filter means is read by Django."""
    use_database(database)


async def begin(world: World, verb: Verb, ids: list[bytes]) -> bytes:
    return await bulk.begin(world.operations, verb, ids, TESTER, {"key": "k"})


async def came(world: World, id: bytes) -> dict[str, int]:
    ((came, total, is_finished),) = await world.rows(
        "SELECT came, total, finished_at IS NOT NULL FROM bulk WHERE id = %s", UUID(bytes=id)
    )
    assert is_finished
    assert sum(came.values()) == total
    assert await world.rows("SELECT FROM bulk_item") == []
    return dict(came)


async def send_many(world: World, number: int) -> list[str]:
    return await asyncio.gather(*(world.send("Worker/k/touch") for _ in range(number)))


async def test_ten_thousand_are_cancelled_while_others_arrive(open_world: OpenWorld, wake_ups: str) -> None:
    async with open_world(app) as world:
        holder = await world.send("Worker/k/sleep")
        await begun(world, "k")
        waiting = await send_many(world, MANY)
        is_over = asyncio.Event()

        async def keep_sending() -> list[str]:
            later: list[str] = []
            while not is_over.is_set():
                later += await send_many(world, 20)
            return later

        ids = await bulk.meant(Verb.CANCEL, WAITING, MANY)
        assert {format_id(id) for id in ids} == set(waiting)
        sending = asyncio.create_task(keep_sending())
        told: list[int] = []
        id = await begin(world, Verb.CANCEL, ids)
        await bulk.carry_out(world.operations, id, told.append)
        is_over.set()
        later = await sending

        assert sum(told) == MANY
        assert {*await came(world, id)} <= {"asked", "done"}, "some by their engine, some while it had put the key away"

        async def are_over() -> bool:
            ((left,),) = await world.rows("SELECT count(*) FROM done WHERE outcome = 'cancelled'")
            return bool(left == MANY)

        await world.until(are_over)
        ends = dict(await world.rows("SELECT outcome, count(*) FROM done GROUP BY 1"))
        assert ends == {"cancelled": MANY}
        assert Counter([await world.status(one) for one in later[:50]]) == {"pending": min(50, len(later))}
        await world.kill(holder)
        assert await world.answer_of(later[-1]) == "touched"


async def test_two_who_carry_out_the_same_tell_each_once(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        holder = await world.send("Worker/k/sleep")
        await begun(world, "k")
        await send_many(world, 1_200)
        id = await begin(world, Verb.KILL, await bulk.meant(Verb.KILL, WAITING, MANY))
        other = Operations(world.database, TOKEN)
        await other.start()
        await asyncio.gather(bulk.carry_out(world.operations, id), bulk.carry_out(other, id))
        await bulk.carry_out(world.operations, id)
        await other.stop()
        assert {*await came(world, id)} <= {"asked", "done"}
        ((noted,),) = await world.rows("SELECT count(*) FROM audit WHERE verb = 'invocation.kill'")
        assert noted == 1_200
        await world.kill(holder)


async def test_whoever_comes_after_a_crash_goes_on_where_it_was(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "NEXT", _by_the_dozen())
    faults = Faults(monkeypatch)
    async with open_world(app) as world:
        holder = await world.send("Worker/k/sleep")
        await begun(world, "k")
        await send_many(world, 40)
        id = await begin(world, Verb.CANCEL, await bulk.meant(Verb.CANCEL, WAITING, MANY))
        side = world.operations._side
        for number in range(1, 40, 5):
            faults.arm(number, SESSION_ENDS, await side.run(_itself))
            with contextlib.suppress(Disconnected):
                await bulk.carry_out(world.operations, id)
            faults.disarm()
        await bulk.carry_out(world.operations, id)
        assert {*await came(world, id)} <= {"asked", "done"}
        assert (await world.rows("SELECT count(*) FROM audit WHERE verb = 'invocation.cancel'"))[0][0] == 40
        await world.kill(holder)


async def _itself(link: Link) -> Link:
    return link


def _by_the_dozen() -> Statement:
    return Statement(store.NEXT.sql.decode().replace(f"LIMIT {store.BATCH}", "LIMIT 12"), *store.NEXT.types)
