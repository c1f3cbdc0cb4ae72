"""The services of the conformance tests on Perdure's own SDK, for its engines and, run with a port, on hypercorn.

What each must do is told by `tests/conformance/test_behaviours.py`; `restate_py/app.py` and `restate_ts/app.ts` do the
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
from hypercorn.config import Config

from perdure import (
    Context,
    Endpoint,
    ObjectContext,
    Retry,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    first,
    gather,
    handler,
)
from perdure.hosts import asgi

SOON = Retry(initial=timedelta(milliseconds=10), max_interval=timedelta(milliseconds=20), factor=1)
LONG = timedelta(minutes=5)


def tally(token: str) -> int:
    """How often this has been called with a token."""
    with (Path(os.environ["CONFORMANCE_TALLIES"]) / token).open("ab") as file:
        file.write(b".")
        return file.tell()


def milliseconds(number: int) -> timedelta:
    return timedelta(milliseconds=number)


# Objects -------------------------------------------------------------------------------------------------------------


class Board(VirtualObject):
    """Where handlers leave word for the tests."""

    @handler
    async def put(self, ctx: ObjectContext, value: str) -> None:
        ctx.set("value", value)

    @handler(shared=True)
    async def read(self, ctx: SharedContext) -> str | None:
        return await ctx.get("value", str)


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        value = (await ctx.get("count", int) or 0) + amount
        ctx.set("count", value)
        return value

    @handler(shared=True)
    async def get(self, ctx: SharedContext) -> int | None:
        return await ctx.get("count", int)

    @handler
    async def fill(self, ctx: ObjectContext, values: dict[str, int]) -> None:
        for name, value in values.items():
            ctx.set(name, value)

    @handler(shared=True)
    async def keys(self, ctx: SharedContext) -> list[str]:
        return sorted(await ctx.keys())

    @handler
    async def drop(self, ctx: ObjectContext, name: str) -> None:
        ctx.clear(name)

    @handler
    async def wipe(self, ctx: ObjectContext) -> list[str]:
        ctx.clear_all()
        ctx.set("wiped", 1)
        return sorted(await ctx.keys())


class LazyCounter(Counter):
    """As Counter: with this SDK it is the runtime that decides which values come along."""


# Steps and values ----------------------------------------------------------------------------------------------------


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        greeting = await ctx.run("greet", lambda: f"Hello {name}")
        await ctx.sleep(milliseconds(20))
        return greeting


class Echo(Service):
    @handler
    async def nothing(self, ctx: Context) -> None:
        await ctx.run("nothing", lambda: None)

    @handler
    async def reverse(self, ctx: Context, content: bytes) -> bytes:
        return content[::-1]

    @handler
    async def big(self, ctx: Context, size: int) -> str:
        """That much is journaled, read again after a wait, and returned."""
        content = await ctx.run("big", lambda: "x" * size)
        await ctx.sleep(milliseconds(10))
        return content

    @handler
    async def size(self, ctx: Context, content: str) -> int:
        return len(content)

    @handler
    async def host(self, ctx: Context) -> str:
        return os.environ.get("CONFORMANCE_HOST", "in-engines")

    @handler
    async def tone(self, ctx: Context) -> str | None:
        return ctx.headers.get("x-tone")


class Steps(Service):
    @handler
    async def many(self, ctx: Context, count: int) -> int:
        total = 0
        for number in range(count):
            total += await ctx.run(f"step {number}", int, number)
        return total

    @handler
    async def once(self, ctx: Context, token: str) -> int:
        """A step is taken once, however often the handler is begun."""
        await ctx.run("count", tally, token)
        await ctx.sleep(milliseconds(10))
        return await ctx.run("count again", tally, token)

    @handler
    async def chance(self, ctx: Context) -> bool:
        """Whether chance is the same when it is replayed."""
        drawn = [str(ctx.uuid()), str(ctx.random.random())]
        before = await ctx.run("drawn", lambda: drawn)
        await ctx.sleep(milliseconds(10))
        return drawn == before


# Calls ---------------------------------------------------------------------------------------------------------------


class Front(Service):
    @handler
    async def call(self, ctx: Context, name: str) -> str:
        return "I heard: " + await ctx.service_client(Greeter).greet(name)

    @handler
    async def deep(self, ctx: Context, depth: int) -> int:
        return 0 if depth == 0 else 1 + await ctx.service_client(Front).deep(depth - 1)

    @handler
    async def crowd(self, ctx: Context, order: dict[str, Any]) -> list[int]:
        calls = [ctx.object_client(Counter, order["key"]).add(1) for _ in range(order["times"])]
        return [await one for one in calls]

    @handler
    async def send(self, ctx: Context, order: dict[str, Any]) -> str:
        sending = ctx.object_send_client(Counter, order["key"], delay=milliseconds(order.get("delay", 0)))
        return await sending.add(order["amount"]).invocation_id()

    @handler
    async def twice(self, ctx: Context, order: dict[str, Any]) -> list[int]:
        """The same call twice, by one idempotency key."""
        counter = ctx.object_client(Counter, order["key"], idempotency_key=order["token"])
        return [await counter.add(1), await counter.add(1)]

    @handler
    async def loudly(self, ctx: Context) -> str | None:
        return await ctx.service_client(Echo, headers={"x-tone": "loud"}).tone()

    @handler
    async def relay(self, ctx: Context, size: int) -> int:
        return await ctx.service_client(Echo).size("x" * size)

    @handler
    async def approve(self, ctx: Context, key: str) -> str:
        """A workflow, from its beginning to its end."""
        approval = ctx.workflow_client(Approval, key)
        running = approval.run("tea")
        await approval.decide("granted")
        return await running


# Failures ------------------------------------------------------------------------------------------------------------


class Failing(Service, retry=SOON):
    @handler
    async def terminal(self, ctx: Context) -> None:
        raise TerminalError("no such luck", code=418)

    @handler
    async def explained(self, ctx: Context) -> None:
        raise TerminalError("no such luck", code=418, metadata={"colour": "teal"})

    @handler
    async def flaky(self, ctx: Context, order: dict[str, Any]) -> int:
        attempts = tally(order["token"])
        if attempts < order["times"]:
            raise ValueError(f"attempt {attempts} fails")
        return attempts

    @handler
    async def refused_step(self, ctx: Context) -> str:
        def refuse() -> None:
            raise TerminalError("the step refuses", code=419)

        try:
            await ctx.run("refuse", refuse)
        except TerminalError as error:
            await ctx.sleep(milliseconds(10))
            return f"{error.code} {error.message}"
        return "it was not refused"

    @handler
    async def flaky_step(self, ctx: Context, order: dict[str, Any]) -> int:
        """A step that fails until its nth try, or is given up after so many."""

        def try_it() -> int:
            tries = tally(order["token"])
            if tries < order["times"]:
                raise ValueError(f"try {tries} fails")
            return tries

        retry = Retry(max_attempts=order["most"], initial=milliseconds(5), factor=1)
        try:
            return await ctx.run("try", try_it, retry=retry)
        except TerminalError:
            return -tally(order["token"]) + 1

    @handler
    async def caught(self, ctx: Context) -> str:
        try:
            await ctx.service_client(Failing).terminal()
        except TerminalError as error:
            return f"{error.code} {error.message}"
        return "nothing was caught"

    @handler
    async def kept(self, ctx: Context, key: str) -> None:
        """What a handler had done before it failed is done."""
        ctx.object_send_client(Counter, key).add(7)
        raise TerminalError("after the send", code=418)


# Waiting for others --------------------------------------------------------------------------------------------------


class Waiting(Service):
    @handler
    async def awakeable(self, ctx: Context, place: str) -> str:
        awakeable = ctx.awakeable(str)
        ctx.object_send_client(Board, place).put(awakeable.id)
        return "awoken by " + await awakeable

    @handler
    async def resolve(self, ctx: Context, order: dict[str, Any]) -> None:
        ctx.resolve_awakeable(order["id"], order["value"])

    @handler
    async def reject(self, ctx: Context, order: dict[str, Any]) -> None:
        ctx.reject_awakeable(order["id"], order["reason"])

    @handler
    async def signals(self, ctx: Context, order: dict[str, Any]) -> list[str]:
        """So many signals of one name, in the order in which they came."""
        ctx.object_send_client(Board, order["place"]).put(ctx.invocation_id)
        return [await ctx.signal("word", str) for _ in range(order["count"])]

    @handler
    async def signal(self, ctx: Context, order: dict[str, Any]) -> None:
        for word in order["words"]:
            ctx.send_signal(order["id"], "word", word)

    @handler
    async def attach(self, ctx: Context, id: str) -> int:
        return await ctx.attach(id, int)

    @handler
    async def slow_add(self, ctx: Context, order: dict[str, Any]) -> int:
        """Attach to what was sent and has yet to begin."""
        sent = ctx.object_send_client(Counter, order["key"], delay=milliseconds(100)).add(1)
        return await ctx.attach(await sent.invocation_id(), int)


# Several at once -----------------------------------------------------------------------------------------------------


class Combining(Service):
    @handler
    async def all_of(self, ctx: Context, names: list[str]) -> list[str]:
        return list(await gather(*(ctx.service_client(Greeter).greet(name) for name in names)))

    @handler
    async def race(self, ctx: Context, name: str) -> str:
        call = ctx.service_client(Greeter).greet(name)
        running = first(ctx.sleep(LONG), call)
        value = await running
        return f"{'call' if running.winner is call else 'long'}: {value}"

    @handler
    async def race_of_sleeps(self, ctx: Context) -> str:
        long, short = ctx.sleep(LONG), ctx.sleep(milliseconds(20))
        running = first(long, short)
        await running
        return "short" if running.winner is short else "long"

    @handler
    async def any_of(self, ctx: Context, name: str) -> str:
        """The first that succeeds."""
        left = [ctx.service_client(Failing).terminal(), ctx.service_client(Greeter).greet(name)]
        while left:
            running = first(*left)
            try:
                return str(await running)
            except TerminalError:
                left = [one for one in left if one is not running.winner]
        return "none has succeeded"

    @handler
    async def settled(self, ctx: Context, name: str) -> list[str]:
        calls = [
            ctx.service_client(Greeter).greet(name),
            ctx.service_client(Failing).terminal(),
            ctx.sleep(milliseconds(10)),
        ]
        said = []
        for one in calls:
            try:
                said.append(f"fulfilled {await one or 'nothing'}")
            except TerminalError as error:
                said.append(f"rejected {error.message}")
        return said

    @handler
    async def signal_or_sleep(self, ctx: Context, place: str) -> str:
        ctx.object_send_client(Board, place).put(ctx.invocation_id)
        word = ctx.signal("word", str)
        running = first(word, ctx.sleep(LONG))
        value = await running
        return f"{'word' if running.winner is word else 'late'}: {value}"


# Cancelling ----------------------------------------------------------------------------------------------------------


class Cancelling(Service):
    @handler
    async def sleeper(self, ctx: Context, place: str) -> None:
        ctx.object_send_client(Board, place).put(ctx.invocation_id)
        try:
            await ctx.sleep(LONG)
        except TerminalError:
            await ctx.object_client(Counter, place).add(-1)
            raise

    @handler
    async def parent(self, ctx: Context, place: str) -> None:
        ctx.object_send_client(Board, place + " parent").put(ctx.invocation_id)
        await ctx.service_client(Cancelling).sleeper(place)

    @handler
    async def cancel(self, ctx: Context, id: str) -> None:
        ctx.cancel(id)


# Workflows -----------------------------------------------------------------------------------------------------------


class Approval(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, item: str) -> str:
        ctx.set("stage", "waiting")
        decision = await ctx.promise("decision", str)
        ctx.set("stage", "decided")
        return f"{item} {decision}"

    @handler
    async def decide(self, ctx: WorkflowSharedContext, decision: str) -> None:
        await ctx.promise("decision", str).resolve(decision)

    @handler
    async def refuse(self, ctx: WorkflowSharedContext, reason: str) -> None:
        await ctx.promise("decision", str).reject(reason)

    @handler
    async def decision(self, ctx: WorkflowSharedContext) -> str | None:
        return await ctx.promise("decision", str).peek()

    @handler
    async def stage(self, ctx: WorkflowSharedContext) -> str | None:
        return await ctx.get("stage", str)


app = Endpoint(
    Board, Counter, LazyCounter, Greeter, Echo, Steps, Front, Failing, Waiting, Combining, Cancelling, Approval
)


def main() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.keep_alive_max_requests = sys.maxsize
    config.h2_max_concurrent_streams = 10_000
    config.errorlog = None
    asyncio.run(hypercorn.asyncio.serve(asgi.app(app), config))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
