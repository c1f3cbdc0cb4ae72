"""A cancelled invocation passes it on, may undo what it did, and may be asked again."""

from __future__ import annotations

from datetime import timedelta

from perdure import Cancelled, Context, Service, TerminalError, handler
from perdure.protocol import messages as m
from tests.sdk.support import CANCEL, Stage, output

SECOND = timedelta(seconds=1)
CANCELLED = [m.Output(m.Failure(409, "cancelled")), m.End()]


def passed_on(id: str) -> m.SendSignal:
    return m.SendSignal(id, 1, entry_name=m.PASSED_ON)


async def undo(what: str) -> str:
    return f"undone {what}"


class Trip(Service):
    @handler
    async def book(self, ctx: Context, what: str) -> str:
        return what

    @handler
    async def travel(self, ctx: Context) -> str:
        client = ctx.service_client(Trip)
        await client.book("done")
        ctx.service_send_client(Trip).book("sent")
        hotel, flight = client.book("hotel"), client.book("flight")
        return await hotel + await flight

    @handler
    async def compensate(self, ctx: Context) -> str:
        try:
            await ctx.sleep(SECOND)
        except Cancelled:
            await ctx.run("undo", undo, "hotel")
            raise
        return "not cancelled"

    @handler
    async def carry_on(self, ctx: Context) -> list[str]:
        seen: list[str] = []
        for _ in range(3):
            try:
                await ctx.sleep(SECOND)
                seen.append("slept")
            except TerminalError as error:
                seen.append(f"{error.code} {error.message}")
        return seen

    @handler
    async def cancel_other(self, ctx: Context, other: str) -> None:
        ctx.cancel(other)


async def test_unfinished_calls_are_cancelled_first_but_neither_finished_ones_nor_sends() -> None:
    stage = await Stage(Trip, "travel").begin()
    stage.deliver(m.CallCompletion(2, m.Value(b'"done"')))
    await stage.settle()
    stage.deliver(CANCEL)
    await stage.settle()
    signals = [message for message in stage.commands if isinstance(message, m.SendSignal)]
    assert signals == [passed_on("inv_1callee4"), passed_on("inv_1callee6")]
    assert stage.emitted[-2:] == CANCELLED


async def test_a_cancellation_waits_for_ids_that_are_not_known_yet() -> None:
    stage = await Stage(Trip, "travel", answer_ids=False).begin()
    stage.deliver(CANCEL)
    await stage.settle()
    assert stage.attempt.waiting == m.Wait((1,), (1,))
    call = stage.last(m.Call)
    stage.deliver(Stage.id_of(call))
    await stage.settle()
    assert stage.emitted[1:] == [passed_on("inv_1callee1"), *CANCELLED]


async def test_one_that_was_passed_on_without_a_name_replays() -> None:
    stage = await Stage(Trip, "travel").begin()
    stage.deliver(CANCEL)
    await stage.settle()
    assert passed_on("inv_1callee1") in stage.journal
    journal = [m.SendSignal("inv_1callee1", 1) if one == passed_on("inv_1callee1") else one for one in stage.journal]
    assert (await Stage(Trip, "travel", journal=journal).begin()).emitted == [m.End()]


async def test_compensation_is_durable() -> None:
    stage = await Stage(Trip, "compensate").begin()
    stage.deliver(CANCEL)
    await stage.settle()
    assert stage.emitted[1:] == [m.Run(2, "undo"), m.ProposeRunCompletion(2, m.Value(b'"undone hotel"'))]
    again = await Stage(Trip, "compensate", journal=stage.journal).begin()
    again.deliver(m.RunCompletion(2, m.Value(b'"undone hotel"')))
    await again.settle()
    assert again.emitted[1:] == CANCELLED
    await stage.drop()


async def test_each_cancellation_is_raised_once() -> None:
    stage = await Stage(Trip, "carry_on").begin()
    stage.deliver(CANCEL)
    await stage.settle()
    stage.deliver(CANCEL, m.SleepCompletion(3, m.VOID))
    await stage.settle()
    assert stage.emitted[-2:] == output(["409 cancelled", "409 cancelled", "slept"])


async def test_a_cancellation_in_the_journal_before_the_first_attempt_is_seen_at_the_first_await() -> None:
    stage = await Stage(Trip, "compensate", journal=[m.Input(), CANCEL]).begin()
    assert isinstance(stage.emitted[0], m.Sleep)
    assert isinstance(stage.emitted[1], m.Run)
    await stage.drop()


async def test_what_is_settled_already_is_not_interrupted() -> None:
    journal = [m.Input(), m.Sleep(1, 1), m.SleepCompletion(1, m.VOID), CANCEL]
    assert (await Stage(Trip, "compensate", journal=journal).begin()).emitted == output("not cancelled")


async def test_others_are_cancelled_by_their_id() -> None:
    stage = await Stage(Trip, "cancel_other", "inv_1other").begin()
    assert stage.emitted[0] == m.SendSignal("inv_1other", 1)
