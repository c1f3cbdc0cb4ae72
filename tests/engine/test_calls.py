"""Calls: what a caller gets, whoever it calls and wherever that runs."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, TerminalError, VirtualObject, first, gather, handler
from perdure import TimeoutError as DurableTimeout
from runtime.engine import engine
from runtime.operations import operations
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello {name}"

    @handler
    async def refuse(self, ctx: Context, name: str) -> str:
        raise TerminalError(f"not {name}", code=418)


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        count = (await ctx.get("count", int) or 0) + amount
        ctx.set("count", count)
        return count


class Front(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return await ctx.service_client(Greeter).greet(name)

    @handler
    async def count(self, ctx: Context, times: int) -> list[int]:
        return [await ctx.object_client(Counter, "k").add(1) for _ in range(times)]

    @handler
    async def greet_all(self, ctx: Context, names: list[str]) -> list[str]:
        return list(await gather(*(ctx.service_client(Greeter).greet(name) for name in names)))

    @handler
    async def refuse(self, ctx: Context, name: str) -> str:
        return await ctx.service_client(Greeter).refuse(name)

    @handler
    async def console(self, ctx: Context, name: str) -> str:
        try:
            return await ctx.service_client(Greeter).refuse(name)
        except TerminalError as error:
            return f"{error.code}: {error.message}"


class Deep(Service):
    @handler
    async def down(self, ctx: Context, levels: int) -> int:
        return 0 if levels == 0 else 1 + await ctx.service_client(Deep).down(levels - 1)


app = Endpoint(Greeter, Counter, Front, Deep)
fronts, backs = Endpoint(Front, Deep), Endpoint(Greeter, Counter)


async def test_a_call_is_answered(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert await world.call("Greeter/greet", "Mary") == "Hello Mary"


async def test_calls_of_one_key_follow_one_another(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert [await world.call("Counter/k/add", 2) for _ in range(3)] == [2, 4, 6]


async def test_many_calls_at_once_are_all_answered(open_world: OpenWorld) -> None:
    async with open_world(app, app) as world:
        names = [f"Mary {n}" for n in range(300)]
        answers = await asyncio.gather(*(world.call("Greeter/greet", name) for name in names))
        assert answers == [f"Hello {name}" for name in names]


async def test_a_handler_calls_another_service(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert await world.call("Front/greet", "Mary") == "Hello Mary"


async def test_a_handler_calls_an_object_again_and_again(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert await world.call("Front/count", 3) == [1, 2, 3]


async def test_a_handler_calls_what_runs_in_another_engine(open_world: OpenWorld) -> None:
    async with open_world(fronts, backs) as world:
        assert await world.call("Front/greet", "Mary") == "Hello Mary"
        assert await world.call("Front/count", 2) == [1, 2]


async def test_answers_of_calls_at_once_are_given_in_the_order_of_the_calls(open_world: OpenWorld) -> None:
    async with open_world(fronts, backs) as world:
        names = [f"Mary {n}" for n in range(20)]
        assert await world.call("Front/greet_all", names) == [f"Hello {name}" for name in names]


async def test_calls_go_deep(open_world: OpenWorld) -> None:
    async with open_world(app, app) as world:
        assert await world.call("Deep/down", 20) == 20


async def test_a_terminal_error_reaches_the_caller(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        with pytest.raises(TerminalError, match="not Mary") as refused:
            await world.call("Greeter/refuse", "Mary")
        assert refused.value.code == 418


async def test_a_terminal_error_reaches_the_callers_caller(open_world: OpenWorld) -> None:
    async with open_world(fronts, backs) as world:
        with pytest.raises(TerminalError, match="not Mary") as refused:
            await world.call("Front/refuse", "Mary")
        assert refused.value.code == 418


async def test_a_handler_may_catch_the_terminal_error_of_its_callee(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert await world.call("Front/console", "Mary") == "418: not Mary"


async def test_input_that_the_handler_cannot_read_is_answered_with_a_400(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        with pytest.raises(TerminalError) as refused:
            await world.call("Greeter/greet", 3)
        assert refused.value.code == 400


async def test_a_call_to_a_service_that_is_not_there_yet_goes_on_when_it_is(open_world: OpenWorld) -> None:
    class Hopeful(Service):
        @handler
        async def greet(self, ctx: Context, name: str) -> str:
            answer: str = await ctx.service_client("Greeter").greet(name)
            return answer

    async with open_world(Endpoint(Hopeful)) as world:
        id = await world.send("Hopeful/greet", "Mary")
        await world.until_status(id, "backing-off")
        assert "Greeter" in (await world.failure(id))["message"]
        await world.register(backs)
        await world.start_engine(backs)
        assert await world.answer_of(id) == "Hello Mary"


async def test_a_timeout_ends_the_wait_and_not_the_callee(open_world: OpenWorld) -> None:
    gate = Gate()

    class Slow(Service):
        @handler
        async def wait(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "waited"

        @handler
        async def hurry(self, ctx: Context) -> str:
            try:
                (answer,) = await gather(ctx.service_client(Slow).wait(), timeout=timedelta(milliseconds=50))
            except DurableTimeout:
                return "gone"
            return answer

    async with open_world(Endpoint(Slow)) as world:
        assert await world.call("Slow/hurry") == "gone"
        callee = await world.newest("Slow")
        gate.open()
        assert await world.answer_of(callee) == "waited"


async def test_the_first_of_several_wins(open_world: OpenWorld) -> None:
    gate = Gate()

    class Racer(Service):
        @handler
        async def quick(self, ctx: Context) -> str:
            return "quick"

        @handler
        async def slow(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "slow"

        @handler
        async def race(self, ctx: Context) -> str:
            me = ctx.service_client(Racer)
            return await first(me.slow(), me.quick())

    async with open_world(Endpoint(Racer)) as world:
        assert await world.call("Racer/race") == "quick"
        gate.open()


async def test_a_caller_that_leaves_does_not_end_the_invocation(open_world: OpenWorld) -> None:
    gate = Gate()

    class Slow(Service):
        @handler
        async def wait(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "waited"

    async with open_world(Endpoint(Slow)) as world:
        caller = asyncio.create_task(world.call("Slow/wait"))
        await gate.reached()
        id = await world.newest("Slow")
        caller.cancel()
        gate.open()
        assert await world.answer_of(id) == "waited"
        assert await world.outcome(id) == "succeeded"


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_nobody_waits_for_a_poll_while_hints_arrive(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(fronts, backs) as world:

        async def know_one_another() -> bool:
            one, other = (member.engine for member in world.members)
            return other.id in one._ears.others and one.id in other._ears.others

        await world.until(know_one_another)
        monkeypatch.setattr(engine, "POLL", 60.0)
        monkeypatch.setattr(operations, "POLL", 60.0)
        await world.call("Front/count", 1)  # after which the last of the old polls is over
        assert await world.call("Front/count", 100) == list(range(2, 102))
        assert await world.call("Front/greet_all", ["Mary"] * 20) == ["Hello Mary"] * 20
        monkeypatch.undo()
