"""gather, first and time-outs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import perdure
from perdure import Context, DurableFuture, Service, handler
from perdure.protocol import messages as m
from tests.sdk.support import CANCEL, Stage, output

SECOND = timedelta(seconds=1)
ALL = m.Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED


class Together(Service):
    @handler
    async def call(self, ctx: Context, number: int) -> int:
        return number

    @handler
    async def both(self, ctx: Context) -> list[int]:
        return list(await perdure.gather(*self.calls(ctx, 2)))

    @handler
    async def none(self, ctx: Context) -> list[Any]:
        nothing: list[DurableFuture[int]] = []
        return list(await perdure.gather(*nothing, timeout=SECOND))

    @handler
    async def race(self, ctx: Context) -> list[int]:
        a, b = self.calls(ctx, 2)
        race = perdure.first(a, b)
        assert race.winner is None
        value = await race
        return [value, [a, b].index(race.winner), [a, b].index(await self.late(a, b))]  # type: ignore[arg-type]

    async def late(self, a: DurableFuture[int], b: DurableFuture[int]) -> DurableFuture[int] | None:
        """Both are settled by now: the first named wins."""
        await perdure.gather(a, b)
        race = perdure.first(b, a)
        assert race.done
        await race
        return race.winner

    @handler
    async def first_of_nothing(self, ctx: Context) -> None:
        await perdure.first()

    @handler
    async def limited(self, ctx: Context) -> list[Any]:
        call = self.calls(ctx, 1)[0]
        race = perdure.first(call, timeout=SECOND)
        try:
            return ["in time", await race, race.winner is call]
        except TimeoutError as error:
            assert isinstance(error, perdure.TimeoutError)
            return ["late", race.winner is call, await call]

    @handler
    async def unhandled_timeout(self, ctx: Context) -> None:
        await perdure.gather(*self.calls(ctx, 2), timeout=SECOND)

    @handler
    async def nested(self, ctx: Context) -> list[Any]:
        a, b, c = self.calls(ctx, 3)
        value = await perdure.gather(perdure.first(a, b), c, perdure.first(ctx.sleep(SECOND), timeout=2 * SECOND))
        return list(value)

    @handler
    async def pieces(self, ctx: Context) -> list[int]:
        left, seen = self.calls(ctx, 3), list[int]()
        while left:
            seen.append(await perdure.first(*left))
            left = [call for call in left if not call.done]
        return seen

    @handler
    async def twice(self, ctx: Context) -> list[Any]:
        call = self.calls(ctx, 1)[0]
        a, b = await perdure.gather(call, call)
        return [a, b, await call]

    def calls(self, ctx: Context, count: int) -> list[perdure.CallFuture[int]]:
        return [ctx.service_client(Together).call(number) for number in range(count)]


def answer(id: int, value: int) -> m.CallCompletion:
    return m.CallCompletion(id, m.Value(str(value).encode()))


def refusal(id: int) -> m.CallCompletion:
    return m.CallCompletion(id, m.Failure(410, "gone"))


async def ended(handler: str, *notifications: m.Notification) -> Stage:
    """What a handler does when it is told this, one at a time."""
    stage = await Stage(Together, handler).begin()
    for notification in notifications:
        stage.deliver(notification)
        await stage.settle()
    return stage


async def test_gather_waits_for_all_and_keeps_the_order() -> None:
    stage = await Stage(Together, "both").begin()
    assert stage.attempt.waiting == m.Wait(signals=(1,), nested=(m.Wait((2, 4), combinator=ALL),))
    stage.deliver(answer(4, 20))
    assert stage.attempt.waiting == m.Wait(signals=(1,), nested=(m.Wait((2,), combinator=ALL),))
    stage.deliver(answer(2, 10))
    assert (await stage.settle()).emitted[2:] == output([10, 20])


async def test_gather_raises_the_first_failure_at_once() -> None:
    stage = await ended("both", refusal(4))
    assert stage.emitted[2:] == [m.Output(m.Failure(410, "gone")), m.End()]


async def test_gather_of_nothing_is_there_at_once() -> None:
    assert (await Stage(Together, "none").begin()).emitted == output([])


async def test_the_first_of_a_race_wins() -> None:
    stage = await ended("race", answer(4, 20), answer(2, 10))
    assert stage.emitted[2:] == output([20, 1, 1])


async def test_a_race_between_nobody_is_a_mistake() -> None:
    assert "something to wait for" in (await Stage(Together, "first_of_nothing").begin()).last(m.Error).message


async def test_a_time_out_is_a_durable_sleep() -> None:
    stage = await Stage(Together, "limited").begin()
    assert isinstance(stage.emitted[1], m.Sleep)
    assert stage.attempt.waiting == m.Wait((2, 3), (1,))
    stage.deliver(m.SleepCompletion(3, m.VOID), answer(2, 10))
    assert (await stage.settle()).emitted[2:] == output(["late", False, 10])


async def test_what_comes_in_time_is_not_timed_out() -> None:
    stage = await ended("limited", answer(2, 10))
    assert stage.emitted[2:] == output(["in time", 10, True])


async def test_a_time_out_that_nobody_catches_ends_the_invocation() -> None:
    stage = await ended("unhandled_timeout", answer(2, 10), m.SleepCompletion(5, m.VOID))
    assert stage.emitted[3:] == [m.Output(m.Failure(408, "The time-out ran out first")), m.End()]


async def test_combinators_nest() -> None:
    stage = await Stage(Together, "nested").begin()
    wait = stage.attempt.waiting
    race = m.Wait((2, 4))
    limited = m.Wait((7, 8), combinator=m.Combinator.UNKNOWN)
    assert wait == m.Wait(signals=(1,), nested=(m.Wait((6,), nested=(race, limited), combinator=ALL),))
    for notification in (answer(4, 20), answer(6, 30), answer(2, 10), m.SleepCompletion(7, m.VOID)):
        stage.deliver(notification)
    assert (await stage.settle()).emitted[5:] == output([20, 30, None])


async def test_one_may_take_them_as_they_come() -> None:
    stage = await ended("pieces", answer(4, 2), answer(6, 3), answer(2, 1))
    assert stage.emitted[3:] == output([2, 3, 1])


async def test_a_future_may_be_awaited_more_than_once() -> None:
    assert (await ended("twice", answer(2, 1))).emitted[1:] == output([1, 1, 1])


@pytest.mark.parametrize("order", [(4, 2), (2, 4)])
async def test_a_race_has_the_same_winner_in_every_replay(order: tuple[int, int]) -> None:
    stage = await Stage(Together, "race").begin()
    stage.deliver(*[answer(id, id) for id in order])
    await stage.settle()
    again = await Stage(Together, "race", journal=stage.journal[:-1]).begin()
    assert again.emitted == stage.emitted[2:]


async def test_a_cancellation_ends_a_wait_for_many() -> None:
    stage = await ended("both", answer(2, 10), CANCEL)
    assert stage.emitted[2:] == [
        m.SendSignal("inv_1callee3", 1, entry_name=m.PASSED_ON),
        m.Output(m.Failure(409, "cancelled")),
        m.End(),
    ]
