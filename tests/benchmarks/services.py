"""The measured handlers as Perdure services."""

from __future__ import annotations

import os
from datetime import timedelta

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from tests.benchmarks.handlers import LONG_SLEEP, nothing, pause, steps_of
from tests.benchmarks.marks import ENDED, STARTED, mark


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello {name}"


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        value = (await ctx.get("value", int) or 0) + amount
        ctx.set("value", value)
        return value


class Steps(Service):
    @handler
    async def five(self, ctx: Context, name: str) -> str:
        for _ in range(5):
            await ctx.run("step", nothing)
        return name


class Front(Service):
    @handler
    async def nested(self, ctx: Context, name: str) -> str:
        return await ctx.service_client(Greeter).greet(name)


class Marker(Service):
    @handler
    async def mark(self, ctx: Context, number: int) -> None:
        mark(ENDED, number)


class Sleeper(Service):
    @handler
    async def sleep(self, ctx: Context, number: int) -> None:
        mark(STARTED, number)
        await ctx.sleep(timedelta(seconds=LONG_SLEEP))


class Work(Service):
    @handler
    async def steps(self, ctx: Context, number: int) -> None:
        first = await ctx.run("where", os.getpid)
        mark(STARTED, number, first)
        for _ in range(steps_of(number)):
            await ctx.run("step", pause)
        mark(ENDED, number, first)


app = Endpoint(Greeter, Counter, Steps, Front, Marker, Sleeper, Work)
