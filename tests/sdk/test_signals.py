"""Awakeables and signals: what others say to a handler, in the same order in every replay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, Service, TerminalError, first, gather, handler
from perdure.protocol import messages as m
from perdure.protocol.ids import FIRST_AWAKEABLE, format_awakeable, format_id
from perdure.testing import AttemptFailed, Rehearsal
from tests.sdk.support import CANCEL, Stage, output

AWAKEABLE = format_awakeable(bytes(16), 20)
INVOCATION = format_id(bytes(16))
SECOND = timedelta(seconds=1)


class Desk(Service):
    @handler
    async def ask(self, ctx: Context) -> int:
        answer = ctx.awakeable(int)
        await ctx.run("ask", print, answer.id)
        return await answer

    @handler
    async def ask_twice(self, ctx: Context) -> list[str]:
        one, two = ctx.awakeable(str), ctx.awakeable(str)
        return [await two, await one]

    @handler
    async def ask_after_a_while(self, ctx: Context) -> int:
        await ctx.sleep(SECOND)
        return await ctx.awakeable(int)

    @handler
    async def approved(self, ctx: Context) -> str:
        try:
            return await ctx.awakeable(str)
        except TerminalError as error:
            return f"{error.code} {error.message}"

    @handler
    async def decide(self, ctx: Context, id: str) -> None:
        ctx.resolve_awakeable(id, {"by": "Mary"})
        ctx.resolve_awakeable(id, b"\xff")
        ctx.reject_awakeable(id, "no", code=410)

    @handler
    async def tell(self, ctx: Context, id: str) -> None:
        ctx.send_signal(id, "news", [1])
        ctx.send_signal(id, "news")

    @handler
    async def tell_too_much(self, ctx: Context, id: str) -> None:
        ctx.send_signal(id, "n" * 600, 1)

    @handler
    async def listen(self, ctx: Context) -> list[Any]:
        return [await ctx.signal("news", int), await ctx.signal("news", int)]

    @handler
    async def listen_late(self, ctx: Context) -> list[int]:
        await ctx.sleep(SECOND)
        return [await ctx.signal("news", int), await ctx.signal("news", int)]

    @handler
    async def listen_patiently(self, ctx: Context) -> list[int]:
        heard: list[int] = []
        while len(heard) < 2:
            try:
                heard.append(await first(ctx.signal("news", int), timeout=SECOND))
            except TimeoutError:
                heard.append(-1)
        return [*heard, await ctx.signal("news", int)]

    @handler
    async def listen_to_two(self, ctx: Context) -> list[Any]:
        good, bad = ctx.signal("good", str), ctx.signal("bad", str)
        race = first(good, bad)
        won = await race
        return [won, race.winner is good, await good, await bad]

    @handler
    async def listen_to_many(self, ctx: Context) -> list[int]:
        return list(await gather(ctx.signal("news", int), ctx.signal("news", int), ctx.awakeable(int)))


def value(content: bytes, signal: int | str = "news") -> m.Signal:
    return m.Signal(signal, m.Value(content))


def answer(content: bytes, number: int = FIRST_AWAKEABLE) -> m.Signal:
    return value(content, number)


async def played(handler: str, *notifications: m.Notification, argument: Any = None) -> Stage:
    """A handler that is told these things while it waits, and then replayed on its whole journal."""
    stage = Stage(Desk, handler, argument, store_runs=True)
    await stage.begin()
    for notification in notifications:
        stage.deliver(notification)
        await stage.settle()
    assert stage.ended
    again = Stage(Desk, handler, journal=stage.journal[:-1], answer_ids=False)
    await again.begin()
    assert again.emitted == stage.emitted[-2:], "a replay ends otherwise"
    return stage


async def test_an_awakeable_gives_what_somebody_answers() -> None:
    assert (await played("ask", answer(b"7"))).emitted[-2:] == output(7)


async def test_awakeables_are_numbered_by_invocation() -> None:
    stage = await played("ask_twice", answer(b'"a"'), answer(b'"b"', FIRST_AWAKEABLE + 1))
    assert stage.emitted == output(["b", "a"])


async def test_the_id_of_an_awakeable_is_the_invocations_and_its_number() -> None:
    heard: list[str] = []

    class Listener(Service):
        @handler
        async def listen(self, ctx: Context) -> None:
            heard.extend([ctx.awakeable().id, ctx.awakeable().id])

    await Stage(Listener, "listen", id=bytes(range(16))).begin()
    assert heard == [format_awakeable(bytes(range(16)), FIRST_AWAKEABLE + number) for number in range(2)]


async def test_an_awakeable_may_be_answered_before_it_is_asked_for() -> None:
    stage = await played("ask_after_a_while", answer(b"7"), m.SleepCompletion(1, m.VOID))
    assert stage.emitted[-2:] == output(7)


async def test_only_the_first_answer_to_an_awakeable_counts() -> None:
    stage = await played("ask_after_a_while", answer(b"7"), answer(b"8"), m.SleepCompletion(1, m.VOID))
    assert stage.emitted[-2:] == output(7)


async def test_a_rejected_awakeable_raises() -> None:
    stage = await played("approved", m.Signal(FIRST_AWAKEABLE, m.Failure(410, "gone")))
    assert stage.emitted == output("410 gone")


async def test_handlers_answer_awakeables() -> None:
    stage = await played("decide", argument=AWAKEABLE)
    assert stage.commands[:-1] == [
        m.CompleteAwakeable(AWAKEABLE, m.Value(b'{"by":"Mary"}')),
        m.CompleteAwakeable(AWAKEABLE, m.Value(b"\xff")),
        m.CompleteAwakeable(AWAKEABLE, m.Failure(410, "no")),
    ]


async def test_handlers_send_signals() -> None:
    stage = await played("tell", argument=INVOCATION)
    assert stage.commands[:-1] == [
        m.SendSignal(INVOCATION, "news", m.Value(b"[1]")),
        m.SendSignal(INVOCATION, "news", m.Value(b"null")),
    ]


async def test_a_signal_whose_name_is_too_long_is_not_sent() -> None:
    stage = await played("tell_too_much", argument=INVOCATION)
    assert stage.commands == [m.Output(m.Failure(413, "The name of a signal has 600 bytes, and may have 512."))]


async def test_each_signal_is_heard_once_and_in_order() -> None:
    assert (await played("listen", value(b"1"), value(b"2"))).emitted == output([1, 2])


async def test_signals_that_come_before_anybody_asks_are_kept_in_order() -> None:
    stage = await played("listen_late", value(b"1"), value(b"2"), m.SleepCompletion(1, m.VOID))
    assert stage.emitted[-2:] == output([1, 2])


async def test_who_has_lost_a_race_takes_no_signal_from_who_asks_next() -> None:
    stage = await played("listen_patiently", m.SleepCompletion(1, m.VOID), value(b"1"), value(b"2"))
    assert stage.emitted[-2:] == output([-1, 1, 2])


@pytest.mark.parametrize("order", ["good bad", "bad good"])
async def test_of_two_signals_the_first_to_come_wins(order: str) -> None:
    signals = [value(b'"g"', "good"), value(b'"b"', "bad")]
    stage = await played("listen_to_two", *(signals if order == "good bad" else reversed(signals)))
    assert stage.emitted == output(["g", True, "g", "b"] if order == "good bad" else ["b", False, "g", "b"])


async def test_signals_of_one_name_are_told_apart_in_a_gather() -> None:
    assert (await played("listen_to_many", value(b"1"), answer(b"3"), value(b"2"))).emitted == output([1, 2, 3])


async def test_a_suspension_says_which_signals_are_waited_for() -> None:
    stage = Stage(Desk, "listen_to_many")
    await stage.begin()
    stage.deliver(value(b"1"))
    stage.attempt.suspend()
    all_of_them = m.Wait(
        signals=(FIRST_AWAKEABLE,),
        named_signals=("news",),
        combinator=m.Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED,
    )
    assert stage.emitted == [m.Suspension(m.Wait(signals=(m.CANCEL_SIGNAL,), nested=(all_of_them,)))]
    await stage.drop()


@pytest.mark.parametrize(
    ("handler", "wait"),
    [
        ("approved", m.Wait(signals=(m.CANCEL_SIGNAL, FIRST_AWAKEABLE))),
        ("listen", m.Wait(signals=(m.CANCEL_SIGNAL,), named_signals=("news",))),
        ("listen_to_two", m.Wait(signals=(m.CANCEL_SIGNAL,), named_signals=("good", "bad"))),
    ],
)
async def test_a_single_wait_needs_no_tree(handler: str, wait: m.Wait) -> None:
    stage = Stage(Desk, handler)
    await stage.begin()
    stage.attempt.suspend()
    assert stage.emitted == [m.Suspension(wait)]
    await stage.drop()


async def test_a_cancellation_that_comes_first_is_heard_first() -> None:
    stage = await played("approved", CANCEL)
    assert stage.emitted == output("409 cancelled")


async def test_an_answer_that_comes_before_a_cancellation_counts() -> None:
    stage = Stage(Desk, "listen")
    await stage.begin()
    stage.deliver(value(b"1"), value(b"2"), CANCEL)
    await stage.settle()
    assert stage.emitted == output([1, 2])


@pytest.mark.parametrize("id", ["prom", "", None, 7])
async def test_what_is_no_id_at_all_is_refused_where_it_is_said(id: Any) -> None:
    class Teller(Service):
        @handler
        async def tell(self, ctx: Context) -> None:
            ctx.resolve_awakeable(id)

    with pytest.raises(AttemptFailed, match="not the id of an awakeable"):
        await Rehearsal(Teller.tell).play()


async def test_the_ids_of_other_runtimes_are_passed_on() -> None:
    class Teller(Service):
        @handler
        async def tell(self, ctx: Context) -> None:
            ctx.resolve_awakeable("sign_1AAAAAAAAAAABAQEBAQEBAQEBAQEBAQEBAAAAEQ")
            ctx.send_signal("inv_1gdJBtdVEcM942bjcDmb1c1khoaJe11Hbz", "go")

    await Rehearsal(Teller.tell).play()
