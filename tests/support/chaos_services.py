"""Handlers for the chaos tests: each can be held in the middle of a command, and says in files how far it came.

PERDURE_CHAOS names a directory. A handler that reaches a point appends a line to `reached` (its tag and process) and
goes on when the file `go` is there. PERDURE_CHAOS_NAME is put before the names of the services, for hosts of these
beside the engines that have them too.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

from perdure import Context, Endpoint, ObjectContext, Retry, Service, SharedContext, VirtualObject, handler
from runtime.engine import runner

HERE = Path(os.environ.get("PERDURE_CHAOS", "/nonexistent"))
NAME = os.environ.get("PERDURE_CHAOS_NAME", "")
SOON = Retry(initial=timedelta(milliseconds=50), max_interval=timedelta(milliseconds=300), max_attempts=1_000)
IDLE = 3.0  # seconds, for the engines that host these services; half a minute in earnest

if "PERDURE_CHAOS" in os.environ:
    runner.IDLE = IDLE


async def reach(tag: str) -> None:
    """Say that we are here, then wait until told to go on."""
    note("reached", f"{tag} {os.getpid()}")
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)


def note(name: str, line: str) -> None:
    """One line in one write: lines of several processes do not mix."""
    with (HERE / name).open("ab", buffering=0) as file:
        file.write(f"{line} {time.time()}\n".encode())


class Ledger(VirtualObject, name=f"{NAME}Ledger", retry=SOON):
    """Counts: what is doubled or lost shows in its total."""

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = (await ctx.get("total", int) or 0) + amount
        ctx.set("total", total)
        return total

    @handler
    async def add_held(self, ctx: ObjectContext, tag: str) -> int:
        ctx.set("total", (await ctx.get("total", int) or 0) + 1)
        await ctx.run("hold", reach, tag)
        return await ctx.get("total", int) or 0

    @handler
    async def note_down(self, ctx: ObjectContext, line: str) -> None:
        """Order and overlap: two handlers of one key at once would interleave their lines."""
        lines = await ctx.get("lines", list[str]) or []
        ctx.set("lines", [*lines, line])

    @handler(shared=True)
    async def lines(self, ctx: SharedContext) -> list[str]:
        return await ctx.get("lines", list[str]) or []

    @handler(shared=True)
    async def total(self, ctx: SharedContext) -> int:
        return await ctx.get("total", int) or 0


class Deadly(Service):
    @handler
    async def kill(self, ctx: Context) -> None:
        """End the process, as a fault in a library written in C does."""
        os._exit(9)

    @handler
    async def wait(self, ctx: Context) -> None:
        """Do no harm."""
        await ctx.sleep(timedelta(hours=1))


class Work(Service, name=f"{NAME}Work", retry=SOON):
    """One handler per kind of command in whose middle an engine may die."""

    @handler
    async def run(self, ctx: Context, tag: str) -> str:
        await ctx.run("hold", reach, tag)
        await ctx.object_client(Ledger, tag).add(1)
        return tag

    @handler
    async def sleep(self, ctx: Context, tag: str) -> str:
        await ctx.run("here", reach_and_pass, tag)
        await ctx.sleep(timedelta(seconds=1))
        await ctx.object_client(Ledger, tag).add(1)
        return tag

    @handler
    async def call(self, ctx: Context, tag: str) -> str:
        await ctx.object_client(Ledger, tag).add_held(tag)
        return tag

    @handler
    async def send(self, ctx: Context, tag: str) -> str:
        ctx.object_send_client(Ledger, tag).add(1)
        await ctx.run("hold", reach, tag)
        return tag

    @handler
    async def delayed(self, ctx: Context, tag: str) -> str:
        ctx.object_send_client(Ledger, tag, delay=timedelta(seconds=1)).add(1)
        await ctx.run("hold", reach, tag)
        return tag

    @handler
    async def steps(self, ctx: Context, tag: str) -> str:
        """Held in the second step, when the first is done for good."""
        await ctx.run("first", reach_and_pass, f"{tag}-first")
        await ctx.run("hold", reach, tag)
        await ctx.object_client(Ledger, tag).add(1)
        return tag

    @handler
    async def block(self, ctx: Context, tag: str) -> str:
        """Does not await, and so nobody on its engine goes on."""
        note("reached", f"{tag} {os.getpid()}")
        while not (HERE / "go").exists():
            time.sleep(0.01)  # noqa: ASYNC251 -- that is the point
        await ctx.object_client(Ledger, tag).add(1)
        return tag

    @handler
    async def everything(self, ctx: Context, tag: str) -> str:
        """Each kind once, without a hold, for storms."""
        await ctx.run("step", pause, 0.02)
        first = ctx.object_client(Ledger, tag).add(1)
        ctx.object_send_client(Ledger, tag).add(1)
        ctx.object_send_client(Ledger, tag, delay=timedelta(milliseconds=300)).add(1)
        await ctx.sleep(timedelta(milliseconds=50))
        await first
        await ctx.run("step", pause, 0.02)
        return tag


async def reach_and_pass(tag: str) -> None:
    note("reached", f"{tag} {os.getpid()}")


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


app = Endpoint(Ledger, Work, Deadly)
