"""The services of the conformance tests on Restate's Python SDK, and hypercorn that hosts them. Run with a port.

What each must do is told by `tests/conformance/test_behaviours.py`; `restate_ts/app.ts` and `perdure_app.py` do the
same. `tally` counts in a file, since retries may come to another process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import restate
from hypercorn.config import Config
from restate import (
    Context,
    InvocationRetryPolicy,
    ObjectContext,
    ObjectSharedContext,
    RestateDurableFuture,
    RunOptions,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
)
from restate.serde import BytesSerde

SOON = InvocationRetryPolicy(
    initial_interval=timedelta(milliseconds=10), max_interval=timedelta(milliseconds=20), exponentiation_factor=1.0
)
LONG = timedelta(minutes=5)


def tally(token: str) -> int:
    """How often this has been called with a token."""
    with (Path(os.environ["CONFORMANCE_TALLIES"]) / token).open("ab") as file:
        file.write(b".")
        return file.tell()


def milliseconds(number: int) -> timedelta:
    return timedelta(milliseconds=number)


# Objects -------------------------------------------------------------------------------------------------------------

board = restate.VirtualObject("Board")
"""Where handlers leave word for the tests."""


@board.handler()
async def put(ctx: ObjectContext, value: str) -> None:
    ctx.set("value", value)


@board.handler(kind="shared")
async def read(ctx: ObjectSharedContext) -> str | None:
    return await ctx.get("value", type_hint=str)


def make_counter(name: str, *, is_lazy: bool) -> tuple[restate.VirtualObject, Any]:
    """The object, and its handler that others call."""
    counter = restate.VirtualObject(name, enable_lazy_state=is_lazy)

    @counter.handler()
    async def add(ctx: ObjectContext, amount: int) -> int:
        value = (await ctx.get("count", type_hint=int) or 0) + amount
        ctx.set("count", value)
        return value

    @counter.handler(kind="shared")
    async def get(ctx: ObjectSharedContext) -> int | None:
        return await ctx.get("count", type_hint=int)

    @counter.handler()
    async def fill(ctx: ObjectContext, values: dict[str, int]) -> None:
        for name, value in values.items():
            ctx.set(name, value)

    @counter.handler(kind="shared")
    async def keys(ctx: ObjectSharedContext) -> list[str]:
        return sorted(await ctx.state_keys())

    @counter.handler()
    async def drop(ctx: ObjectContext, name: str) -> None:
        ctx.clear(name)

    @counter.handler()
    async def wipe(ctx: ObjectContext) -> list[str]:
        ctx.clear_all()
        ctx.set("wiped", 1)
        return sorted(await ctx.state_keys())

    return counter, add


counter, add = make_counter("Counter", is_lazy=False)
lazy_counter, _ = make_counter("LazyCounter", is_lazy=True)


# Steps and values ----------------------------------------------------------------------------------------------------

greeter = restate.Service("Greeter")


@greeter.handler()
async def greet(ctx: Context, name: str) -> str:
    greeting = await ctx.run_typed("greet", lambda: f"Hello {name}")
    await ctx.sleep(milliseconds(20))
    return greeting


echo = restate.Service("Echo")


@echo.handler()
async def nothing(ctx: Context) -> None:
    await ctx.run_typed("nothing", lambda: None)


@echo.handler(
    input_serde=BytesSerde(), output_serde=BytesSerde(), accept="*/*", content_type="application/octet-stream"
)
async def reverse(ctx: Context, content: bytes) -> bytes:
    return await ctx.run_typed("reverse", lambda: content[::-1], RunOptions(serde=BytesSerde()))


@echo.handler()
async def big(ctx: Context, size: int) -> str:
    """That much is journaled, read again after a wait, and returned."""
    content = await ctx.run_typed("big", lambda: "x" * size)
    await ctx.sleep(milliseconds(10))
    return content


@echo.handler()
async def size(ctx: Context, content: str) -> int:
    return len(content)


@echo.handler()
async def host(ctx: Context) -> str:
    return os.environ["CONFORMANCE_HOST"]


@echo.handler()
async def tone(ctx: Context) -> str | None:
    return ctx.request().headers.get("x-tone")


steps = restate.Service("Steps")


def step(number: int) -> int:
    return number


@steps.handler()
async def many(ctx: Context, count: int) -> int:
    total = 0
    for number in range(count):
        total += await ctx.run_typed(f"step {number}", step, RunOptions(), number)
    return total


@steps.handler()
async def once(ctx: Context, token: str) -> int:
    """A step is taken once, however often the handler is begun."""
    await ctx.run_typed("count", lambda: tally(token))
    await ctx.sleep(milliseconds(10))
    return await ctx.run_typed("count again", lambda: tally(token))


@steps.handler()
async def chance(ctx: Context) -> bool:
    """Whether chance is the same when it is replayed."""
    drawn = [str(ctx.uuid()), str(ctx.random().random())]
    first = await ctx.run_typed("drawn", lambda: drawn)
    await ctx.sleep(milliseconds(10))
    return drawn == first


# Calls ---------------------------------------------------------------------------------------------------------------

front = restate.Service("Front")


@front.handler()
async def call(ctx: Context, name: str) -> str:
    return "I heard: " + await ctx.service_call(greet, name)


@front.handler()
async def deep(ctx: Context, depth: int) -> int:
    return 0 if depth == 0 else 1 + await ctx.service_call(deep, depth - 1)


@front.handler()
async def crowd(ctx: Context, order: dict[str, Any]) -> list[int]:
    calls = [ctx.object_call(add, order["key"], 1) for _ in range(order["times"])]
    return [await one for one in calls]


@front.handler()
async def send(ctx: Context, order: dict[str, Any]) -> str:
    handle = ctx.object_send(add, order["key"], order["amount"], send_delay=milliseconds(order.get("delay", 0)))
    return await handle.invocation_id()


@front.handler()
async def twice(ctx: Context, order: dict[str, Any]) -> list[int]:
    """The same call twice, by one idempotency key."""
    first = await ctx.object_call(add, order["key"], 1, idempotency_key=order["token"])
    return [first, await ctx.object_call(add, order["key"], 1, idempotency_key=order["token"])]


@front.handler()
async def loudly(ctx: Context) -> str | None:
    return await ctx.service_call(tone, None, headers={"x-tone": "loud"})


@front.handler()
async def relay(ctx: Context, size: int) -> int:
    return await ctx.service_call(globals()["size"], "x" * size)


# Failures ------------------------------------------------------------------------------------------------------------

failing = restate.Service("Failing", invocation_retry_policy=SOON)


@failing.handler()
async def terminal(ctx: Context) -> None:
    raise TerminalError("no such luck", status_code=418)


@failing.handler()
async def explained(ctx: Context) -> None:
    raise TerminalError("no such luck", status_code=418, metadata={"colour": "teal"})


@failing.handler()
async def flaky(ctx: Context, order: dict[str, Any]) -> int:
    attempts = tally(order["token"])
    if attempts < order["times"]:
        raise ValueError(f"attempt {attempts} fails")
    return attempts


@failing.handler()
async def refused_step(ctx: Context) -> str:
    def refuse() -> None:
        raise TerminalError("the step refuses", status_code=419)

    try:
        await ctx.run_typed("refuse", refuse)
    except TerminalError as error:
        await ctx.sleep(milliseconds(10))
        return f"{error.status_code} {error.message}"
    return "it was not refused"


@failing.handler()
async def flaky_step(ctx: Context, order: dict[str, Any]) -> int:
    """A step that fails until its nth try, or is given up after so many."""

    def try_it() -> int:
        tries = tally(order["token"])
        if tries < order["times"]:
            raise ValueError(f"try {tries} fails")
        return tries

    options: RunOptions[int] = RunOptions(
        max_attempts=order["most"], initial_retry_interval=milliseconds(5), retry_interval_factor=1.0
    )
    try:
        return await ctx.run_typed("try", try_it, options)
    except TerminalError:
        return -tally(order["token"]) + 1


@failing.handler()
async def caught(ctx: Context) -> str:
    try:
        await ctx.service_call(terminal, None)
    except TerminalError as error:
        return f"{error.status_code} {error.message}"
    return "nothing was caught"


@failing.handler()
async def kept(ctx: Context, key: str) -> None:
    """What a handler had done before it failed is done."""
    ctx.object_send(add, key, 7)
    raise TerminalError("after the send", status_code=418)


# Waiting for others --------------------------------------------------------------------------------------------------

waiting = restate.Service("Waiting")


@waiting.handler()
async def awakeable(ctx: Context, place: str) -> str:
    id, value = ctx.awakeable(type_hint=str)
    ctx.object_send(put, place, id)
    return "awoken by " + await value


@waiting.handler()
async def resolve(ctx: Context, order: dict[str, Any]) -> None:
    ctx.resolve_awakeable(order["id"], order["value"])


@waiting.handler()
async def reject(ctx: Context, order: dict[str, Any]) -> None:
    ctx.reject_awakeable(order["id"], order["reason"])


@waiting.handler()
async def signals(ctx: Context, order: dict[str, Any]) -> list[str]:
    """So many signals of one name, in the order in which they came."""
    ctx.object_send(put, order["place"], ctx.request().id)
    return [await ctx.signal("word", type_hint=str) for _ in range(order["count"])]


@waiting.handler()
async def signal(ctx: Context, order: dict[str, Any]) -> None:
    for word in order["words"]:
        ctx.resolve_signal(order["id"], "word", word)


@waiting.handler()
async def attach(ctx: Context, id: str) -> int:
    return await ctx.attach_invocation(id, type_hint=int)


@waiting.handler()
async def slow_add(ctx: Context, order: dict[str, Any]) -> int:
    """Attach to what was sent and has yet to begin."""
    handle = ctx.object_send(add, order["key"], 1, send_delay=milliseconds(100))
    return await ctx.attach_invocation(await handle.invocation_id(), type_hint=int)


# Several at once -----------------------------------------------------------------------------------------------------

combining = restate.Service("Combining")


@combining.handler()
async def all_of(ctx: Context, names: list[str]) -> list[str]:
    calls = [ctx.service_call(greet, name) for name in names]
    await restate.gather(*calls)
    return [await one for one in calls]


@combining.handler()
async def race(ctx: Context, name: str) -> str:
    winner, value = await restate.select(long=ctx.sleep(LONG), call=ctx.service_call(greet, name))
    return f"{winner}: {value}"


@combining.handler()
async def race_of_sleeps(ctx: Context) -> str:
    winner, _ = await restate.select(long=ctx.sleep(LONG), short=ctx.sleep(milliseconds(20)))
    return str(winner)


@combining.handler()
async def any_of(ctx: Context, name: str) -> str:
    """The first that succeeds."""
    async for one in restate.as_completed(ctx.service_call(terminal, None), ctx.service_call(greet, name)):
        try:
            return str(await one)
        except TerminalError:
            continue
    return "none has succeeded"


@combining.handler()
async def settled(ctx: Context, name: str) -> list[str]:
    calls: list[RestateDurableFuture[Any]] = [
        ctx.service_call(greet, name),
        ctx.service_call(terminal, None),
        ctx.sleep(milliseconds(10)),
    ]
    await restate.gather(*calls)
    said = []
    for one in calls:
        try:
            said.append(f"fulfilled {await one or 'nothing'}")
        except TerminalError as error:
            said.append(f"rejected {error.message}")
    return said


@combining.handler()
async def signal_or_sleep(ctx: Context, place: str) -> str:
    ctx.object_send(put, place, ctx.request().id)
    winner, value = await restate.select(word=ctx.signal("word", type_hint=str), late=ctx.sleep(LONG))
    return f"{winner}: {value}"


# Cancelling ----------------------------------------------------------------------------------------------------------

cancelling = restate.Service("Cancelling")


@cancelling.handler()
async def sleeper(ctx: Context, place: str) -> None:
    ctx.object_send(put, place, ctx.request().id)
    try:
        await ctx.sleep(LONG)
    except TerminalError:
        await ctx.object_call(add, place, -1)
        raise


@cancelling.handler()
async def parent(ctx: Context, place: str) -> None:
    ctx.object_send(put, place + " parent", ctx.request().id)
    await ctx.service_call(sleeper, place)


@cancelling.handler()
async def cancel(ctx: Context, id: str) -> None:
    ctx.cancel_invocation(id)


# Workflows -----------------------------------------------------------------------------------------------------------

approval = restate.Workflow("Approval")


@approval.main()
async def run(ctx: WorkflowContext, item: str) -> str:
    ctx.set("stage", "waiting")
    decision = await ctx.promise("decision", type_hint=str)
    ctx.set("stage", "decided")
    return f"{item} {decision}"


@approval.handler()
async def decide(ctx: WorkflowSharedContext, decision: str) -> None:
    await ctx.promise("decision", type_hint=str).resolve(decision)


@approval.handler()
async def refuse(ctx: WorkflowSharedContext, reason: str) -> None:
    await ctx.promise("decision", type_hint=str).reject(reason)


@approval.handler()
async def decision(ctx: WorkflowSharedContext) -> str | None:
    return await ctx.promise("decision", type_hint=str).peek()


@approval.handler()
async def stage(ctx: WorkflowSharedContext) -> str | None:
    return await ctx.get("stage", type_hint=str)


@front.handler()
async def approve(ctx: Context, key: str) -> str:
    """A workflow, from its beginning to its end."""
    running = ctx.workflow_call(run, key, "tea")
    await ctx.workflow_call(decide, key, "granted")
    return await running


app = restate.app(
    [
        board, counter, lazy_counter, greeter, echo, steps, front, failing, waiting, combining, cancelling, approval,
    ]
)  # fmt: skip


def main() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.keep_alive_max_requests = sys.maxsize
    config.h2_max_concurrent_streams = 10_000
    config.errorlog = None
    asyncio.run(hypercorn.asyncio.serve(app, config))


if __name__ == "__main__":
    main()
