"""Each statement fails once, wherever it stands: what was accepted still comes true exactly once, and nothing is left.

A scenario is played again and again. The first time its first statement fails, whoever runs it; then the second, and
so on, until it passes untouched. An engine that dies of it is followed by a new one, as in a worker.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    Context,
    Endpoint,
    ObjectContext,
    Retry,
    Service,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from runtime.engine import engine, rescue, timers
from runtime.errors import DatabaseError, Disconnected
from runtime.operations import operations
from tests.engine.conftest import OpenWorld
from tests.support.faults import SESSION_ENDS, Faults, refusal
from tests.support.world import WITHIN, Gate, Member, World, uuid

Scenario = Callable[[World, str], Coroutine[Any, Any, None]]

NAP = timedelta(milliseconds=20)
LONG = timedelta(hours=1)
SOON = Retry(initial=NAP)

FAULTS = {
    "its session ends": SESSION_ENDS,
    "it is a deadlock's victim": refusal("40P01"),
    "it does not fit": refusal("22000"),
    "the disk is full": refusal("53100"),
}


class Tally(VirtualObject, retry=SOON):
    """What is doubled or lost shows in its total."""

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = (await ctx.get("total", int) or 0) + amount
        ctx.set("total", total)
        return total

    @handler
    async def nap(self, ctx: ObjectContext) -> int:
        await ctx.sleep(NAP)
        ctx.set("total", (await ctx.get("total", int) or 0) + 1)
        return 1

    @handler
    async def bring(self, ctx: ObjectContext, id: str) -> None:
        ctx.set("total", (await ctx.get("total", int) or 0) + 1)
        ctx.resolve_awakeable(id, 1)


class Clerk(Service, retry=SOON):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello {name}"

    @handler
    async def steps(self, ctx: Context, key: str) -> list[int]:
        return [await ctx.run(f"step {number}", int, number) for number in range(5)]

    @handler
    async def call(self, ctx: Context, key: str) -> int:
        return await ctx.object_client(Tally, key).add(1)

    @handler
    async def send(self, ctx: Context, key: str) -> str:
        ctx.object_send_client(Tally, key).add(1)
        return "sent"

    @handler
    async def send_later(self, ctx: Context, key: str) -> str:
        ctx.object_send_client(Tally, key, delay=NAP).add(1)
        return "sent"

    @handler
    async def await_nap(self, ctx: Context, key: str) -> int:
        return await ctx.object_client(Tally, key).nap()

    @handler
    async def await_letter(self, ctx: Context, key: str) -> int:
        letter = ctx.awakeable(int)
        ctx.object_send_client(Tally, key).bring(letter.id)
        return await letter

    @handler
    async def attach(self, ctx: Context, key: str) -> int:
        return await ctx.attach(await ctx.object_send_client(Tally, key).nap().invocation_id(), int)

    @handler
    async def await_sleeper(self, ctx: Context, key: str) -> None:
        await ctx.service_client(Sleeper).sleep(key)


class Sleeper(Service, retry=SOON):
    @handler
    async def sleep(self, ctx: Context, key: str) -> None:
        try:
            await ctx.sleep(LONG)
        except TerminalError:
            await ctx.object_client(Tally, key).add(1)
            raise


class Vow(Workflow, retry=SOON):
    @handler
    async def run(self, ctx: WorkflowContext) -> int:
        return await ctx.object_client(Tally, ctx.key).add(await ctx.promise("word", int))

    @handler
    async def give(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("word", int).resolve(1)


app = Endpoint(Tally, Clerk, Sleeper, Vow)


# The scenarios, each under a key of its own. --------------------------------------------------------------------------


async def a_call(world: World, key: str) -> None:
    assert await call(world, "Clerk/greet", key) == f"Hello {key}"


async def a_call_of_an_object(world: World, key: str) -> None:
    assert await call(world, f"Tally/{key}/add", 1) == 1


async def steps(world: World, key: str) -> None:
    assert await call(world, "Clerk/steps", key) == [0, 1, 2, 3, 4]


async def a_nested_call(world: World, key: str) -> None:
    assert await call(world, "Clerk/call", key) == 1


async def a_send(world: World, key: str) -> None:
    assert await call(world, "Clerk/send", key) == "sent"


async def a_delayed_send(world: World, key: str) -> None:
    assert await call(world, "Clerk/send_later", key) == "sent"


async def a_delayed_submission(world: World, key: str) -> None:
    due = int(time.time() * 1000) + 20
    await persist(lambda: world.send(f"Tally/{key}/add", 1, due=due))


async def sleepers(world: World, key: str) -> None:
    assert await call(world, "Clerk/await_nap", key) == 1


async def an_awakeable(world: World, key: str) -> None:
    assert await call(world, "Clerk/await_letter", key) == 1


async def an_attachment(world: World, key: str) -> None:
    assert await call(world, "Clerk/attach", key) == 1


async def a_promise(world: World, key: str) -> None:
    id = await persist(lambda: world.send(f"Vow/{key}/run"))
    await persist(lambda: world.call(f"Vow/{key}/give"))
    assert await persist(lambda: world.answer_of(id), Disconnected) == 1


async def a_repeated_call(world: World, key: str) -> None:
    both = [call(world, f"Tally/{key}/add", 1, once="once") for _ in range(2)]
    assert await asyncio.gather(*both) == [1, 1]
    assert await call(world, f"Tally/{key}/add", 1, once="once") == 1


async def a_cancel(world: World, key: str) -> None:
    id = await persist(lambda: world.send("Sleeper/sleep", key))
    await asleep(world, id)
    await persist(lambda: world.cancel(id), Disconnected)
    assert await world.outcome(id) == "cancelled"


async def a_kill(world: World, key: str) -> None:
    id = await persist(lambda: world.send("Clerk/await_sleeper", key))
    callee = await world.newest("Sleeper")
    await asleep(world, callee)
    await persist(lambda: world.kill(id), Disconnected)
    assert [await world.outcome(id), await world.outcome(callee)] == ["killed", "killed"]


async def a_pause(world: World, key: str) -> None:
    id = await persist(lambda: world.send("Sleeper/sleep", key))
    await asleep(world, id)
    await persist(lambda: world.pause(id), Disconnected)
    await world.until_status(id, "paused")
    await persist(lambda: world.resume(id), Disconnected)
    await persist(lambda: world.cancel(id), Disconnected)
    assert await world.outcome(id) == "cancelled"


EACH_ENDS: dict[Scenario, list[str]] = {
    a_call: ["Clerk/greet"],
    a_call_of_an_object: ["Tally/add"],
    steps: ["Clerk/steps"],
    a_nested_call: ["Clerk/call", "Tally/add"],
    a_send: ["Clerk/send", "Tally/add"],
    a_delayed_send: ["Clerk/send_later", "Tally/add"],
    a_delayed_submission: ["Tally/add"],
    sleepers: ["Clerk/await_nap", "Tally/nap"],
    an_awakeable: ["Clerk/await_letter", "Tally/bring"],
    an_attachment: ["Clerk/attach", "Tally/nap"],
    a_promise: ["Tally/add", "Vow/give", "Vow/run"],
    a_repeated_call: ["Tally/add"],
    a_cancel: ["Sleeper/sleep", "Tally/add"],
    a_kill: ["Clerk/await_sleeper", "Sleeper/sleep"],
    a_pause: ["Sleeper/sleep", "Tally/add"],
}
"""What each scenario adds to history. A total, where one is kept, is 1."""

SHORT_ONES: Sequence[Scenario] = (a_call, a_call_of_an_object)
"""Here each statement meets each of the faults; elsewhere it meets one of them, in turn."""

LONG_ONES: Sequence[Scenario] = (
    steps,
    a_delayed_send,
    a_delayed_submission,
    sleepers,
    an_attachment,
    a_promise,
    a_cancel,
    a_kill,
    a_pause,
)
"""Most of their statements are those of the others: every third fails."""

CASES = {f"{scenario.__name__}, {fault}": (scenario, [fault]) for scenario in SHORT_ONES for fault in FAULTS} | {
    scenario.__name__: (scenario, list(FAULTS)) for scenario in EACH_ENDS if scenario not in SHORT_ONES
}


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again after a moment is tried again at once; sleepers leave memory."""
    monkeypatch.setattr(engine, "POLL", 0.2)
    monkeypatch.setattr(timers, "POLL", 0.05)
    monkeypatch.setattr(operations, "POLL", 0.05)
    monkeypatch.setattr(operations, "RECONNECT", 0.01)
    monkeypatch.setattr(engine, "TIDY", 0.01)
    monkeypatch.setattr(engine, "HOT_WAIT", 0.0)


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
@pytest.mark.parametrize(("scenario", "kinds"), CASES.values(), ids=CASES)
async def test_whichever_statement_fails(
    open_world: OpenWorld, faults: Faults, haste: None, scenario: Scenario, kinds: list[str]
) -> None:
    async with open_world(app) as world, revived(world):
        for number in range(1, 1000, 3 if scenario in LONG_ONES else 1):
            key, kind = f"k{number}", kinds[number % len(kinds)]
            await world.call("Clerk/greet", key)  # an engine that dies of the last fault must have a successor first
            await world.settle()
            before = await history(world)
            faults.arm(number, FAULTS[kind])
            await scenario(world, key)
            await world.settle()
            was_met = faults.disarm()
            assert sorted((await history(world) - before).elements()) == EACH_ENDS[scenario], f"{number}: {kind}"
            assert await world.state("Tally", key) in ({}, {"total": 1}), f"{number}: {kind}"
            if not was_met:
                break
        assert number > 5, "it never failed"


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_whichever_statement_of_a_rescue_fails(
    open_world: OpenWorld, faults: Faults, haste: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "INTERVAL", 0.02)
    monkeypatch.setattr(rescue, "STILL_LOOKS", 1_000)  # these looks come faster than the beats
    gates: dict[str, Gate] = {}

    class Held(VirtualObject, retry=SOON):
        @handler
        async def hold(self, ctx: ObjectContext) -> None:
            await ctx.run("hold", gates[ctx.key].wait)
            ctx.set("total", (await ctx.get("total", int) or 0) + 1)

    endpoint = Endpoint(Held)
    async with open_world(endpoint) as world, revived(world, endpoint) as watch:
        for number in range(1, 1000, 3):
            key, kind = f"k{number}", list(FAULTS)[number % len(FAULTS)]
            gates[key] = Gate()
            await world.send(f"Held/{key}/hold")
            await gates[key].reached()
            doomed = world.members[-1]
            watch(await world.start_engine(endpoint))
            faults.arm(number, FAULTS[kind])
            await doomed.kill()
            gates[key].open()
            await world.settle()
            was_met = faults.disarm()
            assert await world.state("Held", key) == {"total": 1}, f"{number}: {kind}"
            if not was_met:
                break
        assert number > 5, "it never failed"


async def history(world: World) -> collections.Counter[str]:
    """How often each handler has ended."""
    rows = await world.rows("SELECT service || '/' || handler, count(*) FROM done GROUP BY 1")
    return collections.Counter(dict(rows))


@asynccontextmanager
async def revived(world: World, endpoint: Endpoint = app) -> AsyncIterator[Callable[[Member], None]]:
    """Whichever engine dies of a fault is followed by a new one; dying of anything else fails the test.

    Answers how to have a further engine watched.
    """

    async def revive(member: Member) -> None:
        member.is_mourned = True
        while True:
            await asyncio.wait([member.task])
            if member.task.cancelled():  # killed by the test
                return
            if not isinstance(member.task.exception(), (Disconnected, DatabaseError)):
                member.task.result()
            await persist(lambda: world.bury(member), Disconnected)  # noqa: B023 -- awaited here
            # A fault that was met late may have killed it, and the next one may meet its successor.
            member = await persist(lambda: world.start_engine(endpoint, is_mourned=True), Disconnected)

    async with asyncio.TaskGroup() as tasks:
        watches: list[asyncio.Task[None]] = []

        def watch(member: Member) -> None:
            watches.append(tasks.create_task(revive(member)))

        for member in world.members:
            watch(member)
        yield watch
        for task in watches:
            task.cancel()


async def call(world: World, target: str, argument: Any, *, once: str | None = None) -> Any:
    return await persist(lambda: world.call(target, argument, once=once))


async def persist(ask: Callable[[], Awaitable[Any]], unsure: type[Exception] = DatabaseError) -> Any:
    """Ask again when the database refused: nothing was done. `unsure`: what may have been done, and can be again."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                return await ask()
            except (DatabaseError, unsure):
                await asyncio.sleep(0.01)


async def asleep(world: World, id: str) -> None:
    """Wait until the timer of its sleep is armed, which is not that of a next attempt."""
    await world.until(lambda: world.rows("SELECT FROM timer WHERE invocation = %s AND slot > 0", uuid(id)))
