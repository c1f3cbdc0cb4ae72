"""Sends: durable without an await, in order, and when they are due."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, TerminalError, VirtualObject, handler
from perdure.protocol.ids import parse_id
from runtime import rescheduling
from runtime.engine import timers
from runtime.store.scheduled import Word
from tests.engine.conftest import OpenWorld
from tests.support.world import TESTER, Gate, World


class Mailbox(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, text: str) -> None:
        letters = await ctx.get("letters", list[str]) or []
        ctx.set("letters", [*letters, text])
        ctx.set("at", time.time())

    @handler
    async def count(self, ctx: ObjectContext) -> int:
        return len(await ctx.get("letters", list[str]) or [])


class Sender(Service):
    @handler
    async def send(self, ctx: Context, texts: list[str]) -> None:
        for text in texts:
            ctx.object_send_client(Mailbox, "Mary").put(text)

    @handler
    async def send_and_fail(self, ctx: Context, text: str) -> None:
        ctx.object_send_client(Mailbox, "Mary").put(text)
        raise TerminalError("after all")

    @handler
    async def send_and_count(self, ctx: Context, texts: list[str]) -> list[int]:
        counts = []
        mary = ctx.object_client(Mailbox, "Mary")
        for text in texts:
            ctx.object_send_client(Mailbox, "Mary").put(text)
            counts.append(await mary.count())
        return counts

    @handler
    async def tell_id(self, ctx: Context, text: str) -> str:
        return await ctx.object_send_client(Mailbox, "Mary").put(text).invocation_id()

    @handler
    async def send_later(self, ctx: Context, seconds: float) -> None:
        ctx.object_send_client(Mailbox, "Mary", delay=timedelta(seconds=seconds)).put("later")

    @handler
    async def send_at(self, ctx: Context, at: float) -> None:
        ctx.object_send_client(Mailbox, "Mary", at=datetime.fromtimestamp(at, UTC)).put("then")

    @handler
    async def send_for_one_moment(self, ctx: Context, texts: list[str]) -> None:
        then = datetime.fromtimestamp(await ctx.run("then", lambda: time.time() + 0.5), UTC)
        for text in texts:
            ctx.object_send_client(Mailbox, "Mary", at=then, idempotency_key=text).put(text)


app = Endpoint(Mailbox, Sender)
senders, mailboxes = Endpoint(Sender), Endpoint(Mailbox)


async def letters(world: World, wanted: int) -> list[str]:
    """Mary's letters, as soon as she has so many."""

    async def there_are() -> list[str] | None:
        found: list[str] = (await world.state("Mailbox", "Mary")).get("letters", [])
        return found if len(found) >= wanted else None

    found: list[str] = await world.until(there_are)
    return found


def in_milliseconds(later: float) -> int:
    return int((time.time() + later) * 1000)


async def test_sends_of_one_handler_arrive_in_order(open_world: OpenWorld) -> None:
    texts = [str(n) for n in range(50)]
    async with open_world(senders, mailboxes) as world:
        await world.call("Sender/send", texts)
        assert await letters(world, 50) == texts


async def test_sends_and_calls_of_one_handler_arrive_in_order(open_world: OpenWorld) -> None:
    async with open_world(senders, mailboxes) as world:
        assert await world.call("Sender/send_and_count", ["a", "b", "c", "d"]) == [1, 2, 3, 4]


async def test_sends_of_one_caller_arrive_in_order(open_world: OpenWorld) -> None:
    texts = [str(n) for n in range(30)]
    async with open_world(app, app) as world:
        for text in texts:
            await world.send("Mailbox/Mary/put", text)
        assert await letters(world, 30) == texts


async def test_what_was_sent_goes_on_when_its_sender_fails(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        with pytest.raises(TerminalError, match="after all"):
            await world.call("Sender/send_and_fail", "kept")
        assert await letters(world, 1) == ["kept"]


async def test_a_sender_does_not_wait_for_the_receiver(open_world: OpenWorld) -> None:
    gate = Gate()

    class Slow(Service):
        @handler
        async def wait(self, ctx: Context) -> None:
            await ctx.run("wait", gate.wait)

        @handler
        async def send(self, ctx: Context) -> str:
            ctx.service_send_client(Slow).wait()
            return "sent"

    async with open_world(Endpoint(Slow)) as world:
        assert await world.call("Slow/send") == "sent"
        await gate.reached()
        gate.open()


async def test_a_send_tells_the_id_of_what_it_starts(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.call("Sender/tell_id", "Hi")
        assert await world.outcome(id) == "succeeded"
        assert await letters(world, 1) == ["Hi"]


async def test_a_delayed_send_of_a_handler_comes_late_and_not_early(open_world: OpenWorld) -> None:
    async with open_world(senders, mailboxes) as world:
        sent_at = time.time()
        await world.call("Sender/send_later", 0.4)
        assert await world.state("Mailbox", "Mary") == {}
        assert await letters(world, 1) == ["later"]
        assert (await world.state("Mailbox", "Mary"))["at"] >= sent_at + 0.4


async def test_a_send_to_a_time_comes_then(open_world: OpenWorld) -> None:
    async with open_world(senders, mailboxes) as world:
        then = time.time() + 0.4
        await world.call("Sender/send_at", then)
        assert await letters(world, 1) == ["then"]
        assert (await world.state("Mailbox", "Mary"))["at"] >= then


async def test_delayed_sends_run_in_the_order_in_which_they_are_due(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        due = in_milliseconds(0.4)
        for n in (3, 1, 4, 0, 2):
            await world.send("Mailbox/Mary/put", str(n), due=due + n)
        assert await letters(world, 5) == ["0", "1", "2", "3", "4"]


async def test_sends_for_one_moment_arrive_in_the_order_of_sending(open_world: OpenWorld) -> None:
    texts = [str(nth) for nth in range(50)]
    async with open_world(senders, mailboxes) as world:
        await world.call("Sender/send_for_one_moment", texts)
        assert await letters(world, len(texts)) == texts


async def test_a_delayed_send_takes_its_place_when_it_is_due(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await world.send("Mailbox/Mary/put", "sent first", due=in_milliseconds(0.3))
        await world.send("Mailbox/Mary/put", "sent second")
        assert await letters(world, 2) == ["sent second", "sent first"]


async def test_what_is_due_is_begun_by_another_engine_when_the_senders_is_gone(open_world: OpenWorld) -> None:
    async with open_world(senders, mailboxes) as world:
        await world.call("Sender/send_later", 0.3)
        await world.members[0].kill()
        assert await letters(world, 1) == ["later"]


async def test_a_due_time_long_past_is_now(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await world.send("Mailbox/Mary/put", "late", due=1)
        assert await letters(world, 1) == ["late"]


async def test_a_due_time_beyond_all_calendars_is_far_away_and_can_be_cancelled(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        id = await world.send("Mailbox/Mary/put", "never", due=9_400_000_000_000_000)
        assert await world.status(id) == "scheduled"
        await world.cancel(id)
        assert await world.outcome(id) == "cancelled"


async def test_a_thousand_sends_due_together_all_run_and_none_early(open_world: OpenWorld) -> None:
    began: list[float] = []

    class Alarm(Service):
        @handler
        async def ring(self, ctx: Context, n: int) -> None:
            began.append(time.time())

    async with open_world(Endpoint(Alarm), Endpoint(Alarm)) as world:
        due = in_milliseconds(1.0)
        await asyncio.gather(*(world.send("Alarm/ring", n, due=due) for n in range(1000)))
        await world.settle()
    assert len(began) == 1000
    assert min(began) >= due / 1000


async def test_one_that_is_due_in_a_moment_begins_then_with_a_hint_or_at_the_next_look(
    open_world: OpenWorld, wake_ups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "POLL", 3600.0 if wake_ups == "hints" else 0.03)
    async with open_world(app) as world:
        due = int(time.time() * 1000) + 100
        await world.answer_of(await world.send("Mailbox/Mary/put", "1", due=due))
        assert (await world.state("Mailbox", "Mary"))["at"] * 1000 >= due


# Moved


async def test_one_that_is_told_to_begins_now_with_a_hint_or_at_the_next_look(
    open_world: OpenWorld, wake_ups: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "POLL", 3600.0 if wake_ups == "hints" else 0.03)
    async with open_world(app) as world:
        tomorrow = int(time.time() * 1000) + 86_400_000
        first = await world.send("Mailbox/Mary/put", "1", due=tomorrow)
        second = await world.send("Mailbox/Mary/put", "2", due=tomorrow)
        for id in (second, first):
            came = await rescheduling.move(world.operations, [parse_id(id)], rescheduling.NOW, TESTER)
            assert came.words == {parse_id(id): Word.DONE}
            await world.answer_of(id)
        assert (await world.state("Mailbox", "Mary"))["letters"] == ["2", "1"]


async def test_taken_back_while_they_become_due_each_is_either_cancelled_or_begun(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        due = int(time.time() * 1000) + 1_500
        ids = await asyncio.gather(*(world.send("Mailbox/Mary/put", str(n), due=due + n) for n in range(200)))
        words: dict[bytes, Word] = {}
        for n in range(20):
            part = [parse_id(id) for id in ids[n::20]]
            words |= (await rescheduling.cancel(world.operations, part, TESTER)).words
            await asyncio.sleep(max(0.0, due / 1000 + n * 0.01 - time.time()))
        assert Word.DONE in words.values()
        outcomes = {id: await world.outcome(id) for id in ids}
        assert outcomes == {id: "cancelled" if words[parse_id(id)] is Word.DONE else "succeeded" for id in ids}
