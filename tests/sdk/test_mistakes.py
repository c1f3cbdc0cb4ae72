"""The mistakes of a first hour: each is told in a sentence with a cure, and as early as it can be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from perdure import (
    Context,
    DefinitionError,
    Endpoint,
    ObjectContext,
    Retry,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
)
from perdure.client import Client
from perdure.errors import UsageError
from perdure.protocol import messages as m
from tests.sdk.support import Stage, output


@dataclass
class Point:
    x: int


# When a service is defined -------------------------------------------------------------------------------------------


def bad_retry() -> None:
    class Shop(Service, retry=3):  # type: ignore[arg-type]
        pass


def bad_retry_of_a_handler() -> None:
    handler(retry=3)  # type: ignore[call-overload]


def unknown_keyword() -> None:
    class Shop(Service, retries=3):  # type: ignore[arg-type]
        pass


def unknown_keyword_of_a_handler() -> None:
    handler(retries=3)  # type: ignore[call-overload]


def bad_retention() -> None:
    class Shop(Service, journal_retention=3600):  # type: ignore[arg-type]
        pass


def needs_something() -> None:
    class Shop(Service):
        def __init__(self, till: str) -> None:
            self.till = till

        @handler
        async def open(self, ctx: Context) -> None: ...

    Endpoint(Shop)


@pytest.mark.parametrize(
    ("mistake", "cure"),
    [
        (bad_retry, "write retry=Retry(max_attempts=3)"),
        (bad_retry_of_a_handler, "write retry=Retry(max_attempts=3)"),
        (unknown_keyword, "class Shop does not take retries, but: name, retry,"),
        (unknown_keyword_of_a_handler, "@handler does not take retries, but: shared, retry,"),
        (bad_retention, "write timedelta(seconds=3600)"),
        (needs_something, "(missing a required argument: 'till'): give an instance, as in Endpoint(Shop(...))"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused_with_what_to_write(
    mistake: Callable[[], None], cure: str
) -> None:
    with pytest.raises(DefinitionError) as refusal:
        mistake()
    assert cure in str(refusal.value)


def test_a_pause_in_seconds_is_refused_with_what_to_write() -> None:
    with pytest.raises(UsageError, match=r"write timedelta\(seconds=5\)"):
        Retry(initial=5)  # type: ignore[arg-type]


# When a handler runs -------------------------------------------------------------------------------------------------


class Slips(Service):
    @handler
    async def sleep(self, ctx: Context) -> None:
        await ctx.sleep(5)  # type: ignore[arg-type]

    @handler
    async def delay(self, ctx: Context) -> None:
        ctx.service_send_client("Other", delay=5).greet()  # type: ignore[call-overload]

    @handler
    async def at(self, ctx: Context) -> None:
        ctx.service_send_client("Other", at=datetime(2030, 1, 1)).greet()  # noqa: DTZ001

    @handler
    async def keep(self, ctx: Context) -> None:
        ctx.set("x", 1)  # type: ignore[attr-defined]

    @handler
    async def misspell(self, ctx: Context) -> None:
        ctx.slep(1)  # type: ignore[attr-defined]

    @handler
    async def forget_text(self, ctx: Context) -> str:
        return ctx.run("pay", str, "x")  # type: ignore[return-value]

    @handler
    async def forget_nothing(self, ctx: Context) -> None:
        return ctx.sleep(timedelta(seconds=1))  # type: ignore[return-value]

    @handler
    async def wrong_text(self, ctx: Context) -> str:
        return 3  # type: ignore[return-value]

    @handler
    async def wrong_point(self, ctx: Context) -> Point:
        return Point("three")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("sleep", "write timedelta(seconds=5)"),
        ("delay", "write timedelta(seconds=5)"),
        ("at", "a datetime with a time zone"),
        ("keep", "ctx.set is for a VirtualObject"),
        ("misspell", "ctx has no 'slep'"),
        ("forget_text", "write `await` before it"),
        ("forget_nothing", "Is an `await` missing?"),
        ("wrong_text", "The result of Slips.wrong_text is not what is annotated: Expected `str`, got `int`"),
        ("wrong_point", "Expected `int`, got `str`"),
    ],
)
async def test_a_slip_fails_the_attempt_with_what_to_write(name: str, cure: str) -> None:
    error = (await Stage(Slips, name).begin()).last(m.Error)
    assert cure in error.message


class Shelf(VirtualObject):
    @handler(shared=True)
    async def look(self, ctx: SharedContext) -> None:
        ctx.clear("x")  # type: ignore[attr-defined]

    @handler
    async def put(self, ctx: ObjectContext) -> None:
        assert not hasattr(ctx, "putt")


async def test_a_shared_handler_that_writes_is_told_why_it_cannot() -> None:
    error = (await Stage(Shelf, "look", key="k").begin()).last(m.Error)
    assert "a shared handler only reads: leave out shared=True" in error.message
    assert isinstance((await Stage(Shelf, "put", key="k").begin()).emitted[-1], m.End)


class Forgetful(Service):
    @handler
    async def buy(self, ctx: Context, is_awaited: bool) -> str:
        charge = ctx.run("charge", str, "x")
        if is_awaited:
            await charge
        return "bought"


async def test_a_step_that_was_never_awaited_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "perdure"):
        awaited = await Stage(Forgetful, "buy", argument=True, store_runs=True).begin()
        assert awaited.emitted[-2:] == output("bought")
        assert caplog.messages == []
        await Stage(Forgetful, "buy", argument=False).begin()
    assert caplog.messages == ['inv_1me: ctx.run("charge") was never awaited, so it is not executed']


@pytest.mark.parametrize(
    ("error", "message"),
    [(TerminalError(), "TerminalError without a message"), (TerminalError("Sold out"), "Sold out")],
)
def test_a_terminal_error_always_says_something(error: TerminalError, message: str) -> None:
    assert (str(error), error.message, error.code) == (message, message, 500)


# Outside -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ({"delay": 5}, r"write timedelta\(seconds=5\)"),
        ({"at": "tomorrow"}, "a datetime with a time zone"),
        ({"delay": timedelta(1), "at": datetime(2030, 1, 1)}, "not both"),  # noqa: DTZ001
    ],
)
def test_a_delay_that_is_none_is_refused_before_anything_is_sent(said: dict[str, Any], cure: str) -> None:
    async def send() -> None:
        async with Client() as client:
            client.service_send("Other", **said)

    with pytest.raises(UsageError, match=cure):
        asyncio.run(send())
