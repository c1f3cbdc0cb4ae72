"""A shop and its shelves: one handler for each thing that an attempt can meet."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from perdure import Context, ObjectContext, Service, SharedContext, TerminalError, VirtualObject, handler
from tests.sdk.support import NOW


class World:
    """What the handlers of a test share with it."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the last test."""
        self.log: list[str] = []
        self.event = asyncio.Event()
        self.thread_began = threading.Event()
        self.thread_may_end = threading.Event()
        self.thread_ended = threading.Event()


world = World()


async def charge(amount: int) -> str:
    world.log.append(f"charge {amount}")
    return f"charged {amount}"


async def choose() -> bool:
    return world.event.is_set()


async def wait_for_event() -> str:
    world.log.append("closure began")
    try:
        await world.event.wait()
    finally:
        world.log.append("closure ended")
    return "done"


def wait_in_thread() -> str:
    world.thread_began.set()
    world.thread_may_end.wait(10)
    world.thread_ended.set()
    return threading.current_thread().name


class Shop(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello {name}"

    @handler
    async def nothing(self, ctx: Context) -> None:
        world.log.append("called")

    @handler
    async def polite(self, ctx: Context, name: str = "you") -> str:
        return f"Hello {name}"

    @handler
    async def echo(self, ctx: Context, content: bytes) -> bytes:
        return content

    @handler
    async def sell(self, ctx: Context, amount: int) -> str:
        return await ctx.run("charge", charge, amount)

    @handler
    async def two_runs(self, ctx: Context) -> list[str]:
        a, b = ctx.run("a", charge, 1), ctx.run("b", charge, 2)
        return [await b, await a]

    @handler
    async def hang(self, ctx: Context) -> str:
        try:
            return await ctx.run("hang", wait_for_event)
        finally:
            world.log.append("handler ended")
            ctx.service_send_client(Shop).nothing()

    @handler
    async def hang_in_thread(self, ctx: Context) -> str:
        return await ctx.run("hang", wait_in_thread)

    @handler
    async def unawaited(self, ctx: Context) -> str:
        ctx.run("hang", wait_for_event)
        await ctx.sleep(timedelta(seconds=1))
        return "returned"

    @handler
    async def never_started(self, ctx: Context) -> str:
        ctx.run("charge", charge, 1)
        return "returned"

    @handler
    async def sleep(self, ctx: Context) -> str:
        await ctx.sleep(timedelta(milliseconds=50))
        return "slept"

    @handler
    async def foreign(self, ctx: Context) -> str:
        await world.event.wait()
        await ctx.sleep(timedelta(seconds=1))
        return "both"

    @handler
    async def fail(self, ctx: Context) -> str:
        raise ValueError("on purpose")

    @handler
    async def refuse(self, ctx: Context) -> str:
        raise TerminalError("Sold out", code=410, metadata={"item": "shoe"})

    @handler
    async def unserialisable(self, ctx: Context) -> Any:
        return object()

    @handler
    async def stubborn(self, ctx: Context) -> str:
        while True:
            try:
                await ctx.sleep(timedelta(seconds=1))
                return "slept"
            except Exception:
                world.log.append("swallowed")

    @handler
    async def tasks(self, ctx: Context) -> None:
        await asyncio.gather(ctx.sleep(timedelta(1)), ctx.sleep(timedelta(2)))

    @handler
    async def nested_commands(self, ctx: Context) -> str:
        def in_thread() -> None:
            ctx.service_send_client(Shop).nothing()

        async def on_the_loop() -> None:
            ctx.service_send_client(Shop).nothing()

        if await ctx.run("choose", choose):
            await ctx.run("nested", in_thread)
        else:
            await ctx.run("nested", on_the_loop)
        return "done"

    @handler
    async def call(self, ctx: Context) -> str:
        call = ctx.service_client(Shop, idempotency_key="once", headers={"a": "b"}).greet("Ann")
        world.log.append(await call.invocation_id())
        return await call

    @handler
    async def send(self, ctx: Context) -> str:
        handle = ctx.object_send_client(Shelf, "shoes", delay=timedelta(seconds=5)).add(3)
        ctx.object_send_client(Shelf, "shoes", at=datetime.fromtimestamp(NOW + 7, UTC)).add(4)
        ctx.object_send_client("Elsewhere", "key").anything({"any": "thing"})
        return await handle.invocation_id()

    @handler
    async def by_name(self, ctx: Context) -> list[Any]:
        client = ctx.service_client("Elsewhere")
        return [await client.json([1]), (await client.octets(b"raw", returns=bytes)).decode(), await client.empty()]

    @handler
    async def look_around(self, ctx: Context) -> list[Any]:
        return [ctx.invocation_id, dict(ctx.headers), str(ctx.uuid()), ctx.random.random()]

    @handler
    async def clock(self, ctx: Context) -> str:
        return (await ctx.now()).isoformat()


class Shelf(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        count = (await ctx.get("count", int) or 0) + amount
        ctx.set("count", count)
        return count

    @handler
    async def tidy(self, ctx: ObjectContext) -> list[Any]:
        before = await ctx.keys()
        ctx.set("new", None)
        ctx.clear("old")
        middle = [await ctx.get("old"), await ctx.get("new", int), await ctx.keys()]
        ctx.clear_all()
        ctx.set("octets", b"\xff")
        return [before, middle, await ctx.keys(), ctx.key, list(await ctx.get("octets", bytes) or b"")]

    @handler(shared=True)
    async def look(self, ctx: SharedContext) -> int | None:
        return await ctx.get("count", int)

    @handler(shared=True)
    async def meddle(self, ctx: ObjectContext) -> None:
        ctx.set("count", 0)
