"""The measured handlers as Restate services, and hypercorn that hosts them. Run as a module, with a port.

One hypercorn process over HTTP/2: with two, the server and the generator get less of two cores. Hypercorn closes a
connection after 1,000 requests, which costs Restate failed attempts; the limit is lifted.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import hypercorn.asyncio
import restate
import uvloop
from hypercorn.config import Config

from tests.benchmarks.handlers import LONG_SLEEP, nothing, pause, steps_of
from tests.benchmarks.marks import ENDED, STARTED, mark

PREFIX = os.environ.get("BENCHMARK_PREFIX", "")
"""Before the names of the services, where they are measured beside others of the same names."""

greeter = restate.Service(f"{PREFIX}Greeter")
counter = restate.VirtualObject("Counter")
steps_service = restate.Service(f"{PREFIX}Steps")
front = restate.Service("Front")
marker = restate.Service("Marker")
sleeper = restate.Service("Sleeper")
work = restate.Service("Work")


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"Hello {name}"


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    value = (await ctx.get("value", type_hint=int) or 0) + amount
    ctx.set("value", value)
    return value


@steps_service.handler()
async def five(ctx: restate.Context, name: str) -> str:
    for _ in range(5):
        await ctx.run_typed("step", nothing)
    return name


@front.handler()
async def nested(ctx: restate.Context, name: str) -> str:
    return await ctx.service_call(greet, arg=name)


@marker.handler("mark")
async def mark_end(ctx: restate.Context, number: int) -> None:
    mark(ENDED, number)


@sleeper.handler()
async def sleep(ctx: restate.Context, number: int) -> None:
    mark(STARTED, number)
    await ctx.sleep(timedelta(seconds=LONG_SLEEP))


@work.handler()
async def steps(ctx: restate.Context, number: int) -> None:
    first = await ctx.run_typed("where", os.getpid)
    mark(STARTED, number, first)
    for _ in range(steps_of(number)):
        await ctx.run_typed("step", pause)
    mark(ENDED, number, first)


app = restate.app(
    [greeter, steps_service] if PREFIX else [greeter, counter, steps_service, front, marker, sleeper, work]
)


def main() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.keep_alive_max_requests = sys.maxsize
    config.h2_max_concurrent_streams = 10_000
    config.errorlog = None
    uvloop.run(hypercorn.asyncio.serve(app, config))


if __name__ == "__main__":
    main()
