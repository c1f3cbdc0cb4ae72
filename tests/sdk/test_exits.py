"""Handlers and steps that raise what is no Exception, as exits are: it fails their own attempt, and nothing else."""

from __future__ import annotations

import asyncio
import json

import pytest

from perdure import Context, Endpoint, Service, handler
from perdure.errors import AttemptEnded
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol.messages import Error, Input, Message, Start, Value
from perdure.protocol.target import Target


class Odd(BaseException):
    pass


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


ODD = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, AttemptEnded, Odd, Unspeakable]


def raise_it(name: str) -> None:
    raise next(kind for kind in ODD if kind.__name__ == name)


async def raise_it_later(name: str) -> None:
    await asyncio.sleep(0)
    raise_it(name)


class Quitter(Service):
    @handler
    async def at_once(self, ctx: Context, name: str) -> None:
        raise_it(name)

    @handler
    async def in_a_step(self, ctx: Context, name: str) -> None:
        await ctx.run("raise it", raise_it, name)

    @handler
    async def in_an_async_step(self, ctx: Context, name: str) -> None:
        await ctx.run("raise it", raise_it_later, name)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["at_once", "in_a_step", "in_an_async_step"])
async def test_what_is_no_exception_fails_the_attempt(name: str, kind: type[BaseException]) -> None:
    ended = asyncio.Event()
    emitted: list[Message] = []

    def emit(message: Message) -> None:
        emitted.append(message)
        if isinstance(message, Error):
            ended.set()

    start = Start(id=bytes(16), debug_id="inv_1", known_entries=1)
    given = Input(Value(json.dumps(kind.__name__).encode()))
    attempt = InProcessHost(Endpoint(Quitter)).attempt(Target("Quitter", name, None), start, [given], emit)
    attempt.begin()
    async with asyncio.timeout(5):
        await ended.wait()
    assert isinstance(emitted[-1], Error)
    assert kind.__name__ in emitted[-1].message
    assert attempt.executing == 0
