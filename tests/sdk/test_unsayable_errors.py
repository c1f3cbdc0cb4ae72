"""Errors that the wire cannot carry as they are: whatever a handler raises, each message of its attempt has a frame."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import Context, Retry, Service, TerminalError, handler
from perdure.protocol import messages as m
from perdure.protocol.codec import decode, encode
from tests.sdk.support import Stage

raised: Exception


async def fail() -> None:
    raise raised


class Unlucky(Service):
    @handler
    async def outside(self, ctx: Context) -> None:
        raise raised

    @handler
    async def in_a_run(self, ctx: Context) -> None:
        await ctx.run("fail", fail)

    @handler
    async def in_the_last_run(self, ctx: Context) -> None:
        await ctx.run("fail", fail, retry=Retry(max_attempts=1))


async def ending(handler: str, error: Exception) -> m.Message:
    """The last thing that is said, when everything that is said can be."""
    global raised
    raised = error
    stage = await Stage(Unlucky, handler, store_runs=True).begin()
    for message in stage.emitted:
        if not isinstance(message, m.Error):  # it has words for people only, which the runtime cleans
            assert len(decode(encode(message))) == 1
    return next(message for message in reversed(stage.emitted) if not isinstance(message, m.End))


@pytest.mark.parametrize("code", [-1, 1 << 32, "404", None, 4.0])
@pytest.mark.parametrize("handler", ["outside", "in_a_run"])
async def test_a_code_that_is_none_fails_the_attempt_in_words(handler: str, code: Any) -> None:
    error = await ending(handler, TerminalError("no", code=code))
    assert isinstance(error, m.Error)
    assert "reads like an HTTP status" in error.message
    assert repr(code) in error.message


@pytest.mark.parametrize("handler", ["outside", "in_a_run"])
async def test_a_terminal_error_arrives_without_what_is_no_unicode(handler: str) -> None:
    output = await ending(handler, TerminalError("no \ud800", code=404, metadata={"why": "\udfff"}))
    assert isinstance(output, m.Output)
    assert isinstance(output.result, m.Failure)
    assert (output.result.code, output.result.message) == (404, "no ?")


async def test_a_run_that_fails_for_good_says_so_without_what_is_no_unicode() -> None:
    output = await ending("in_the_last_run", ValueError("no \ud800"))
    assert isinstance(output, m.Output)
    assert isinstance(output.result, m.Failure)
    assert "ValueError: no ?" in output.result.message
