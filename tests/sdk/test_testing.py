"""The rehearsal of a handler, as authors use it: on our own examples."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import perdure
from examples.checkout import Checkout, Order, Stock
from examples.communication import Front, Greeter, Mailbox
from examples.counter import Counter
from examples.dining import Anna, Bert
from examples.greeter import Greeter as SmallestGreeter
from examples.signup import Signup
from perdure import (
    Context,
    Retry,
    Service,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.protocol import messages as m
from perdure.testing import NEVER, AttemptFailed, Rehearsal

INVOCATION = "inv_10000000000000000000007"
ORDER = Order("o1", "shoe", 10)


async def test_a_handler_is_played_and_replayed() -> None:
    rehearsal = Rehearsal(SmallestGreeter.greet)
    assert await rehearsal.play("Ann") == "Hello Ann"
    await rehearsal.replay()


async def test_an_objects_values_are_given_and_seen() -> None:
    rehearsal = Rehearsal(Counter.add, key="a", state={"count": 2})
    assert await rehearsal.play(3) == 5
    assert rehearsal.value("count", int) == 5
    await rehearsal.replay()
    assert await Rehearsal(Counter.get, key="a").play() == 0


async def test_the_page_of_ways_to_speak() -> None:
    rehearsal = Rehearsal(Front.demo, answers={Greeter.greet: lambda name: f"Hello {name}", Mailbox.put: 4})
    answer = await rehearsal.play("Mary")
    assert answer.startswith("Hello Hi, letter 4, Mary was charged, later: inv_1")
    sends = [command for command in rehearsal.commands if isinstance(command, m.OneWayCall)]
    assert [(send.key, send.parameter) for send in sends] == [
        ("Mary", b'"Hi!"'),
        ("Mary", b'"Hi again!"'),
        ("", b'"Hi"'),
        ("Mary", b'"Hi at last!"'),
    ]
    await rehearsal.replay()


async def test_a_checkout_that_goes_well_undoes_nothing() -> None:
    rehearsal = Rehearsal(Checkout.buy, answers={Stock.reserve: 4})
    before = rehearsal.now
    assert await rehearsal.play(ORDER) == "payment-o1"
    assert rehearsal.now - before >= 30
    await rehearsal.replay()


@pytest.mark.parametrize(("cancel_after", "undone"), [(1, ["reserve"]), (3, ["reserve", "refund", "release"])])
async def test_a_cancelled_checkout_undoes_what_was_done_in_reverse(cancel_after: int, undone: list[str]) -> None:
    rehearsal = Rehearsal(Checkout.buy, answers={Stock.reserve: 4, Stock.release: None}, cancel_after=cancel_after)
    with pytest.raises(TerminalError, match="cancelled"):
        await rehearsal.play(ORDER)
    steps = [
        command.handler_name if isinstance(command, m.Call) else command.name
        for command in rehearsal.commands
        if isinstance(command, m.Call | m.Run)
    ]
    assert [step for step in steps if step != "charge"] == undone
    await rehearsal.replay()


async def test_a_checkout_of_what_is_sold_out_fails() -> None:
    with pytest.raises(TerminalError, match="shoe is sold out"):
        await Rehearsal(Stock.reserve, key="shoe").play()
    rehearsal = Rehearsal(Checkout.buy, answers={Stock.reserve: TerminalError("shoe is sold out", code=410)})
    with pytest.raises(TerminalError, match="sold out") as failed:
        await rehearsal.play(ORDER)
    assert failed.value.code == 410


async def test_philosophers_dine_when_the_other_answers() -> None:
    assert await Rehearsal(Anna.dine, key="t", answers={Bert.lend: "a fork"}).play() == "Anna dined with a fork"
    with pytest.raises(AssertionError, match="waits for what nobody gives"):
        await Rehearsal(Anna.dine, key="t", answers={Bert.lend: NEVER}).play()


class Odd(Service):
    """What the examples do not do."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    @handler
    async def flaky(self, ctx: Context) -> str:
        return await ctx.run("fail", self.fail_twice, retry=Retry(initial=timedelta(seconds=9)))

    failures = 0

    async def fail_twice(self) -> str:
        self.failures += 1
        if self.failures < 3:
            raise ConnectionError("not yet")
        return f"{self.prefix}{self.failures}"

    @handler
    async def coin(self, ctx: Context) -> int:
        global flips
        flips += 1
        if flips % 2:
            await ctx.sleep(timedelta(1))
        return flips

    @handler
    async def patient(self, ctx: Context) -> str:
        call = ctx.service_client("Elsewhere").anything("x")
        try:
            return str(await perdure.first(call, timeout=timedelta(minutes=1)))
        except perdure.TimeoutError:
            return "late"

    @handler
    async def slow_closure(self, ctx: Context) -> str:
        return await ctx.run("wait", self.turn)

    async def turn(self) -> str:
        await asyncio.to_thread(lambda: None)
        return "turned"


flips = 0


async def test_attempts_that_may_fail_are_tried_again_later() -> None:
    rehearsal = Rehearsal(Odd.flaky, service=Odd("after "), attempts=3)
    before = rehearsal.now
    assert await rehearsal.play() == "after 3"
    assert rehearsal.now - before == 27  # 9 and 18 seconds
    with pytest.raises(AttemptFailed, match="not yet"):
        await Rehearsal(Odd.flaky).play()


async def test_a_handler_that_is_not_deterministic_is_found_out() -> None:
    rehearsal = Rehearsal(Odd.coin)
    await rehearsal.play()
    with pytest.raises(AssertionError, match="A replay ends with"):
        await rehearsal.replay()


async def test_closures_that_take_time_are_waited_for() -> None:
    assert await Rehearsal(Odd.slow_closure).play() == "turned"


@pytest.mark.parametrize(("given", "expected"), [(NEVER, "late"), ("soon", "soon"), (lambda x: x * 2, "xx")])
async def test_services_known_by_name_are_answered_by_name(given: Any, expected: str) -> None:
    assert await Rehearsal(Odd.patient, answers={"Elsewhere/anything": given}).play() == expected


async def test_a_call_without_an_answer_is_said_in_words() -> None:
    with pytest.raises(AttemptFailed, match="calls Elsewhere/anything, for which there is no answer"):
        await Rehearsal(Odd.patient).play()


async def test_a_signup_that_is_confirmed_in_time() -> None:
    rehearsal = Rehearsal(Signup.run, key="mary", promises={"confirmed": "secret"})
    assert await rehearsal.play("mary@example.com")
    assert rehearsal.value("status") == "confirmed"
    await rehearsal.replay()


async def test_a_signup_that_nobody_confirms_ends_after_three_days() -> None:
    rehearsal = Rehearsal(Signup.run, key="mary")
    before = rehearsal.now
    assert not await rehearsal.play("mary@example.com")
    assert rehearsal.now - before == timedelta(days=3).total_seconds()
    assert rehearsal.value("status") == "too late"
    await rehearsal.replay()


@pytest.mark.parametrize(
    ("secret", "promises", "given"), [("s", {}, "s"), ("wrong", {}, None), ("s", {"confirmed": "earlier"}, "earlier")]
)
async def test_confirming_a_signup(secret: str, promises: dict[str, str], given: str | None) -> None:
    rehearsal = Rehearsal(Signup.confirm, key="mary", state={"secret": "s"}, promises=promises)
    assert await rehearsal.play(secret) == (secret == "s")
    assert rehearsal.promise("confirmed", str) == given
    await rehearsal.replay()


async def test_the_status_of_a_signup() -> None:
    assert await Rehearsal(Signup.status, key="mary").play() == "unknown"


class Told(Workflow):
    """Hears of others in every way."""

    @handler
    async def run(self, ctx: WorkflowContext) -> list[Any]:
        one, two = ctx.awakeable(int), ctx.awakeable(int)
        news = [await ctx.signal("news", str), await ctx.signal("news", str)]
        try:
            answers = [await two, await one]
        except TerminalError as error:
            answers = [error.code]
        return [news, answers]

    @handler
    async def promises(self, ctx: WorkflowSharedContext) -> list[Any]:
        promise = ctx.promise("once", int)
        waiting = promise.get()
        seen: list[Any] = [await promise.peek()]
        await promise.resolve(3)
        try:
            await promise.resolve(4)
        except TerminalError as error:
            seen.append(error.code)
        return [*seen, await waiting, await promise, await promise.peek()]

    @handler
    async def refuses(self, ctx: WorkflowSharedContext) -> str:
        ctx.promise("once").reject("no", code=410)
        try:
            await ctx.promise("once")
        except TerminalError as error:
            return f"{error.code} {error.message}"
        return "given"

    @handler
    async def others(self, ctx: WorkflowSharedContext, id: str) -> list[Any]:
        before = await ctx.output(id, int)
        return [before, await ctx.attach(id, int), await ctx.attach(Told.run, key="other")]


async def test_signals_and_awakeables_are_said_when_the_handler_waits() -> None:
    rehearsal = Rehearsal(Told.run, key="k", signals={"news": ["good", "bad"]}, awakeables=[1, 2])
    assert await rehearsal.play() == [["good", "bad"], [2, 1]]
    await rehearsal.replay()


async def test_an_awakeable_may_be_rejected() -> None:
    said = [NEVER, TerminalError("no", code=410)]
    rehearsal = Rehearsal(Told.run, key="k", signals={"news": ["good", "bad"]}, awakeables=said)
    assert await rehearsal.play() == [["good", "bad"], [410]]
    await rehearsal.replay()


async def test_a_signal_that_nobody_sends_is_an_error() -> None:
    with pytest.raises(AssertionError, match="waits for what nobody gives"):
        await Rehearsal(Told.run, key="k", signals={"news": ["good"]}).play()


async def test_a_promise_is_given_once() -> None:
    rehearsal = Rehearsal(Told.promises, key="k")
    assert await rehearsal.play() == [None, 409, 3, 3, 3]
    assert rehearsal.promise("once") == 3
    await rehearsal.replay()


async def test_a_promise_may_be_rejected() -> None:
    rehearsal = Rehearsal(Told.refuses, key="k")
    assert await rehearsal.play() == "410 no"
    with pytest.raises(TerminalError, match="no"):
        rehearsal.promise("once")
    await rehearsal.replay()


async def test_who_attaches_hears_what_is_answered() -> None:
    rehearsal = Rehearsal(Told.others, key="k", answers={INVOCATION: 7, Told.run: ["done"]})
    assert await rehearsal.play(INVOCATION) == [7, 7, ["done"]]
    await rehearsal.replay()


async def test_attaching_to_somebody_who_never_ends_waits_for_ever() -> None:
    rehearsal = Rehearsal(Told.others, key="k", answers={INVOCATION: NEVER})
    with pytest.raises(AssertionError, match="waits for what nobody gives"):
        await rehearsal.play(INVOCATION)
    assert m.GetInvocationOutputCompletion(1, m.VOID) in rehearsal.entries
