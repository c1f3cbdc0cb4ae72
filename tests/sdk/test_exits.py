"""Handlers and steps that ask the interpreter to exit: they fail their own attempt, and nothing else."""

from __future__ import annotations

import asyncio
import sys

import pytest

from perdure import Context, Endpoint, Service, handler
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol.messages import Error, Input, Message, Start
from perdure.protocol.target import Target


def leave() -> None:
    sys.exit(3)


async def leave_later() -> None:
    raise KeyboardInterrupt


class Quitter(Service):
    @handler
    async def at_once(self, ctx: Context) -> None:
        raise SystemExit(3)

    @handler
    async def in_a_step(self, ctx: Context) -> None:
        await ctx.run("leave", leave)

    @handler
    async def in_an_async_step(self, ctx: Context) -> None:
        await ctx.run("leave", leave_later)


@pytest.mark.parametrize("name", ["at_once", "in_a_step", "in_an_async_step"])
async def test_an_exit_fails_the_attempt(name: str) -> None:
    ended = asyncio.Event()
    emitted: list[Message] = []

    def emit(message: Message) -> None:
        emitted.append(message)
        if isinstance(message, Error):
            ended.set()

    start = Start(id=bytes(16), debug_id="inv_1", known_entries=1)
    attempt = InProcessHost(Endpoint(Quitter)).attempt(Target("Quitter", name, None), start, [Input()], emit)
    attempt.begin()
    async with asyncio.timeout(5):
        await ended.wait()
    assert isinstance(emitted[-1], Error)
    assert "SystemExit" in emitted[-1].message or "KeyboardInterrupt" in emitted[-1].message
