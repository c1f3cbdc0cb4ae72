"""One attempt in the worker's process: how it begins, when it waits, and how it ends."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from perdure import Endpoint
from perdure.errors import ProtocolError, UnknownHandler
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol import messages as m
from perdure.protocol.target import Target
from tests.sdk.shop import Shop, world
from tests.sdk.support import NOW, Stage, output, start, until

pytestmark = pytest.mark.usefixtures("own_world")


async def test_a_handler_that_never_waits_ends_before_begin_returns() -> None:
    stage = Stage(Shop, "greet", "Ann")
    stage.attempt.begin()
    if sys.version_info < (3, 12):
        await stage.settle()
    assert stage.emitted == output("Hello Ann")
    assert stage.attempt.waiting is None


async def test_bytes_travel_as_they_are_and_none_as_nothing() -> None:
    raw = await Stage(Shop, "echo", journal=[m.Input(m.Value(b"\x00\xff"))]).begin()
    assert raw.emitted == [m.Output(m.Value(b"\x00\xff")), m.End()]
    none = await Stage(Shop, "nothing").begin()
    assert none.emitted == [m.Output(m.Value(b"")), m.End()]


async def test_an_argument_with_a_default_may_be_left_out() -> None:
    assert (await Stage(Shop, "polite").begin()).emitted == output("Hello you")
    assert (await Stage(Shop, "polite", "Ann").begin()).emitted == output("Hello Ann")


async def test_an_argument_that_does_not_fit_is_a_terminal_400() -> None:
    stage = await Stage(Shop, "greet", 3).begin()
    failure = stage.last(m.Output).result
    assert isinstance(failure, m.Failure)
    assert (failure.code, "Expected `str`" in failure.message) == (400, True)


async def test_a_terminal_error_is_the_output() -> None:
    stage = await Stage(Shop, "refuse").begin()
    assert stage.emitted == [m.Output(m.Failure(410, "Sold out", (("item", "shoe"),))), m.End()]


async def test_any_other_exception_fails_the_attempt_only() -> None:
    [error] = (await Stage(Shop, "fail").begin()).emitted
    assert isinstance(error, m.Error)
    assert (error.code, error.message, error.related_command_type) == (500, "ValueError: on purpose", None)
    assert "in fail" in error.stacktrace


async def test_a_result_that_cannot_be_written_fails_the_attempt() -> None:
    [error] = (await Stage(Shop, "unserialisable").begin()).emitted
    assert isinstance(error, m.Error)
    assert "object cannot be written as JSON" in error.message


async def test_a_journal_that_has_its_output_just_ends() -> None:
    journal = [m.Input(), m.Output(m.Value(b"1"))]
    stage = await Stage(Shop, "nothing", journal=journal).begin()
    assert stage.emitted == [m.End()]
    assert world.log == []


async def test_unknown_handlers_and_journals_without_input_are_refused() -> None:
    host = InProcessHost(Endpoint(Shop))
    with pytest.raises(UnknownHandler, match="Shop/vanish"):
        host.attempt(Target("Shop", "vanish"), start(), [m.Input()], list[m.Message]().append)
    with pytest.raises(ProtocolError):
        host.attempt(Target("Shop", "nothing"), start(), [], list[m.Message]().append)


# Waiting and ending ---------------------------------------------------------------------------------------------------


async def test_a_waiting_attempt_suspends_with_what_it_waits_for() -> None:
    stage = await Stage(Shop, "sleep").begin()
    assert stage.emitted == [m.Sleep(round(NOW * 1000) + 50, 1)]
    assert stage.attempt.suspend()
    assert stage.emitted[1:] == [m.Suspension(m.Wait((1,), (1,)))]
    assert not stage.attempt.suspend()
    stage.deliver(m.SleepCompletion(1, m.VOID))
    await stage.drop()
    assert len(stage.emitted) == 2


async def test_an_attempt_that_was_told_enough_does_not_suspend() -> None:
    stage = await Stage(Shop, "sleep").begin()
    stage.deliver(m.SleepCompletion(1, m.VOID))
    assert stage.attempt.waiting is None
    assert not stage.attempt.suspend()
    assert (await stage.settle()).emitted[1:] == output("slept")


async def test_completions_nobody_asked_for_are_ignored() -> None:
    stage = await Stage(Shop, "sleep").begin()
    stage.deliver(m.SleepCompletion(99, m.VOID), m.Signal("unheard"), m.Signal(17))
    assert stage.attempt.waiting == m.Wait((1,), (1,))
    await stage.drop()


async def test_an_aborted_attempt_says_nothing_more() -> None:
    stage = Stage(Shop, "hang")
    stage.attempt.begin()
    await until(lambda: world.log == ["closure began"])
    stage.attempt.abort()
    await until(lambda: sorted(world.log) == ["closure began", "closure ended", "handler ended"])
    assert stage.emitted == [m.Run(1, "hang")]


async def test_the_result_of_an_aborted_attempts_thread_is_dropped() -> None:
    stage = Stage(Shop, "hang_in_thread")
    stage.attempt.begin()
    await until(world.thread_began.is_set)
    await stage.drop()
    world.thread_may_end.set()
    await until(world.thread_ended.is_set)
    await asyncio.sleep(0)
    assert stage.emitted == [m.Run(1, "hang")]


async def test_aborting_before_it_began_or_after_it_ended_does_nothing() -> None:
    await Stage(Shop, "sleep").drop()
    stage = await Stage(Shop, "greet", "Ann").begin()
    await stage.drop()
    assert stage.emitted == output("Hello Ann")


async def test_awaiting_something_foreign_works_and_is_no_durable_wait() -> None:
    stage = Stage(Shop, "foreign")
    stage.attempt.begin()
    await asyncio.sleep(0)
    assert stage.attempt.waiting is None
    assert not stage.attempt.suspend()
    world.event.set()
    await until(lambda: stage.attempt.waiting is not None)
    stage.deliver(m.SleepCompletion(1, m.VOID))
    assert (await stage.settle()).emitted[1:] == output("both")


async def test_asyncios_combinators_are_refused_with_a_word_about_ours() -> None:
    [*_, error] = (await Stage(Shop, "tasks").begin()).emitted
    assert isinstance(error, m.Error)
    assert "perdure.gather" in error.message


async def test_a_sleep_keeps_the_time_of_its_first_attempt() -> None:
    journal = [m.Input(), m.Sleep(1, 1), m.SleepCompletion(1, m.VOID)]
    assert (await Stage(Shop, "sleep", journal=journal).begin()).emitted == output("slept")


# A journal of something else ------------------------------------------------------------------------------------------


async def test_a_mismatch_cannot_be_swallowed() -> None:
    stage = await Stage(Shop, "stubborn", journal=[m.Input(), m.Run(1, "charge")]).begin()
    [error] = stage.emitted
    assert isinstance(error, m.Error)
    assert (error.code, error.related_command_index, error.related_command_type) == (570, 1, m.Run.CODE)
    assert 'the journal has a run named "charge" (completion 1), but the handler now asks for a sleep' in error.message
    assert world.log == []


@pytest.mark.parametrize(
    ("carried", "words"),
    [
        (b'"secret"', "a call to Shop/greet with 8 bytes, idempotency key once, header a (completion 2), but"),
        (b'"Eve"', "the handler now asks for the same with other content"),
    ],
)
async def test_a_mismatch_does_not_tell_what_the_journal_carries(carried: bytes, words: str) -> None:
    call = m.Call("Shop", "greet", carried, 1, 2, headers=(m.Header("a", "hush"),), idempotency_key="once")
    [error] = (await Stage(Shop, "call", journal=[m.Input(), call]).begin()).emitted
    assert isinstance(error, m.Error)
    assert words in error.message
    assert not re.search("secret|Eve|Ann|hush", error.message)


async def test_waiting_for_what_was_never_answered_is_a_mismatch_when_commands_follow() -> None:
    stage = await Stage(Shop, "sleep", journal=[m.Input(), m.Sleep(5, 1), m.Run(2, "charge")]).begin()
    [error] = stage.emitted
    assert isinstance(error, m.Error)
    assert (error.code, error.related_command_index) == (570, 2)
    assert "never answered" in error.message
