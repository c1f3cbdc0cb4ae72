"""What happens when the function of a `ctx.run` raises."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from perdure import Context, Retry, Service, TerminalError, handler
from perdure.protocol import messages as m
from tests.sdk.support import Stage

SECOND = timedelta(seconds=1)


async def fail() -> None:
    raise ConnectionError("no route")


async def refuse() -> None:
    raise TerminalError("no such card", code=404)


async def unwritable() -> object:
    return object()


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def add(a: int, b: int) -> int:
    return a + b


class Courier:
    async def __call__(self) -> bytes:
        return b"called"


class Flaky(Service):
    @handler
    async def without_policy(self, ctx: Context) -> None:
        await ctx.run("fail", fail)

    @handler
    async def three_times(self, ctx: Context) -> None:
        await ctx.run("fail", fail, retry=Retry(max_attempts=3, initial=SECOND, factor=3))

    @handler
    async def three_times_then_pause(self, ctx: Context) -> None:
        await ctx.run("fail", fail, retry=Retry(max_attempts=3, on_max_attempts="pause"))

    @handler
    async def for_a_minute(self, ctx: Context) -> None:
        await ctx.run("fail", fail, retry=Retry(max_duration=timedelta(minutes=1)))

    @handler
    async def refused(self, ctx: Context) -> None:
        await ctx.run("refuse", refuse, retry=Retry(max_attempts=3))

    @handler
    async def unwritable(self, ctx: Context) -> None:
        await ctx.run("unwritable", unwritable)

    @handler
    async def beside_another(self, ctx: Context) -> None:
        ctx.run("wait", wait_for_ever)
        await ctx.run("fail", fail)

    @handler
    async def all_sorts(self, ctx: Context) -> list[Any]:
        return [
            await ctx.run("partial", partial(add, 1), b=2),
            await ctx.run("object", Courier()),
            await ctx.run("lambda", lambda: 5),
            await ctx.run("lambda of a coroutine", lambda: asyncio.sleep(0, 6)),
            await ctx.run("method", self.method, 7),
        ]

    async def method(self, number: int) -> int:
        return number


async def failed(handler: str, failures: int = 0, elapsed: int = 0) -> Stage:
    """An attempt whose run was stored, and failed so often, before it."""
    return await Stage(
        Flaky,
        handler,
        journal=[m.Input(), m.Run(1, "fail")],
        retry_count_since_last_stored_entry=failures,
        duration_since_last_stored_entry=elapsed,
    ).begin()


async def test_without_a_policy_the_runtime_decides_when_to_try_again() -> None:
    stage = await Stage(Flaky, "without_policy").begin()
    run, error = stage.emitted
    assert run == m.Run(1, "fail")
    assert isinstance(error, m.Error)
    assert (error.code, error.message) == (500, "ConnectionError: no route")
    assert (error.related_command_index, error.related_command_name) == (1, "fail")
    assert (error.related_command_type, error.next_retry_delay) == (m.Run.CODE, None)
    assert "in fail" in error.stacktrace


@pytest.mark.parametrize(("failures", "delay"), [(0, 1000), (1, 3000)])
async def test_the_policys_pause_goes_with_the_error(failures: int, delay: int) -> None:
    assert (await failed("three_times", failures)).last(m.Error).next_retry_delay == delay


async def test_a_policy_that_is_used_up_fails_for_good() -> None:
    proposal = (await failed("three_times", failures=2)).last(m.ProposeRunCompletion)
    assert isinstance(proposal.result, m.Failure)
    assert (proposal.result.code, "ConnectionError: no route" in proposal.result.message) == (500, True)


async def test_failures_of_earlier_commands_do_not_count() -> None:
    stage = await Stage(Flaky, "three_times", retry_count_since_last_stored_entry=2).begin()
    assert stage.last(m.Error).next_retry_delay == 1000


async def test_a_policy_may_ask_for_a_person() -> None:
    assert (await failed("three_times_then_pause", failures=1)).last(m.Error).behavior is m.Behavior.RETRY
    assert (await failed("three_times_then_pause", failures=2)).last(m.Error).behavior is m.Behavior.PAUSE


async def test_a_policy_may_be_limited_in_time() -> None:
    assert (await failed("for_a_minute", failures=50, elapsed=59_999)).last(m.Error)
    assert (await failed("for_a_minute", failures=50, elapsed=60_000)).last(m.ProposeRunCompletion)


async def test_a_terminal_error_is_stored_at_once_and_raised_at_the_await() -> None:
    stage = await Stage(Flaky, "refused").begin()
    assert stage.emitted[1:] == [m.ProposeRunCompletion(1, m.Failure(404, "no such card"))]
    stage.deliver(m.RunCompletion(1, m.Failure(404, "no such card")))
    assert (await stage.settle()).emitted[2:] == [m.Output(m.Failure(404, "no such card")), m.End()]


async def test_a_result_that_cannot_be_stored_is_said_in_words() -> None:
    assert "object cannot be written as JSON" in (await Stage(Flaky, "unwritable").begin()).last(m.Error).message


async def test_a_failing_run_ends_the_attempt_beside_a_running_one() -> None:
    stage = await Stage(Flaky, "beside_another").begin()
    assert [type(message) for message in stage.emitted] == [m.Run, m.Run, m.Error]
    await stage.drop()
    assert len(stage.emitted) == 3


async def test_anything_that_can_be_called_can_be_run() -> None:
    stage = Stage(Flaky, "all_sorts")
    stage.attempt.begin()
    for id in range(1, 6):
        await stage.settle()
        stage.deliver(m.RunCompletion(id, stage.last(m.ProposeRunCompletion).result))
    await stage.settle()
    results = [message.result for message in stage.emitted if isinstance(message, m.ProposeRunCompletion)]
    assert results == [m.Value(content) for content in (b"3", b"called", b"5", b"6", b"7")]
