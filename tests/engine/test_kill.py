"""Kill takes: an invocation ends at once, in whatever status it is, with its calls, and undoes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import Cancelled, Context, Endpoint, ObjectContext, Retry, Service, TerminalError, VirtualObject, handler
from runtime.store.verbs import Verdict
from tests.engine.conftest import OpenWorld
from tests.engine.test_cancel import app, begun, callers, workers
from tests.support.world import Gate, World

LONG = timedelta(hours=1)


async def ends_killed(world: World, id: str) -> None:
    with pytest.raises(TerminalError, match="killed") as killed:
        await world.answer_of(id)
    assert killed.value.code == 409
    assert await world.outcome(id) == "killed"


async def test_a_running_one_is_killed_and_its_key_is_free(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep")
        await begun(world, "k")
        await world.kill(id)
        await ends_killed(world, id)
        assert await world.call("Worker/k/touch") == "touched"
        assert await world.state("Worker", "k") == {"begun": True}


async def test_a_suspended_one_is_killed_and_its_queue_goes_on(open_world: OpenWorld, impatience: None) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep")
        await world.until_status(id, "suspended")
        waiting = await world.send("Worker/k/touch")
        await world.kill(id)
        await ends_killed(world, id)
        assert await world.answer_of(waiting) == "touched"


async def test_a_backing_off_one_is_killed_and_its_queue_goes_on(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/fail")
        await world.until_status(id, "backing-off")
        waiting = await world.send("Worker/k/touch")
        await world.kill(id)
        await ends_killed(world, id)
        assert await world.answer_of(waiting) == "touched"


async def test_a_paused_one_is_killed_and_its_queue_goes_on(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/give_up")
        await world.until_status(id, "paused")
        waiting = await world.send("Worker/k/touch")
        await world.kill(id)
        await ends_killed(world, id)
        assert await world.answer_of(waiting) == "touched"


async def test_a_scheduled_one_is_killed(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep", due=9_000_000_000_000)
        assert await world.kill(id) is Verdict.DONE
        await ends_killed(world, id)


async def test_a_pending_one_is_killed_and_the_others_keep_their_places(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        holder = await world.send("Worker/k/sleep")
        await begun(world, "k")
        waiting, last = await world.send("Worker/k/sleep"), await world.send("Worker/k/touch")
        await world.kill(waiting)
        await ends_killed(world, waiting)
        assert await world.status(last) == "pending"
        await world.kill(holder)
        assert await world.answer_of(last) == "touched"


async def test_a_ready_one_is_killed_while_nobody_has_its_code(open_world: OpenWorld) -> None:
    async with open_world(callers) as world:
        await world.register(workers)
        id = await world.send("Worker/k/sleep")
        assert await world.kill(id) is Verdict.DONE
        await ends_killed(world, id)
        await world.start_engine(workers)


async def test_its_calls_are_killed_too(open_world: OpenWorld, impatience: None) -> None:
    async with open_world(callers, workers) as world:
        top = await world.send("Caller/deep", 4)
        await begun(world, "bottom")
        await world.kill(top)
        await ends_killed(world, top)
        await world.settle()
        assert await world.rows("SELECT outcome, count(*) FROM done GROUP BY 1") == [("killed", 6)]


async def test_calls_of_a_suspended_one_are_killed_while_they_wait_in_a_queue(
    open_world: OpenWorld, impatience: None
) -> None:
    async with open_world(app) as world:
        holder = await world.send("Worker/k/sleep")
        await world.until_status(holder, "suspended")
        caller = await world.send("Caller/call", "k")
        await world.until_status(caller, "suspended")
        queued = await world.newest("Worker", "k")
        await world.kill(caller)
        await ends_killed(world, caller)
        assert await world.outcome(queued) == "killed"
        assert await world.status(holder) == "suspended"
        await world.kill(holder)


async def test_a_killed_callee_gives_its_caller_a_409(open_world: OpenWorld) -> None:
    async with open_world(callers, workers) as world:
        caller = await world.send("Caller/call", "k")
        await begun(world, "k")
        await world.kill(await world.newest("Worker", "k"))
        with pytest.raises(TerminalError) as failed:
            await world.answer_of(caller)
        assert failed.value.code == 409
        assert await world.outcome(caller) == "failed"


async def test_nothing_is_undone(open_world: OpenWorld) -> None:
    class Booking(VirtualObject):
        @handler
        async def book(self, ctx: ObjectContext) -> None:
            ctx.set("begun", True)
            try:
                await ctx.sleep(LONG)
            except Cancelled:
                ctx.set("begun", False)

    async with open_world(Endpoint(Booking)) as world:
        id = await world.send("Booking/k/book")

        async def is_booked() -> bool:
            return bool(await world.state("Booking", "k"))

        await world.until(is_booked)
        await world.kill(id)
        await ends_killed(world, id)
        assert await world.state("Booking", "k") == {"begun": True}


async def test_what_its_closure_gives_afterwards_counts_for_nothing(open_world: OpenWorld) -> None:
    gate = Gate()

    class Slow(VirtualObject):
        @handler
        async def work(self, ctx: ObjectContext) -> None:
            await ctx.run("wait", gate.wait)
            ctx.set("finished", True)

    async with open_world(Endpoint(Slow)) as world:
        id = await world.send("Slow/k/work")
        await gate.reached()
        await world.kill(id)
        await ends_killed(world, id)
        gate.open()
        assert await world.state("Slow", "k") == {}


async def test_one_that_fails_over_and_over_is_killed(open_world: OpenWorld) -> None:
    class Shaky(Service, retry=Retry(initial=timedelta(milliseconds=1), factor=1.0)):
        @handler
        async def work(self, ctx: Context) -> None:
            raise RuntimeError("again")

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/work")
        await world.until_status(id, "backing-off")
        await world.kill(id)
        await ends_killed(world, id)
