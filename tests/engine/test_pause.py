"""Pause: an invocation goes no further, in whatever status it is, and loses nothing until it is resumed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Retry, Service, TerminalError, VirtualObject, handler
from runtime.store.verbs import Verdict
from tests.engine.conftest import OpenWorld
from tests.engine.test_cancel import app, begun, callers, workers
from tests.support.world import Gate, World

LONG = timedelta(hours=1)


class Steps:
    """A service of two steps, the first of which waits for the test."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.done: list[str] = []
        steps = self

        class Work(Service, retry=Retry(initial=LONG)):
            @handler
            async def work(self, ctx: Context) -> str:
                await ctx.run("first", steps.first)
                await ctx.run("second", steps.second)
                return "done"

            @handler
            async def fail(self, ctx: Context) -> None:
                await ctx.run("first", steps.first)
                await ctx.run("bad", steps.bad)

        self.endpoint = Endpoint(Work)

    async def first(self) -> None:
        await self.gate.wait()
        self.done.append("first")

    async def second(self) -> None:
        self.done.append("second")

    async def bad(self) -> None:
        raise RuntimeError("no")


async def test_a_running_one_finishes_its_step_and_begins_no_further_one(open_world: OpenWorld) -> None:
    steps = Steps()
    async with open_world(steps.endpoint) as world:
        id = await world.send("Work/work")
        await steps.gate.reached()
        assert await world.pause(id) is Verdict.ASKED
        assert await world.pause(id) is Verdict.ASKED
        await heard(world)
        steps.gate.open()
        await world.until_status(id, "paused")
        assert steps.done == ["first"]
        assert await world.pause(id) is Verdict.ALREADY_PAUSED
        await world.resume(id)
        assert await world.answer_of(id) == "done"
        assert steps.done == ["first", "second"], "each once"
        assert await world.pause(id) is Verdict.ALREADY_ENDED


async def test_one_that_is_paused_keeps_its_last_failure_and_how_many_attempts_failed(open_world: OpenWorld) -> None:
    gate, calls = Gate(), 0

    class Shaky(Service, retry=Retry(initial=timedelta(milliseconds=20))):
        @handler
        async def work(self, ctx: Context) -> None:
            nonlocal calls
            calls += 1
            if calls <= 2:
                raise RuntimeError(f"call {calls}")
            await ctx.run("wait", gate.wait)
            await ctx.sleep(LONG)

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/work")
        await gate.reached()
        await world.pause(id)
        await heard(world)
        gate.open()
        await world.until_status(id, "paused")
        assert await world.failed_attempts(id) == 2
        assert (await world.failure(id))["message"] == "RuntimeError: call 2"
        await world.kill(id)
        assert await world.failed_attempts(id) == 2


async def heard(world: World) -> None:
    """Wait until an engine knows that it is to pause something."""

    async def is_heard() -> bool:
        return any(drive.is_pausing for member in world.members for drive in member.engine.memory.drives.values())

    await world.until(is_heard)


async def test_what_waits_in_memory_is_paused_and_keeps_its_key(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep")
        await begun(world, "k")
        behind = await world.send("Worker/k/touch")
        assert await world.pause(behind) is Verdict.NOT_STARTED
        assert await world.pause(id) is Verdict.ASKED
        await world.until_status(id, "paused")
        assert await world.status(behind) == "pending"
        await world.kill(id)
        assert await world.answer_of(behind) == "touched"


async def test_one_that_heads_its_inbox_pauses_before_the_database_hears_of_its_start(open_world: OpenWorld) -> None:
    at_work, may_end = asyncio.Event(), asyncio.Event()

    class Quiet(VirtualObject):
        @handler
        async def think(self, ctx: ObjectContext) -> str:
            at_work.set()
            await may_end.wait()
            return "thought"

    async with open_world(Endpoint(Quiet)) as world:
        id = await world.send("Quiet/k/think")
        await at_work.wait()
        assert await world.status(id) == "pending"
        assert await world.pause(id) is Verdict.ASKED
        await world.until_status(id, "paused")
        may_end.set()
        await world.resume(id)
        assert await world.answer_of(id) == "thought"


async def test_a_suspended_one_is_paused_and_what_comes_meanwhile_is_kept(
    open_world: OpenWorld, impatience: None
) -> None:
    async with open_world(callers, workers) as world:
        holder = await world.send("Worker/k/sleep")
        await world.until_status(holder, "suspended")
        caller = await world.send("Caller/call", "k")
        await world.until_status(caller, "suspended")
        assert await world.pause(caller) is Verdict.PAUSED
        callee = await world.newest("Worker", "k")
        await world.kill(holder)
        await world.kill(callee)
        assert await world.outcome(callee) == "killed"
        assert await world.status(caller) == "paused"
        await world.resume(caller)
        with pytest.raises(TerminalError, match="killed"):
            await world.answer_of(caller)


async def test_a_sleeper_whose_time_comes_while_it_is_paused_goes_on_when_resumed(
    open_world: OpenWorld, impatience: None
) -> None:
    class Nap(Service):
        @handler
        async def nap(self, ctx: Context) -> str:
            await ctx.sleep(timedelta(milliseconds=200))
            return "rested"

    async with open_world(Endpoint(Nap)) as world:
        id = await world.send("Nap/nap")
        await world.until_status(id, "suspended")
        assert await world.pause(id) is Verdict.PAUSED

        async def is_over() -> bool:
            return await world.rows("SELECT FROM timer") == []

        await world.until(is_over)
        assert await world.status(id) == "paused"
        await world.resume(id)
        assert await world.answer_of(id) == "rested"


async def test_a_backing_off_one_is_not_tried_again(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/fail")
        await world.until_status(id, "backing-off")
        assert await world.pause(id) is Verdict.PAUSED
        assert await world.leftovers("timer") == {}
        assert (await world.failure(id))["message"]
        await world.kill(id)


async def test_one_that_fails_while_it_is_to_pause_is_paused_with_its_failure(open_world: OpenWorld) -> None:
    steps = Steps()

    async def fails() -> None:
        await steps.gate.wait()
        raise RuntimeError("broken")

    steps.first = fails  # type: ignore[method-assign]
    async with open_world(steps.endpoint) as world:
        id = await world.send("Work/work")
        await steps.gate.reached()
        await world.pause(id)
        await heard(world)
        steps.gate.open()
        await world.until_status(id, "paused")
        assert "broken" in (await world.failure(id))["message"]
        await world.kill(id)


async def test_a_scheduled_one_has_not_started(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep", due=9_000_000_000_000)
        assert await world.pause(id) is Verdict.NOT_STARTED
        await world.cancel(id)


async def test_what_nobody_runs_yet_is_paused_in_the_queue(open_world: OpenWorld) -> None:
    steps = Steps()
    steps.gate.open()
    async with open_world() as world:
        await world.register(steps.endpoint)
        await world.operations.refresh_registry()
        id = await world.send("Work/work")
        assert await world.pause(id) is Verdict.PAUSED
        await world.start_engine(steps.endpoint)

        async def is_passed_over() -> bool:
            return await world.rows("SELECT FROM ready") == []

        await world.until(is_passed_over)
        assert (await world.status(id), steps.done) == ("paused", [])
        await world.resume(id)
        assert await world.answer_of(id) == "done"


async def test_a_cancel_lets_a_paused_one_go_on_and_compensate(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep")
        await begun(world, "k")
        await world.pause(id)
        await world.until_status(id, "paused")
        assert await world.cancel(id) is Verdict.ASKED
        assert await world.outcome(id) == "cancelled"


async def test_a_cancel_overtakes_a_pause_that_waits_for_a_step(open_world: OpenWorld) -> None:
    steps = Steps()
    async with open_world(steps.endpoint) as world:
        id = await world.send("Work/work")
        await steps.gate.reached()
        await world.pause(id)
        await heard(world)
        assert await world.cancel(id) is Verdict.ASKED
        assert await world.outcome(id) == "cancelled"
        steps.gate.open()


async def test_a_kill_ends_one_that_is_about_to_pause(open_world: OpenWorld) -> None:
    steps = Steps()
    async with open_world(steps.endpoint) as world:
        id = await world.send("Work/work")
        await steps.gate.reached()
        await world.pause(id)
        await heard(world)
        await world.kill(id)
        assert await world.outcome(id) == "killed"
        steps.gate.open()


async def test_a_pause_is_heard_by_whoever_takes_over_from_a_dead_engine(open_world: OpenWorld) -> None:
    steps = Steps()
    async with open_world(steps.endpoint) as world:
        id = await world.send("Work/work")
        await steps.gate.reached()
        member = world.members[0]
        await member.kill()
        assert await world.pause(id) is Verdict.ASKED
        await world.bury(member)
        await world.start_engine(steps.endpoint)
        await world.until_status(id, "paused")
        steps.gate.open()
        await world.resume(id)
        assert await world.answer_of(id) == "done"
