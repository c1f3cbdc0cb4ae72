"""Closures given to `ctx.run`: where and when they are executed, and what becomes of their results."""

from __future__ import annotations

import pytest

from perdure.protocol import messages as m
from tests.sdk.shop import Shop, world
from tests.sdk.support import Stage, output, until

pytestmark = pytest.mark.usefixtures("own_world")


async def test_a_run_is_proposed_and_goes_on_only_when_it_is_stored() -> None:
    stage = await Stage(Shop, "sell", 5).begin()
    assert stage.emitted == [m.Run(1, "charge"), m.ProposeRunCompletion(1, m.Value(b'"charged 5"'))]
    assert stage.attempt.waiting == m.Wait((1,), (1,))
    stage.deliver(m.RunCompletion(1, m.Value(b'"charged before"')))
    assert (await stage.settle()).emitted[2:] == output("charged before")


async def test_a_run_without_completion_is_executed_again_and_one_with_it_is_not() -> None:
    again = await Stage(Shop, "sell", journal=[m.Input(m.Value(b"5")), m.Run(1, "charge")]).begin()
    assert again.emitted == [m.ProposeRunCompletion(1, m.Value(b'"charged 5"'))]
    world.log.clear()
    journal = [m.Input(m.Value(b"5")), m.Run(1, "charge"), m.RunCompletion(1, m.Value(b'"x"'))]
    assert (await Stage(Shop, "sell", journal=journal).begin()).emitted == output("x")
    assert world.log == []


async def test_runs_go_on_side_by_side_and_are_proposed_as_they_end() -> None:
    stage = await Stage(Shop, "two_runs").begin()
    assert {type(message) for message in stage.emitted} == {m.Run, m.ProposeRunCompletion}
    assert world.log == ["charge 1", "charge 2"]
    stage.deliver(m.RunCompletion(2, m.Value(b'"b"')), m.RunCompletion(1, m.Value(b'"a"')))
    assert (await stage.settle()).emitted[4:] == output(["b", "a"])


async def test_a_runtime_may_store_a_result_while_it_is_proposed() -> None:
    stage = await Stage(Shop, "two_runs", store_runs=True).begin()
    assert stage.emitted[-2:] == output(["charged 2", "charged 1"])


async def test_functions_that_are_not_async_run_in_a_thread() -> None:
    stage = Stage(Shop, "hang_in_thread")
    stage.attempt.begin()
    await until(lambda: stage.attempt.executing == 1)
    assert stage.attempt.waiting is None
    assert not stage.attempt.suspend()
    world.thread_may_end.set()
    await until(lambda: stage.attempt.executing == 0)
    assert stage.last(m.ProposeRunCompletion).result != m.Value(b'"MainThread"')
    await stage.drop()


async def test_behind_a_closed_gate_commands_are_made_but_no_closure_starts() -> None:
    stage = Stage(Shop, "sell", 5, gated=True)
    stage.attempt.begin()
    await until(lambda: bool(stage.emitted))
    assert stage.emitted == [m.Run(1, "charge")]
    assert stage.attempt.waiting is None, "who waited here would wait for a completion that nobody gives"
    assert not stage.attempt.suspend()
    stage.attempt.open()
    await stage.settle()
    assert stage.emitted[1:] == [m.ProposeRunCompletion(1, m.Value(b'"charged 5"'))]
    await stage.drop()


async def test_what_still_executes_when_the_handler_returns_is_dropped() -> None:
    stage = Stage(Shop, "unawaited")
    stage.attempt.begin()
    await until(lambda: world.log == ["closure began"])
    stage.deliver(m.SleepCompletion(2, m.VOID))
    await stage.settle()
    assert stage.emitted[-2:] == output("returned")
    await until(lambda: world.log == ["closure began", "closure ended"])
    assert not any(isinstance(message, m.ProposeRunCompletion) for message in stage.emitted)


async def test_a_run_whose_handler_never_waits_is_not_executed() -> None:
    stage = await Stage(Shop, "never_started").begin()
    assert stage.emitted == [m.Run(1, "charge"), *output("returned")]
    assert world.log == []


@pytest.mark.parametrize("in_thread", [True, False])
async def test_nothing_durable_can_be_done_inside_a_closure(in_thread: bool) -> None:
    if in_thread:
        world.event.set()
    stage = Stage(Shop, "nested_commands", store_runs=True)
    stage.attempt.begin()
    await until(lambda: stage.ended)
    assert [type(message) for message in stage.emitted] == [m.Run, m.ProposeRunCompletion, m.Run, m.Error]
    assert "not for functions given to ctx.run" in stage.last(m.Error).message
