"""Limits: what is larger than it may be is refused whole, and the handler is told by a terminal error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, TerminalError, VirtualObject, handler
from perdure.protocol.ids import format_id
from perdure.protocol.limits import Limits
from runtime.core.lifecycle import TooLarge
from runtime.operations import Submission
from tests.engine.conftest import OpenWorld

LIMITS = Limits(payload=1000, result=2000, value=500, journal=20_000)


class Sizes(Service):
    @handler
    async def give(self, ctx: Context, size: int) -> str:
        return "x" * size

    @handler
    async def call(self, ctx: Context, size: int) -> str:
        try:
            await ctx.service_client(Sizes).take("x" * size)
        except TerminalError as error:
            return await ctx.run("compensate", str, error.message)
        return "called"

    @handler
    async def send(self, ctx: Context, size: int) -> str:
        try:
            ctx.service_send_client(Sizes).take("x" * size)
        except TerminalError as error:
            return error.message
        return "sent"

    @handler
    async def send_to_key(self, ctx: Context, size: int) -> None:
        ctx.object_send_client(Shelf, "k" * size).put(1)

    @handler
    async def run(self, ctx: Context, size: int) -> str:
        try:
            text = await ctx.run("fetch", lambda: "x" * size)
        except TerminalError as error:
            return error.message
        return str(len(text))

    @handler
    async def take(self, ctx: Context, text: str) -> None: ...

    @handler
    async def run_often(self, ctx: Context, size: int) -> int:
        done = 0
        while True:
            await ctx.run("step", lambda: "x" * size)
            done += 1
            if done == 100:
                return done


class Shelf(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, size: int) -> str:
        ctx.set("before", 1)
        try:
            ctx.set("text", "x" * size)
        except TerminalError as error:
            return error.message
        return "kept"

    @handler
    async def name(self, ctx: ObjectContext, size: int) -> str:
        try:
            ctx.set("n" * size, 1)
        except TerminalError as error:
            return error.message
        return "kept"

    @handler
    async def sleep_between(self, ctx: ObjectContext, size: int) -> str:
        said = []
        for part in (size, 1):
            try:
                ctx.set("text", "x" * part)
            except TerminalError:
                said.append("refused")
            await ctx.run("step", asyncio.sleep, 0)
        return " ".join(said)


app = Endpoint(Sizes, Shelf)


@pytest.fixture
def open_small_world(open_world: OpenWorld) -> Any:
    """A world with small limits."""

    def open(*endpoints: Endpoint) -> Any:
        world = open_world(*endpoints)
        world.limits = world.operations.limits = LIMITS
        return world

    return open


@pytest.mark.parametrize(
    ("target", "size", "words"),
    [
        ("Sizes/call", 999, "The argument of Sizes/take has 1001 bytes, and may have 1000 (PERDURE_LARGEST_PAYLOAD)."),
        ("Sizes/send", 999, "The argument of Sizes/take has 1001 bytes, and may have 1000 (PERDURE_LARGEST_PAYLOAD)."),
        ("Sizes/run", 1999, 'The result of "fetch" has 2001 bytes, and may have 2000 (PERDURE_LARGEST_RESULT).'),
        ("Shelf/Mary/put", 499, "The value 'text' has 501 bytes, and may have 500 (PERDURE_LARGEST_VALUE)."),
        ("Shelf/Mary/name", 513, "The name of a value has 513 bytes, and may have 512."),
    ],
)
async def test_a_handler_is_told_what_is_too_large_and_goes_on(
    open_small_world: Any, target: str, size: int, words: str
) -> None:
    async with open_small_world(app) as world:
        assert await world.call(target, size) == words
        assert await world.call(target, size - 1) in ("called", "sent", "1998", "kept")


async def test_what_was_too_large_leaves_nothing_of_itself(open_small_world: Any) -> None:
    async with open_small_world(app) as world:
        await world.call("Sizes/send", 2000)
        await world.call("Shelf/Mary/put", 2000)

        assert await world.state("Shelf", "Mary") == {"before": 1}
        assert await world.rows("SELECT count(*) FROM done WHERE handler = 'take'") == [(0,)]


@pytest.mark.parametrize(
    ("target", "argument", "words"),
    [
        (
            "Sizes/give",
            1999,
            r"The result of the handler has 2001 bytes, and may have 2000 \(PERDURE_LARGEST_RESULT\).",
        ),
        ("Sizes/send_to_key", 513, "A key has 513 bytes, and may have 512."),
    ],
)
async def test_what_a_handler_does_not_catch_ends_it_with_413(
    open_small_world: Any, target: str, argument: int, words: str
) -> None:
    async with open_small_world(app) as world:
        with pytest.raises(TerminalError, match=words) as failure:
            await world.call(target, argument)

        assert failure.value.code == 413


async def test_a_journal_that_is_full_takes_nothing_more(open_small_world: Any) -> None:
    async with open_small_world(app) as world:
        with pytest.raises(
            TerminalError, match=r"may have 20000 \(PERDURE_LARGEST_JOURNAL\). Split the work"
        ) as failure:
            await world.call("Sizes/run_often", 1500)
        assert failure.value.code == 413

        await world.call("Sizes/run_often", 10)


async def test_a_replay_is_refused_what_was_refused_before(open_small_world: Any, impatience: None) -> None:
    async with open_small_world(app) as world:
        assert await world.call("Shelf/Mary/sleep_between", 2000) == "refused"

        assert await world.state("Shelf", "Mary") == {"text": "x"}


async def test_what_is_submitted_is_refused_before_it_is_anything(open_small_world: Any) -> None:
    async with open_small_world(app) as world:
        take = world.operations.registry.resolve("Sizes", "take")
        with pytest.raises(TooLarge, match=r"has 1001 bytes, and may have 1000 \(PERDURE_LARGEST_PAYLOAD\)"):
            await world.operations.send(Submission(take, None, b"x" * 1001))

        accepted = await world.operations.send(Submission(take, None, b'"' + b"x" * 998 + b'"'))
        await world.until_status(format_id(accepted.id), "completed")
