"""Idempotency keys: the same request twice is one invocation, whoever repeats it and when."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, TerminalError, VirtualObject, gather, handler
from runtime.operations import Submission
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        count = (await ctx.get("count", int) or 0) + amount
        ctx.set("count", count)
        return count

    @handler
    async def refuse(self, ctx: ObjectContext) -> int:
        ctx.set("refused", (await ctx.get("refused", int) or 0) + 1)
        raise TerminalError("no", code=409)


class Front(Service):
    @handler
    async def add_twice(self, ctx: Context, once: str) -> list[int]:
        one = ctx.object_client(Counter, "k", idempotency_key=once).add(1)
        other = ctx.object_client(Counter, "k", idempotency_key=once).add(10)
        return list(await gather(one, other))

    @handler
    async def add_again(self, ctx: Context, once: str) -> list[int]:
        client = ctx.object_client(Counter, "k", idempotency_key=once)
        return [await client.add(1), await client.add(10)]

    @handler
    async def send_thrice(self, ctx: Context, once: str) -> list[str]:
        client = ctx.object_send_client(Counter, "k", idempotency_key=once)
        return [await client.add(1).invocation_id() for _ in range(3)]


app = Endpoint(Counter, Front)
fronts, counters = Endpoint(Front), Endpoint(Counter)


async def test_repeated_after_the_end_it_gives_the_same_answer(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert [await world.call("Counter/k/add", n, once="a") for n in (1, 10, 100)] == [1, 1, 1]
        assert await world.call("Counter/k/add", 1, once="b") == 2


async def test_repeated_or_asked_for_later_it_says_how_long_it_is_kept(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        operations, add = world.operations, world.operations.registry.resolve("Counter", "add")
        for once in ("a", None):
            first = await operations.call(Submission(add, "k", b"1", idempotency_key=once))
            assert first.expires == 0
            asked = [await operations.attach(first.id), await operations.output(first.id)]
            if once is not None:
                asked.append(await operations.call(Submission(add, "k", b"1", idempotency_key=once)))
            kept = {end and end.expires for end in asked}
            stored = await world.rows(
                "SELECT (extract(epoch FROM expires_at) * 1000)::bigint FROM idempotency WHERE invocation = %s",
                UUID(bytes=first.id),
            )
            assert kept == ({0} if once is None else {expires for (expires,) in stored})


async def test_repeated_after_a_failure_it_fails_the_same_way(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        for _ in range(2):
            with pytest.raises(TerminalError, match="no"):
                await world.call("Counter/k/refuse", once="a")
        assert await world.state("Counter", "k") == {"refused": 1}


async def test_of_many_at_once_one_runs_and_all_are_answered(open_world: OpenWorld) -> None:
    async with open_world(app, app) as world:
        answers = await asyncio.gather(*(world.call("Counter/k/add", 1, once="a") for _ in range(50)))
        assert answers == [1] * 50


async def test_repeated_while_it_runs_it_waits_for_the_same_end(open_world: OpenWorld) -> None:
    gate = Gate()

    class Slow(Service):
        @handler
        async def wait(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "waited"

    async with open_world(Endpoint(Slow)) as world:
        id = await world.send("Slow/wait", once="a")
        await gate.reached()
        assert await world.send("Slow/wait", once="a") == id
        caller = asyncio.create_task(world.call("Slow/wait", once="a"))
        gate.open()
        assert await caller == "waited"
    assert gate.arrived == 1


async def test_the_same_key_for_another_target_is_another_invocation(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert await world.call("Counter/k/add", 1, once="a") == 1
        assert await world.call("Counter/other/add", 1, once="a") == 1
        assert await world.state("Counter", "other") == {"count": 1}


async def test_calls_of_a_handler_with_one_key_are_one(open_world: OpenWorld) -> None:
    async with open_world(fronts, counters) as world:
        assert await world.call("Front/add_twice", "a") == [1, 1]
        assert await world.state("Counter", "k") == {"count": 1}


async def test_a_call_of_a_handler_after_the_end_of_the_first_gets_its_answer(open_world: OpenWorld) -> None:
    async with open_world(fronts, counters) as world:
        assert await world.call("Front/add_again", "a") == [1, 1]


async def test_handlers_and_callers_from_outside_share_the_key(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert await world.call("Counter/k/add", 5, once="a") == 5
        assert await world.call("Front/add_twice", "a") == [5, 5]


async def test_sends_of_a_handler_with_one_key_are_one(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        ids = await world.call("Front/send_thrice", "a")
        assert len(set(ids)) == 1
        await world.outcome(ids[0])
        assert await world.state("Counter", "k") == {"count": 1}


async def test_a_suspended_caller_that_came_second_is_woken_by_the_end_of_the_first(
    open_world: OpenWorld, impatience: None
) -> None:
    gate = Gate()

    class Slow(Service):
        @handler
        async def wait(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "waited"

        @handler
        async def ask(self, ctx: Context) -> str:
            return await ctx.service_client(Slow, idempotency_key="a").wait()

    async with open_world(Endpoint(Slow)) as world:
        await world.send("Slow/wait", once="a")
        await gate.reached()
        asking = await world.send("Slow/ask")
        await world.until_status(asking, "suspended")
        gate.open()
        assert await world.answer_of(asking) == "waited"
    assert gate.arrived == 1
