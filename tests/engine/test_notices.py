"""No socket reaches the engines, as if each were on a machine of its own, and the polls come too late to matter."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from perdure.protocol.ids import parse_id
from runtime import rescheduling
from runtime.engine import engine, timers
from runtime.operations import operations
from runtime.store.notify import PREFIX
from runtime.store.verbs import Verdict
from runtime.wakeups import notices
from tests.support.world import TESTER, Gate, World

NEVER = 600.0
LISTENERS = "FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND state = 'idle'"


def encoded(value: Any) -> str:
    return base64.b64encode(msgspec.msgpack.encode(value)).decode()


SENDER = "0" * 16
FORGERIES = [
    "",
    "not base64!",
    "AAAA",
    encoded({"sender": "x"}),
    encoded({"sender": SENDER, "born": [b"short"]}),
    encoded({"sender": SENDER, "keys": [("Counter", "\0")]}),
    encoded({"sender": SENDER, "born": [bytes(16)], "mail": [bytes(16)], "done": [bytes(16)]}),
    encoded({"sender": SENDER, "keys": [("Counter", "of nobody")], "look": [None], "ready": [None]}),
    encoded({"sender": SENDER, "due": [0, -1, 2**63, -(2**63)]}),
    encoded({"sender": SENDER, "due": [None]}),
]
LONG = timedelta(hours=1)


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello {name}"


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        count = (await ctx.get("count", int) or 0) + amount
        ctx.set("count", count)
        return count

    @handler
    async def sleep(self, ctx: ObjectContext) -> None:
        await ctx.sleep(LONG)


class Front(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return await ctx.service_client(Greeter).greet(name)

    @handler
    async def count(self, ctx: Context, times: int) -> list[int]:
        return [await ctx.object_client(Counter, "k").add(1) for _ in range(times)]

    @handler
    async def tell(self, ctx: Context, times: int) -> None:
        for _ in range(times):
            ctx.object_send_client(Counter, "told").add(1)


fronts, backs = Endpoint(Front), Endpoint(Greeter, Counter)


class Far(World):
    """Where no socket leads anywhere."""

    async def part(self) -> None:
        """Take the sockets away, once all engines know of each other and listen."""
        ids = {member.engine.id for member in self.members}

        async def are_ready() -> bool:
            for member in self.members:
                member.engine._look_around.set()
            listening = await self.rows(f"SELECT {LISTENERS}")
            known = all({*member.engine._ears.others, member.engine.id} == ids for member in self.members)
            return known and len(listening) >= len(ids)

        await self.until(are_ready)
        for path in self._sockets.iterdir():
            path.unlink()


@pytest.fixture
def far(database: str, sockets: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Far]:
    monkeypatch.setattr(engine, "POLL", NEVER)
    monkeypatch.setattr(operations, "POLL", NEVER)
    return lambda *endpoints: Far(database, sockets, *endpoints)


OpenFar = Callable[..., Far]


async def test_a_caller_gets_its_answer(far: OpenFar) -> None:
    async with far(backs) as world:
        await world.part()
        assert await world.call("Greeter/greet", "Mary") == "Hello Mary"


async def test_a_send_is_told_to_begin_now(far: OpenFar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "POLL", NEVER)
    async with far(backs) as world:
        await world.part()
        id = await world.send("Greeter/greet", "Mary", due=int(time.time() * 1000) + 86_400_000)
        await rescheduling.move(world.operations, [parse_id(id)], rescheduling.NOW, TESTER)
        assert await world.outcome(id) == "succeeded"


async def test_calls_of_one_key_follow_one_another(far: OpenFar) -> None:
    async with far(backs) as world:
        await world.part()
        assert [await world.call("Counter/k/add", 2) for _ in range(3)] == [2, 4, 6]


async def test_more_than_fits_into_one_notice_is_told_with_the_next_ones(far: OpenFar) -> None:
    async with far(backs) as world:
        await world.part()
        answers = await asyncio.gather(*(world.call("Greeter/greet", str(number)) for number in range(1_000)))
        assert answers == [f"Hello {number}" for number in range(1_000)]


async def test_what_fits_into_no_notice_is_found_by_looking_around(
    far: OpenFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with far(backs) as world:
        await world.part()
        monkeypatch.setattr(notices, "ROOM", 30)  # an id has room, the name of a key has none
        id = await world.send(f"Counter/{'k' * 40}/add", 1)
        assert await world.outcome(id) == "succeeded"
        assert await world.call("Greeter/greet", "Mary") == "Hello Mary"


async def test_an_engine_calls_what_only_another_has(far: OpenFar) -> None:
    async with far(fronts, backs) as world:
        await world.part()
        assert await world.call("Front/greet", "Mary") == "Hello Mary"
        assert await world.call("Front/count", 3) == [1, 2, 3]


async def test_what_an_engine_sends_arrives_in_order(far: OpenFar) -> None:
    async with far(fronts, backs) as world:
        await world.part()
        await world.call("Front/tell", 5)
        await world.settle()
        assert await world.state("Counter", "told") == {"count": 5}


async def test_a_send_is_begun(far: OpenFar) -> None:
    async with far(backs) as world:
        await world.part()
        id = await world.send("Greeter/greet", "Mary")
        assert await world.outcome(id) == "succeeded"


async def test_whoever_attaches_hears_of_the_end(far: OpenFar) -> None:
    gate = Gate()

    class Slow(Service):
        @handler
        async def wait(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "waited"

    async with far(Endpoint(Slow)) as world:
        await world.part()
        id = await world.send("Slow/wait")
        await gate.reached()
        attached = asyncio.create_task(world.answer_of(id))
        await world.until(lambda: has_watchers(world, 2))  # the sender asks too
        gate.open()
        assert await attached == "waited"


async def has_watchers(world: World, count: int) -> bool:
    return any(len(drive.watchers) == count for drive in world.members[0].engine.memory.drives.values())


async def test_a_cancel_reaches_one_that_runs(far: OpenFar) -> None:
    async with far(backs) as world:
        await world.part()
        id = await world.send("Counter/k/sleep")
        await world.until_status(id, "running")
        assert await world.cancel(id) is Verdict.ASKED
        assert await world.outcome(id) == "cancelled"


async def test_a_cancel_reaches_one_in_an_inbox(far: OpenFar) -> None:
    async with far(backs) as world:
        await world.part()
        first, second = await world.send("Counter/k/sleep"), await world.send("Counter/k/sleep")
        await world.until_status(first, "running")
        await world.cancel(second)
        assert await world.outcome(second) == "cancelled"
        await world.cancel(first)


async def test_where_sockets_reach_nobody_notifies(far: OpenFar) -> None:
    async with far(fronts, backs) as world:
        heard = []
        async with await psycopg.AsyncConnection.connect(world.database, autocommit=True) as spy:
            for member in world.members:
                await spy.execute(f'LISTEN "{PREFIX}{member.engine._address.stem}"')
            await world.call("Greeter/greet", "Mary")
            await world.call("Counter/k/add", 1)
            async for notice in spy.notifies(timeout=0.1):
                heard.append(notice)
        assert heard == []


@pytest.mark.parametrize("payload", FORGERIES)
async def test_a_notice_of_somebody_else_does_no_harm(far: OpenFar, payload: str) -> None:
    async with far(backs) as world:
        await world.part()
        (member,) = world.members
        await world.rows("SELECT pg_notify(%s, %s)", f"{PREFIX}{member.engine._address.stem}", payload)
        assert await world.call("Greeter/greet", "Mary") == "Hello Mary"


async def test_a_listener_that_lost_its_session_looks_around_when_it_has_a_new_one(far: OpenFar) -> None:
    async with far(backs) as world:
        await world.part()
        await world.rows(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
        id = await world.send("Greeter/greet", "Mary")
        assert await world.outcome(id) == "succeeded"
