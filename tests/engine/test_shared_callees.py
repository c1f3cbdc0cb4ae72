"""Whom a cancel and a kill take along: the calls that an invocation began, not what somebody else had begun."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import Cancelled, Context, Endpoint, ObjectContext, Service, TerminalError, VirtualObject, handler
from runtime.engine import engine
from tests.engine.conftest import OpenWorld
from tests.support.world import World

LONG = timedelta(hours=1)
ENDS = {"cancel": "cancelled", "kill": "killed"}

by_both_verbs = pytest.mark.parametrize("verb", [*ENDS])


class Lock(VirtualObject):
    """What the shared one waits for, until the test cancels who holds it."""

    @handler
    async def hold(self, ctx: ObjectContext) -> None:
        ctx.set("held", True)
        await ctx.sleep(LONG)

    @handler
    async def enter(self, ctx: ObjectContext) -> None: ...


class Shared(VirtualObject):
    @handler
    async def work(self, ctx: ObjectContext) -> str:
        ctx.set("begun", True)
        await ctx.object_client(Lock, "k").enter()
        return "done"


class Caller(Service):
    """Calls the shared one, all with one idempotency key."""

    @handler
    async def call(self, ctx: Context) -> str:
        return await ctx.object_client(Shared, "k", idempotency_key="once").work()

    @handler
    async def call_a_caller(self, ctx: Context) -> str:
        return await ctx.service_client(Caller).call()

    @handler
    async def compensate(self, ctx: Context) -> str:
        try:
            return await ctx.object_client(Shared, "k", idempotency_key="once").work()
        except Cancelled:
            await ctx.run("undo", nothing)
            return "undone"

    @handler
    async def insist(self, ctx: Context) -> str:
        call = ctx.object_client(Shared, "k", idempotency_key="once").work()
        try:
            return await call
        except Cancelled:
            ctx.cancel(await call.invocation_id())
            raise


app = Endpoint(Lock, Shared, Caller)


@pytest.fixture(params=["hot", "suspended"])
def waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where those are that wait: in an engine's memory, or in the database alone."""
    if request.param == "suspended":
        monkeypatch.setattr(engine, "HOT_WAIT", 0.0)
        return "suspended"
    return "running"


async def shut(world: World) -> str:
    """Let what is shared wait; answers whom to cancel so that it may go on."""
    holder = await world.send("Lock/k/hold")

    async def is_held() -> bool:
        return await world.state("Lock", "k") != {}

    await world.until(is_held)
    return holder


async def begun(world: World) -> str:
    """Wait until the shared one is at work; answers its id."""

    async def is_begun() -> bool:
        return await world.state("Shared", "k") != {}

    await world.until(is_begun)
    return await world.newest("Shared")


async def second(world: World, handler: str = "call") -> str:
    """A caller that has come to what is under way already."""
    caller = await world.send(f"Caller/{handler}")

    async def waits() -> bool:
        return await world.rows("SELECT FROM waiter") != []

    await world.until(waits)
    return caller


async def two_callers(world: World, waiting: str) -> tuple[str, str, str, str]:
    """The one who holds the gate shut, the caller that began the shared one, that, and the caller that came second."""
    holder = await shut(world)
    first = await world.send("Caller/call")
    shared = await begun(world)
    later = await second(world)
    for id in (first, shared, later):
        await world.until_status(id, waiting)
    return holder, first, shared, later


async def tell(world: World, verb: str, id: str) -> None:
    await (world.cancel if verb == "cancel" else world.kill)(id)


@by_both_verbs
async def test_a_caller_that_came_second_goes_alone(open_world: OpenWorld, waiting: str, verb: str) -> None:
    async with open_world(app) as world:
        holder, first, shared, later = await two_callers(world, waiting)
        await tell(world, verb, later)
        assert await world.outcome(later) == ENDS[verb]
        await world.cancel(holder)
        assert await world.answer_of(first) == "done"
        assert await world.outcome(shared) == "succeeded"


@by_both_verbs
async def test_the_caller_that_began_it_takes_it_along(open_world: OpenWorld, waiting: str, verb: str) -> None:
    async with open_world(app) as world:
        holder, first, shared, later = await two_callers(world, waiting)
        await tell(world, verb, first)
        assert await world.outcome(first) == ENDS[verb]
        assert await world.outcome(shared) == ENDS[verb]
        with pytest.raises(TerminalError) as told:
            await world.answer_of(later)
        assert told.value.code == 409
        assert await world.outcome(later) == "failed"
        await world.cancel(holder)


@by_both_verbs
async def test_what_a_client_outside_began_goes_on(open_world: OpenWorld, waiting: str, verb: str) -> None:
    async with open_world(app, app) as world:
        holder = await shut(world)
        shared = await world.send("Shared/k/work", once="once")
        await begun(world)
        caller = await second(world)
        for id in (shared, caller):
            await world.until_status(id, waiting)
        await tell(world, verb, caller)
        assert await world.outcome(caller) == ENDS[verb]
        await world.cancel(holder)
        assert await world.answer_of(shared) == "done"


@by_both_verbs
async def test_what_has_not_begun_yet_keeps_its_place(open_world: OpenWorld, waiting: str, verb: str) -> None:
    async with open_world(app) as world:
        holder = await shut(world)
        ahead = await world.send("Shared/k/work")
        await begun(world)
        await world.until_status(ahead, waiting)
        shared = await world.send("Shared/k/work", once="once")
        caller = await second(world)
        await world.until_status(caller, waiting)
        await tell(world, verb, caller)
        assert await world.outcome(caller) == ENDS[verb]
        assert await world.status(shared) == "pending"
        await world.cancel(holder)
        assert await world.answer_of(shared) == "done"


@by_both_verbs
async def test_of_a_chain_the_end_goes_on_that_was_there_already(
    open_world: OpenWorld, waiting: str, verb: str
) -> None:
    async with open_world(app) as world:
        holder = await shut(world)
        shared = await world.send("Shared/k/work", once="once")
        await begun(world)
        top = await second(world, "call_a_caller")
        for id in (shared, top):
            await world.until_status(id, waiting)
        await tell(world, verb, top)
        assert await world.outcome(top) == ENDS[verb]
        await world.cancel(holder)
        assert await world.answer_of(shared) == "done"
        assert await world.rows("SELECT outcome, count(*) FROM done WHERE service = 'Caller' GROUP BY 1") == [
            (ENDS[verb], 2)
        ]


async def test_a_caller_that_came_second_compensates_while_it_goes_on(open_world: OpenWorld, waiting: str) -> None:
    async with open_world(app) as world:
        holder = await shut(world)
        shared = await world.send("Shared/k/work", once="once")
        await begun(world)
        caller = await second(world, "compensate")
        await world.until_status(caller, waiting)
        await world.cancel(caller)
        assert await world.answer_of(caller) == "undone"
        await world.cancel(holder)
        assert await world.answer_of(shared) == "done"


async def test_a_handler_may_cancel_it_by_its_id_all_the_same(open_world: OpenWorld, waiting: str) -> None:
    async with open_world(app) as world:
        holder = await shut(world)
        shared = await world.send("Shared/k/work", once="once")
        await begun(world)
        caller = await second(world, "insist")
        await world.until_status(caller, waiting)
        await world.cancel(caller)
        assert await world.outcome(caller) == "cancelled"
        assert await world.outcome(shared) == "cancelled"
        await world.cancel(holder)


async def test_what_came_second_outlives_the_first_caller_when_that_has_gone_alone(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        holder = await shut(world)
        shared = await world.send("Shared/k/work", once="once")
        await begun(world)
        callers = [await second(world), await world.send("Caller/call")]
        await world.cancel(callers[0])
        assert await world.outcome(callers[0]) == "cancelled"
        await world.cancel(holder)
        assert [await world.answer_of(id) for id in (shared, callers[1])] == ["done", "done"]


def nothing() -> None: ...
