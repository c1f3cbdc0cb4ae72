"""Cancel asks: in whatever status it finds an invocation, this ends, and may first undo what it did."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from perdure import Cancelled, Context, Endpoint, ObjectContext, Retry, Service, TerminalError, VirtualObject, handler
from perdure.protocol.ids import format_id
from runtime.operations import UnknownInvocation
from runtime.store.verbs import Verdict
from tests.engine.conftest import OpenWorld
from tests.support.disk import Disk
from tests.support.world import Gate, World

LONG = timedelta(hours=1)


class Worker(VirtualObject, retry=Retry(initial=LONG)):
    """Ends in every way in which one can wait."""

    @handler
    async def sleep(self, ctx: ObjectContext) -> None:
        ctx.set("begun", True)
        await ctx.sleep(LONG)

    @handler
    async def fail(self, ctx: ObjectContext) -> None:
        ctx.set("begun", True)
        raise RuntimeError("later, perhaps")

    @handler(retry=Retry(max_attempts=1))
    async def give_up(self, ctx: ObjectContext) -> None:
        ctx.set("begun", True)
        raise RuntimeError("ask somebody")

    @handler
    async def touch(self, ctx: ObjectContext) -> str:
        return "touched"


class Caller(Service):
    @handler
    async def call(self, ctx: Context, key: str) -> None:
        await ctx.object_client(Worker, key).sleep()

    @handler
    async def deep(self, ctx: Context, levels: int) -> None:
        if levels == 0:
            await ctx.object_client(Worker, "bottom").sleep()
        await ctx.service_client(Caller).deep(levels - 1)

    @handler
    async def send(self, ctx: Context) -> str:
        id = await ctx.object_send_client(Worker, "sent").sleep().invocation_id()
        await ctx.sleep(LONG)
        return id

    @handler
    async def cancel(self, ctx: Context, id: str) -> None:
        ctx.cancel(id)


app = Endpoint(Worker, Caller)
callers, workers = Endpoint(Caller), Endpoint(Worker)


async def begun(world: World, key: str, service: str = "Worker") -> None:
    """Wait until the worker of this key is at work, and whoever called it has its id."""

    async def is_begun() -> bool:
        return (await world.state(service, key)).get("begun") is True

    await world.until(is_begun)


async def ends_cancelled(world: World, id: str) -> None:
    with pytest.raises(TerminalError, match="cancelled") as cancelled:
        await world.answer_of(id)
    assert cancelled.value.code == 409
    assert await world.outcome(id) == "cancelled"


async def test_a_running_one_is_cancelled(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep")
        await begun(world, "k")
        await world.cancel(id)
        await ends_cancelled(world, id)
        assert await world.call("Worker/k/touch") == "touched"


async def test_a_suspended_one_is_cancelled(open_world: OpenWorld, impatience: None) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep")
        await world.until_status(id, "suspended")
        await world.cancel(id)
        await ends_cancelled(world, id)
        assert await world.call("Worker/k/touch") == "touched"


async def test_a_backing_off_one_is_tried_at_once_and_hears_of_it(open_world: OpenWorld) -> None:
    heard: list[str] = []
    failing = True

    class Shaky(Service, retry=Retry(initial=LONG)):
        @handler
        async def work(self, ctx: Context) -> None:
            await ctx.run("begin", nothing)
            if failing:
                raise RuntimeError("not yet")
            try:
                await ctx.sleep(LONG)
            except Cancelled:
                heard.append("cancelled")
                raise

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/work")
        await world.until_status(id, "backing-off")
        failing = False
        await world.cancel(id)
        await ends_cancelled(world, id)
    assert heard == ["cancelled"]


async def test_one_that_fails_before_it_awaits_anything_ends_although_it_cannot_hear(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/fail")
        await world.until_status(id, "backing-off")
        await world.cancel(id)
        await ends_cancelled(world, id)
        assert await world.call("Worker/k/touch") == "touched"
        id = await world.send("Worker/k/give_up")
        await world.until_status(id, "paused")
        await world.cancel(id)
        await ends_cancelled(world, id)


async def test_one_that_has_done_something_is_tried_again_until_it_hears(open_world: OpenWorld) -> None:
    attempts = 0
    undone: list[str] = []

    class Saga(Service, retry=Retry(initial=timedelta(milliseconds=20))):
        @handler
        async def buy(self, ctx: Context) -> None:
            nonlocal attempts
            await ctx.run("charge", nothing)
            attempts += 1
            if attempts < 4:
                raise RuntimeError("not yet")
            try:
                await ctx.sleep(LONG)
            except Cancelled:
                undone.append("charge")
                raise

    async with open_world(Endpoint(Saga)) as world:
        id = await world.send("Saga/buy")
        await world.until_status(id, "backing-off")
        await world.cancel(id)
        await ends_cancelled(world, id)
    assert undone == ["charge"]
    assert attempts == 4


async def test_one_that_fails_while_it_undoes_things_is_tried_again(open_world: OpenWorld) -> None:
    attempts = 0
    undone: list[str] = []

    class Saga(VirtualObject, retry=Retry(initial=timedelta(milliseconds=20))):
        @handler
        async def buy(self, ctx: ObjectContext) -> None:
            nonlocal attempts
            attempts += 1
            ctx.set("begun", True)
            if attempts == 1:
                raise RuntimeError("not yet")
            try:
                await ctx.sleep(LONG)
            except Cancelled:
                if attempts < 4:
                    raise RuntimeError("undone later") from None
                undone.append("charge")
                raise

    async with open_world(Endpoint(Saga)) as world:
        id = await world.send("Saga/k/buy")
        await world.until_status(id, "running", "backing-off")
        await begun(world, "k", "Saga")
        await world.cancel(id)
        await ends_cancelled(world, id)
    assert undone == ["charge"]


async def test_a_paused_one_is_cancelled(open_world: OpenWorld) -> None:
    failing = True

    class Shaky(VirtualObject, retry=Retry(max_attempts=1)):
        @handler
        async def work(self, ctx: ObjectContext) -> None:
            if failing:
                raise RuntimeError("ask somebody")
            await ctx.sleep(LONG)

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/k/work")
        await world.until_status(id, "paused")
        failing = False
        await world.cancel(id)
        await ends_cancelled(world, id)


async def test_a_scheduled_one_is_cancelled_and_never_begins(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep", due=9_000_000_000_000)
        assert await world.cancel(id) is Verdict.DONE
        await ends_cancelled(world, id)
        assert await world.state("Worker", "k") == {}


async def test_a_pending_one_is_cancelled_and_the_queue_goes_on(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        holder = await world.send("Worker/k/sleep")
        await begun(world, "k")
        waiting = await world.send("Worker/k/fail")
        last = await world.send("Worker/k/touch")
        await world.cancel(waiting)
        await ends_cancelled(world, waiting)
        assert await world.status(holder) == "running"
        await world.cancel(holder)
        assert await world.answer_of(last) == "touched"


async def test_one_that_is_pending_behind_a_sleeper_is_cancelled(open_world: OpenWorld, impatience: None) -> None:
    async with open_world(app) as world:
        holder = await world.send("Worker/k/sleep")
        await world.until_status(holder, "suspended")
        waiting = await world.send("Worker/k/touch")
        await world.cancel(waiting)
        await ends_cancelled(world, waiting)
        assert await world.status(holder) == "suspended"
        await world.cancel(holder)


async def test_a_ready_one_is_cancelled_while_nobody_has_its_code(open_world: OpenWorld) -> None:
    async with open_world() as world:
        await world.register(app)
        for id in (await world.send("Worker/k/sleep"), await world.send("Caller/call", "other")):
            assert await world.cancel(id) is Verdict.DONE
            await ends_cancelled(world, id)
        await world.start_engine(app)


async def test_one_that_has_ended_is_told_apart_from_one_that_never_was(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/touch")
        await world.outcome(id)
        assert await world.cancel(id) is Verdict.ALREADY_ENDED
        assert await world.outcome(id) == "succeeded"
        with pytest.raises(UnknownInvocation):
            await world.cancel(format_id(bytes(16)))


async def test_what_it_waits_for_is_cancelled_first(open_world: OpenWorld) -> None:
    async with open_world(callers, workers) as world:
        caller = await world.send("Caller/call", "k")
        await begun(world, "k")
        callee = await world.newest("Worker", "k")
        await world.cancel(caller)
        await ends_cancelled(world, caller)
        assert await world.outcome(callee) == "cancelled"


async def test_a_whole_chain_of_calls_is_cancelled(open_world: OpenWorld, impatience: None) -> None:
    async with open_world(app, app) as world:
        top = await world.send("Caller/deep", 5)
        await begun(world, "bottom")
        await world.cancel(top)
        await ends_cancelled(world, top)
        await world.settle()
        outcomes = await world.rows("SELECT DISTINCT outcome FROM done")
        assert outcomes == [("cancelled",)]


async def test_what_it_sent_is_not_cancelled(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        sender = await world.send("Caller/send")
        await begun(world, "sent")
        sent = await world.newest("Worker", "sent")
        await world.cancel(sender)
        await ends_cancelled(world, sender)
        assert await world.status(sent) == "running"
        await world.cancel(sent)


async def test_a_cancelled_callee_gives_its_caller_a_409(open_world: OpenWorld) -> None:
    async with open_world(callers, workers) as world:
        caller = await world.send("Caller/call", "k")
        await begun(world, "k")
        await world.cancel(await world.newest("Worker", "k"))
        with pytest.raises(TerminalError) as failed:
            await world.answer_of(caller)
        assert failed.value.code == 409


async def test_a_handler_cancels_another_invocation(open_world: OpenWorld) -> None:
    async with open_world(callers, workers) as world:
        id = await world.send("Worker/k/sleep")
        await begun(world, "k")
        await world.call("Caller/cancel", id)
        await ends_cancelled(world, id)


async def test_a_handler_cancels_one_that_waits_in_a_queue(open_world: OpenWorld) -> None:
    async with open_world(callers, workers) as world:
        holder = await world.send("Worker/k/sleep")
        await begun(world, "k")
        waiting = await world.send("Worker/k/touch")
        await world.call("Caller/cancel", waiting)
        await ends_cancelled(world, waiting)
        await world.cancel(holder)


async def test_what_was_done_is_undone_before_it_ends(open_world: OpenWorld) -> None:
    class Booking(VirtualObject):
        @handler
        async def book(self, ctx: ObjectContext) -> None:
            ctx.set("flight", "booked")
            try:
                await ctx.sleep(LONG)
            except Cancelled:
                await ctx.run("refund", asyncio.sleep, 0)
                ctx.set("flight", "refunded")
                raise

    async with open_world(Endpoint(Booking)) as world:
        id = await world.send("Booking/k/book")

        async def is_booked() -> bool:
            return (await world.state("Booking", "k")).get("flight") == "booked"

        await world.until(is_booked)
        await world.cancel(id)
        await ends_cancelled(world, id)
        assert await world.state("Booking", "k") == {"flight": "refunded"}


async def test_one_whose_engine_died_before_it_wrote_a_word_is_heard_too(open_world: OpenWorld, disk: Disk) -> None:
    gate = Gate()

    class Booking(VirtualObject):
        @handler
        async def book(self, ctx: ObjectContext) -> None:
            try:
                await ctx.run("book", gate.wait)
                await ctx.sleep(LONG)
            except Cancelled:
                ctx.set("flight", "refunded")
                raise

    endpoint = Endpoint(Booking)
    async with open_world(endpoint) as world:
        disk.hold()
        id = await world.send("Booking/k/book")
        await gate.reached()
        await world.members[-1].kill()
        disk.release()
        await world.bury(world.members[-1])
        assert await world.rows("SELECT FROM journal") == []
        await world.cancel(id)
        gate.open()
        await world.start_engine(endpoint)
        await ends_cancelled(world, id)
        assert await world.state("Booking", "k") == {"flight": "refunded"}


async def test_a_handler_may_end_as_if_nothing_had_happened(open_world: OpenWorld) -> None:
    class Stubborn(VirtualObject):
        @handler
        async def work(self, ctx: ObjectContext) -> str:
            ctx.set("begun", True)
            try:
                await ctx.sleep(LONG)
            except Cancelled:
                return "enough"
            return "slept"

    async with open_world(Endpoint(Stubborn)) as world:
        id = await world.send("Stubborn/k/work")

        async def is_begun() -> bool:
            return await world.state("Stubborn", "k") == {"begun": True}

        await world.until(is_begun)
        await world.cancel(id)
        assert await world.answer_of(id) == "enough"
        assert await world.outcome(id) == "succeeded"


async def test_cancelled_twice_at_once_it_is_cancelled_once(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Worker/k/sleep")
        await begun(world, "k")
        await asyncio.gather(world.cancel(id), world.cancel(id))
        await ends_cancelled(world, id)


async def test_a_running_closure_ends_before_the_cancellation_is_heard(open_world: OpenWorld) -> None:
    gate = Gate()

    class Slow(Service):
        @handler
        async def work(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "finished"

    async with open_world(Endpoint(Slow)) as world:
        id = await world.send("Slow/work")
        await gate.reached()
        await world.cancel(id)
        gate.open()
        assert await world.outcome(id) in ("cancelled", "succeeded")
    assert gate.arrived == 1


def nothing() -> None: ...
