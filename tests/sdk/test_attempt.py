"""One attempt in the worker's process: what it emits, when it waits, and how it ends."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, SharedContext, TerminalError, VirtualObject, handler
from perdure.errors import ProtocolError, UnknownHandler
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol import messages as m
from perdure.protocol.target import Target
from tests.sdk.support import NOW, Stage, output, start, until


class World:
    """What the handlers of a test share with it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.event = asyncio.Event()
        self.thread_began = threading.Event()
        self.thread_may_end = threading.Event()
        self.thread_ended = threading.Event()


world: World


@pytest.fixture(autouse=True)
async def _world() -> None:
    global world
    world = World()


async def charge(amount: int) -> str:
    world.log.append(f"charge {amount}")
    return f"charged {amount}"


async def choose() -> bool:
    return world.event.is_set()


async def wait_for_event() -> str:
    world.log.append("closure began")
    try:
        await world.event.wait()
    finally:
        world.log.append("closure ended")
    return "done"


def wait_in_thread() -> str:
    world.thread_began.set()
    world.thread_may_end.wait(10)
    world.thread_ended.set()
    return threading.current_thread().name


class Shop(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello {name}"

    @handler
    async def nothing(self, ctx: Context) -> None:
        world.log.append("called")

    @handler
    async def polite(self, ctx: Context, name: str = "you") -> str:
        return f"Hello {name}"

    @handler
    async def echo(self, ctx: Context, content: bytes) -> bytes:
        return content

    @handler
    async def sell(self, ctx: Context, amount: int) -> str:
        return await ctx.run("charge", charge, amount)

    @handler
    async def two_runs(self, ctx: Context) -> list[str]:
        a, b = ctx.run("a", charge, 1), ctx.run("b", charge, 2)
        return [await b, await a]

    @handler
    async def hang(self, ctx: Context) -> str:
        try:
            return await ctx.run("hang", wait_for_event)
        finally:
            world.log.append("handler ended")
            ctx.service_send_client(Shop).nothing()

    @handler
    async def hang_in_thread(self, ctx: Context) -> str:
        return await ctx.run("hang", wait_in_thread)

    @handler
    async def unawaited(self, ctx: Context) -> str:
        ctx.run("hang", wait_for_event)
        await ctx.sleep(timedelta(seconds=1))
        return "returned"

    @handler
    async def never_started(self, ctx: Context) -> str:
        ctx.run("charge", charge, 1)
        return "returned"

    @handler
    async def sleep(self, ctx: Context) -> str:
        await ctx.sleep(timedelta(milliseconds=50))
        return "slept"

    @handler
    async def foreign(self, ctx: Context) -> str:
        await world.event.wait()
        await ctx.sleep(timedelta(seconds=1))
        return "both"

    @handler
    async def fail(self, ctx: Context) -> str:
        raise ValueError("on purpose")

    @handler
    async def refuse(self, ctx: Context) -> str:
        raise TerminalError("Sold out", code=410, metadata={"item": "shoe"})

    @handler
    async def unserialisable(self, ctx: Context) -> Any:
        return object()

    @handler
    async def stubborn(self, ctx: Context) -> str:
        while True:
            try:
                await ctx.sleep(timedelta(seconds=1))
                return "slept"
            except Exception:
                world.log.append("swallowed")

    @handler
    async def tasks(self, ctx: Context) -> None:
        await asyncio.gather(ctx.sleep(timedelta(1)), ctx.sleep(timedelta(2)))

    @handler
    async def nested_commands(self, ctx: Context) -> str:
        def in_thread() -> None:
            ctx.service_send_client(Shop).nothing()

        async def on_the_loop() -> None:
            ctx.service_send_client(Shop).nothing()

        if await ctx.run("choose", choose):
            await ctx.run("nested", in_thread)
        else:
            await ctx.run("nested", on_the_loop)
        return "done"

    @handler
    async def call(self, ctx: Context) -> str:
        call = ctx.service_client(Shop, idempotency_key="once", headers={"a": "b"}).greet("Ann")
        world.log.append(await call.invocation_id())
        return await call

    @handler
    async def send(self, ctx: Context) -> str:
        handle = ctx.object_send_client(Shelf, "shoes", delay=timedelta(seconds=5)).add(3)
        ctx.object_send_client(Shelf, "shoes", at=datetime.fromtimestamp(NOW + 7, UTC)).add(4)
        ctx.object_send_client("Elsewhere", "key").anything({"any": "thing"})
        return await handle.invocation_id()

    @handler
    async def by_name(self, ctx: Context) -> list[Any]:
        client = ctx.service_client("Elsewhere")
        return [await client.json([1]), (await client.octets(b"raw", returns=bytes)).decode(), await client.empty()]

    @handler
    async def look_around(self, ctx: Context) -> list[Any]:
        return [ctx.invocation_id, dict(ctx.headers), str(ctx.uuid()), ctx.random.random()]

    @handler
    async def clock(self, ctx: Context) -> str:
        return (await ctx.now()).isoformat()


class Shelf(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        count = (await ctx.get("count", int) or 0) + amount
        ctx.set("count", count)
        return count

    @handler
    async def tidy(self, ctx: ObjectContext) -> list[Any]:
        before = await ctx.keys()
        ctx.set("new", None)
        ctx.clear("old")
        middle = [await ctx.get("old"), await ctx.get("new", int), await ctx.keys()]
        ctx.clear_all()
        ctx.set("octets", b"\xff")
        return [before, middle, await ctx.keys(), ctx.key, list(await ctx.get("octets", bytes) or b"")]

    @handler(shared=True)
    async def look(self, ctx: SharedContext) -> int | None:
        return await ctx.get("count", int)

    @handler(shared=True)
    async def meddle(self, ctx: ObjectContext) -> None:
        ctx.set("count", 0)


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


# State ---------------------------------------------------------------------------------------------------------------


async def test_known_values_are_read_without_waiting_and_the_runtimes_map_is_left_alone() -> None:
    values = {"count": b"2"}
    stage = await Stage(Shelf, "add", 3, key="shoes", state_map=values).begin()
    read, write = m.GetEagerState("count", m.Value(b"2")), m.SetState("count", m.Value(b"5"))
    assert stage.emitted == [read, write, *output(5)]
    assert values == {"count": b"2"}


async def test_values_of_a_partial_state_are_asked_for() -> None:
    stage = await Stage(Shelf, "add", 3, key="shoes", partial_state=True).begin()
    assert stage.emitted == [m.GetLazyState("count", 1)]
    stage.deliver(m.GetLazyStateCompletion(1, m.Value(b"2")))
    assert (await stage.settle()).emitted[1:] == [m.SetState("count", m.Value(b"5")), *output(5)]


async def test_a_read_answered_lazily_once_may_be_answered_eagerly_in_a_replay() -> None:
    journal = [m.Input(m.Value(b"3")), m.GetLazyState("count", 1), m.GetLazyStateCompletion(1, m.Value(b"2"))]
    stage = await Stage(Shelf, "add", key="shoes", journal=journal, state_map={"count": b"9"}).begin()
    assert stage.emitted == [m.SetState("count", m.Value(b"5")), *output(5)]


async def test_own_writes_are_seen() -> None:
    stage = await Stage(Shelf, "tidy", key="k", state_map={"old": b"1", "rest": b"2"}).begin()
    seen = [["old", "rest"], [None, None, ["new", "rest"]], ["octets"], "k", [255]]
    assert stage.emitted[-2:] == output(seen)


async def test_a_shared_handler_reads_but_cannot_write() -> None:
    assert (await Stage(Shelf, "look", key="k", state_map={"count": b"4"}).begin()).emitted[-2:] == output(4)
    [error] = (await Stage(Shelf, "meddle", key="k").begin()).emitted
    assert isinstance(error, m.Error)
    assert "ctx.set changes the object, and a shared handler only reads" in error.message


# Closures ------------------------------------------------------------------------------------------------------------


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


# Waiting and ending --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("in_thread", [True, False])
async def test_nothing_durable_can_be_done_inside_a_closure(in_thread: bool) -> None:
    if in_thread:
        world.event.set()
    stage = Stage(Shop, "nested_commands", store_runs=True)
    stage.attempt.begin()
    await until(lambda: stage.ended)
    assert [type(message) for message in stage.emitted] == [m.Run, m.ProposeRunCompletion, m.Run, m.Error]
    assert "not for functions given to ctx.run" in stage.last(m.Error).message


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


async def test_a_sleep_keeps_the_time_of_its_first_attempt() -> None:
    journal = [m.Input(), m.Sleep(1, 1), m.SleepCompletion(1, m.VOID)]
    assert (await Stage(Shop, "sleep", journal=journal).begin()).emitted == output("slept")


# Others --------------------------------------------------------------------------------------------------------------


async def test_the_callees_id_may_arrive_while_the_call_is_emitted() -> None:
    stage = await Stage(Shop, "call").begin()
    headers = (m.Header("a", "b"),)
    assert stage.emitted == [m.Call("Shop", "greet", b'"Ann"', 1, 2, headers=headers, idempotency_key="once")]
    assert world.log == ["inv_1callee1"]
    stage.deliver(m.CallCompletion(2, m.Value(b'"Hi"')))
    assert (await stage.settle()).emitted[1:] == output("Hi")


async def test_an_answer_of_the_wrong_type_fails_the_attempt() -> None:
    stage = await Stage(Shop, "call").begin()
    stage.deliver(m.CallCompletion(2, m.Value(b"3")))
    assert "Expected `str`" in (await stage.settle()).last(m.Error).message


async def test_sends_have_their_time_and_need_no_await() -> None:
    stage = await Stage(Shop, "send").begin()
    now = round(NOW * 1000)
    assert stage.emitted == [
        m.OneWayCall("Shelf", "add", b"3", 1, invoke_time=now + 5000, key="shoes"),
        m.OneWayCall("Shelf", "add", b"4", 2, invoke_time=now + 7000, key="shoes"),
        m.OneWayCall("Elsewhere", "anything", b'{"any":"thing"}', 3, key="key"),
        *output("inv_1callee1"),
    ]


LONG_AGO = [
    datetime(1969, 7, 20, tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),  # in UTC no datetime can say it
]


@pytest.mark.parametrize("at", LONG_AGO)
async def test_a_time_before_all_times_is_due_now(at: datetime) -> None:
    class Late(Service):
        @handler
        async def do(self, ctx: Context) -> None:
            ctx.service_send_client(Shop, at=at).greet("Ann")
            ctx.object_send_client(Shelf, "shoes", at=at).add(3)

    emitted = (await Stage(Late, "do").begin()).emitted
    assert [message.invoke_time for message in emitted if isinstance(message, m.OneWayCall)] == [0, 0]
    assert isinstance(emitted[-1], m.End)


async def test_services_are_called_by_name_too() -> None:
    stage = await Stage(Shop, "by_name").begin()
    for id, content in ((2, b'{"a":1}'), (4, b"bytes"), (6, b"")):
        stage.deliver(m.CallCompletion(id, m.Value(content)))
        await stage.settle()
    assert [call.parameter for call in stage.commands if isinstance(call, m.Call)] == [b"[1]", b"raw", b""]
    assert stage.emitted[-2:] == output([{"a": 1}, "bytes", None])


async def test_chance_is_the_same_in_every_attempt_and_differs_between_invocations() -> None:
    def journal() -> list[m.Entry]:
        return [m.Input(headers=(m.Header("x-who", "Ann"),))]

    once, again, other = [
        (await Stage(Shop, "look_around", journal=journal(), random_seed=seed).begin()).emitted for seed in (7, 7, 8)
    ]
    assert once == again
    assert once != other
    assert b'["inv_1me",{"x-who":"Ann"}' in once[0].result.content  # type: ignore[attr-defined]


async def test_the_time_is_journaled() -> None:
    stage = await Stage(Shop, "clock").begin()
    assert stage.emitted[0] == m.Run(1, "now")
    stage.deliver(m.RunCompletion(1, m.Value(b'"2001-02-03T04:05:06Z"')))
    assert (await stage.settle()).emitted[-2:] == output("2001-02-03T04:05:06+00:00")


# Mistakes of authors -------------------------------------------------------------------------------------------------


MISTAKES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda ctx: ctx.object_client(Shelf, ""), "a text that is not empty"),
    (lambda ctx: ctx.object_client(Shelf, 3), "a text that is not empty"),
    (lambda ctx: ctx.object_client(Shop, "key"), "a VirtualObject, or its name"),
    (lambda ctx: ctx.service_client(Shelf), "a Service, or its name"),
    (lambda ctx: ctx.service_client(Shop, idempotency_key=""), "cannot be empty"),
    (lambda ctx: ctx.service_client(Shop).greet(), "takes one argument, name"),
    (lambda ctx: ctx.service_client(Shop).greet("a", "b"), "takes one argument, name"),
    (lambda ctx: ctx.service_client(Shop).greet(nmae="a"), "takes one argument, name"),
    (lambda ctx: ctx.service_client(Shop).nothing("a"), "takes nothing"),
    (lambda ctx: ctx.service_send_client(Shop, delay=timedelta(1), at=datetime.now(UTC)), "not both"),
    (lambda ctx: ctx.service_send_client(Shop, at=datetime(2030, 1, 1)), "time zone"),  # noqa: DTZ001
    (lambda ctx: ctx.run("charge", "charge"), "takes a function"),
    (lambda ctx: Shop.greet("Ann"), "through a client"),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
async def test_mistakes_are_said_in_words(mistake: Callable[[Any], Any], words: str) -> None:
    class Wrong(Service):
        @handler
        async def do(self, ctx: Context) -> None:
            mistake(ctx)

    [error] = (await Stage(Wrong, "do").begin()).emitted
    assert isinstance(error, m.Error)
    assert error.message.startswith("UsageError")
    assert words in error.message
