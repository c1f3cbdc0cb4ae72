"""Handlers behind HTTP: what the runtime tells them, what it makes of their words, and what it does not let them do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from perdure import TerminalError
from perdure.protocol.codec import encode
from perdure.protocol.messages import (
    CANCEL_SIGNAL,
    VOID,
    AwaitingOn,
    Call,
    CallCompletion,
    CallInvocationIdCompletion,
    Combinator,
    End,
    Error,
    Failure,
    GetLazyState,
    GetLazyStateCompletion,
    GetLazyStateKeys,
    GetLazyStateKeysCompletion,
    Input,
    Message,
    Output,
    ProposeRunCompletion,
    ProposeRunCompletionAck,
    Run,
    RunCompletion,
    SetState,
    Signal,
    Sleep,
    SleepCompletion,
    StateKeys,
    Suspension,
    Value,
    Wait,
)
from runtime.outbound.faults import ConnectionLost
from tests.support.disk import Disk
from tests.support.peers import DONE, Play, Request, ScriptedPeer, awaiting
from tests.support.world import World

RESULT = Value(b"7")
Misbehave = Callable[[Request], None]


@pytest.fixture(params=["streams", "requests"])
def is_streaming(request: pytest.FixtureRequest) -> bool:
    return str(request.param) == "streams"


async def test_a_handler_is_asked_for_with_its_input_and_its_answer_is_the_callers(
    play: Play, peer: ScriptedPeer, is_streaming: bool
) -> None:
    async with play(is_streaming=is_streaming) as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        assert request.path == "/invoke/Afar/work"
        assert request.headers["content-type"] == "application/vnd.restate.invocation.v7"
        assert request.headers["x-restate-invocation-id"] == request.start.debug_id
        assert [type(message) for message in request.replayed] == [Input]
        assert request.is_finished is not is_streaming
        request.say(*DONE)
        assert await call == 1
        assert request.is_finished, "else both sides wait for each other"


async def test_a_step_is_confirmed_when_it_is_durable(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Run(1, "side"), ProposeRunCompletion(1, RESULT))
        ack = await request.hears(ProposeRunCompletionAck)
        assert ack.completion_id == 1
        rows = await world.rows("SELECT count(*) FROM journal")
        assert rows == [(1,)], "it was told before it was stored"
        request.say(*DONE)
        assert await call == 1


async def test_before_version_7_the_result_of_a_step_comes_back_whole(play: Play, peer: ScriptedPeer) -> None:
    async with play(version=6) as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Run(1, "side"), ProposeRunCompletion(1, RESULT))
        assert (await request.hears(RunCompletion)).result == RESULT
        request.say(*DONE)
        await call


async def test_where_the_request_has_ended_the_next_attempt_follows_with_the_journal(
    play: Play, peer: ScriptedPeer
) -> None:
    async with play(is_streaming=False) as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Run(1, "side"), ProposeRunCompletion(1, RESULT), Suspension(awaiting(1)))
        again = await peer.accepts()
        assert again.start.known_entries == 3
        assert again.replayed[1:] == [Run(1, "side"), RunCompletion(1, RESULT)]
        assert (again.start.id, again.start.random_seed) == (request.start.id, request.start.random_seed)
        again.say(*DONE)
        assert await call == 1


async def test_a_sleeper_leaves_memory_and_comes_back(play: Play, peer: ScriptedPeer) -> None:
    async with play(is_streaming=False) as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        soon = now_ms() + 200
        request.say(Sleep(soon, 1), Suspension(awaiting(1)))
        again = await peer.accepts()
        assert again.replayed[1:] == [Sleep(soon, 1), SleepCompletion(1, VOID)]
        assert now_ms() >= soon
        again.say(*DONE)
        assert await call == 1


async def test_what_comes_while_a_stream_is_open_is_told_at_once(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Sleep(now_ms() + 50, 1), AwaitingOn(awaiting(1)))
        assert await request.hears(SleepCompletion) == SleepCompletion(1, VOID)
        request.say(*DONE)
        await call
        assert len(peer.requests) == 1


async def test_a_silent_stream_is_asked_to_suspend(play: Play, peer: ScriptedPeer, impatience: None) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Sleep(now_ms() + 400, 1), AwaitingOn(awaiting(1)))
        await request.until(lambda: request.is_finished)
        request.say(Suspension(awaiting(1)))
        await world.until(lambda: _has(world, "SELECT FROM invocation WHERE status = 'suspended'"))
        again = await peer.accepts()
        assert SleepCompletion(1, VOID) in again.replayed
        again.say(*DONE)
        await call


async def test_what_came_after_the_request_had_ended_is_in_the_next_attempt(
    play: Play, peer: ScriptedPeer, impatience: None
) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Sleep(now_ms() + 200, 1))
        await request.until(lambda: request.is_finished)
        await world.until(lambda: _has(world, "SELECT FROM journal WHERE first > 1"))
        request.say(Suspension(awaiting(1)))
        again = await peer.accepts()
        assert again.replayed[-1] == SleepCompletion(1, VOID)
        again.say(*DONE)
        await call


async def test_what_came_too_late_brings_back_who_waits_for_it_and_for_what_it_was_told(
    play: Play, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SDKs may name in what they wait for all what is there already."""
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Sleep(now_ms(), 1), Call("Box", "put", b"1", 2, 3, key="a"))
        callee = await peer.accepts()
        await request.hears(SleepCompletion)
        monkeypatch.setattr("runtime.engine.engine.HOT_WAIT", 0.0)
        await request.until(lambda: request.is_finished)
        callee.say(*DONE)
        await world.until(lambda: _has(world, "SELECT FROM done WHERE NOT EXISTS (SELECT FROM mail)"))
        request.say(Suspension(Wait((1, 3), combinator=Combinator.ALL_COMPLETED)))
        again = await peer.accepts()
        assert CallCompletion(3, Value(b"1")) in again.replayed
        again.say(*DONE)
        assert await call == 1


async def test_a_service_that_suspends_before_it_was_asked_to_is_not_left_with_what_it_may_not_have_heard(
    play: Play, peer: ScriptedPeer
) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Sleep(now_ms(), 1))
        await request.hears(SleepCompletion)  # as the service says, at the same time:
        request.say(Suspension(awaiting(1)))
        again = await peer.accepts()
        assert SleepCompletion(1, VOID) in again.replayed
        again.say(*DONE)
        assert await call == 1


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_a_service_that_was_asked_to_suspend_and_only_says_that_it_waits_is_given_up(
    play: Play, peer: ScriptedPeer, impatience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engine.memory.ABORT_MS", 500)
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        await request.until(lambda: request.is_finished)
        request.say(AwaitingOn(awaiting(1)))
        await request.until(lambda: request.is_reset)
        monkeypatch.setattr("runtime.engine.engine.HOT_WAIT", 60.0)  # the next one has all the time that it wants
        again = await peer.accepts()
        again.say(*DONE)
        assert await call == 1


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "lingers"])
async def test_after_its_last_word_a_service_ends_its_answer_or_is_broken_off(
    play: Play, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr("runtime.engine.remote.LINGER", 0.0)
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(*DONE)
        if ends:
            request.hang_up()
        assert await call == 1
        assert request.is_reset is not ends  # what has ended is remembered by nobody


class TestBetweenTwoAttempts:
    """The first has suspended for what is not durable yet: a moment in which there is none."""

    @pytest.fixture
    async def world(self, play: Play, peer: ScriptedPeer, disk: Disk) -> AsyncIterator[World]:
        async with play(is_streaming=False) as world:
            self.id = await world.send("Box/a/put")
            request = await peer.accepts()
            disk.hold()
            request.say(
                Run(1, "side"), ProposeRunCompletion(1, RESULT), SetState("n", Value(b"1")), Suspension(awaiting(1))
            )
            await world.until(disk.holds_something)
            yield world
            disk.release()

    async def ends(self, world: World, again: Request) -> None:
        assert [type(entry) for entry in again.replayed[1:4]] == [Run, RunCompletion, SetState]
        again.say(*DONE)
        assert await world.answer_of(self.id) == 1
        assert await world.state("Box", "a") == {"n": 1}
        await world.settle()
        assert not any((await world.leftovers()).values())

    async def test_killed(self, world: World, disk: Disk) -> None:
        await world.kill(self.id)
        disk.release()
        with pytest.raises(TerminalError, match="killed"):
            await world.answer_of(self.id)
        await world.settle()
        assert not any((await world.leftovers()).values())

    async def test_cancelled(self, world: World, peer: ScriptedPeer, disk: Disk) -> None:
        await world.cancel(self.id)
        disk.release()
        again = await peer.accepts()
        while Signal(CANCEL_SIGNAL) not in again.replayed:  # it came when this one had begun
            again.say(Suspension(Wait(signals=(CANCEL_SIGNAL,))))
            again = await peer.accepts()
        assert again.replayed.count(Signal(CANCEL_SIGNAL)) == 1
        await self.ends(world, again)

    async def test_paused_and_resumed(self, world: World, peer: ScriptedPeer, disk: Disk) -> None:
        await world.pause(self.id)
        disk.release()
        await world.until_status(self.id, "paused")
        begun = len(peer.requests)
        await world.resume(self.id)
        await world.until(lambda: _true(len(peer.requests) > begun))
        again = await peer.accepts()
        while again is not peer.requests[-1]:
            again = await peer.accepts()
        await self.ends(world, again)

    async def test_stopped(self, world: World, play: Play, peer: ScriptedPeer, disk: Disk) -> None:
        first = world.members[0]
        await world.start_engine(code=[play.code()])
        stopping = asyncio.create_task(first.stop())
        await asyncio.sleep(0)
        disk.release()
        await stopping
        await self.ends(world, await peer.accepts())

    async def test_drained(self, world: World, play: Play, peer: ScriptedPeer, disk: Disk) -> None:
        await world.start_engine(code=[play.code()])
        await world.drain(world.members[0])
        disk.release()
        await self.ends(world, await peer.accepts())

    async def test_its_engine_dies(self, world: World, play: Play, peer: ScriptedPeer, disk: Disk) -> None:
        first = world.members[0]
        await world.start_engine(code=[play.code()])
        await first.kill()
        disk.release()
        await world.bury(first)
        again = await peer.accepts()
        assert [type(entry) for entry in again.replayed] == [Input], "nothing was durable"
        again.say(Run(1, "side"), ProposeRunCompletion(1, RESULT), SetState("n", Value(b"1")), Suspension(awaiting(1)))
        await self.ends(world, await peer.accepts())


async def test_a_cancellation_reaches_an_open_stream_once(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id = await world.send("Afar/work")
        request = await peer.accepts()
        request.say(Sleep(now_ms() + 60_000, 1))
        await world.until(lambda: _has(world, "SELECT FROM journal"))
        await world.cancel(id)
        assert (await request.hears(Signal)).signal == CANCEL_SIGNAL
        request.say(Output(Failure(409, "cancelled")), End())
        with pytest.raises(TerminalError, match="cancelled"):
            await world.answer_of(id)
        assert sum(isinstance(message, Signal) for message in request.told) == 1


async def test_a_cancellation_that_was_heard_does_not_wake_who_waits_on(play: Play, peer: ScriptedPeer) -> None:
    async with play(is_streaming=False) as world:
        id = await world.send("Afar/work")
        request = await peer.accepts()
        request.say(Sleep(now_ms() + 60_000, 1), Suspension(awaiting(1)))
        await world.until(lambda: _has(world, "SELECT FROM invocation WHERE status = 'suspended'"))
        await world.cancel(id)
        again = await peer.accepts()
        assert again.replayed[-1] == Signal(CANCEL_SIGNAL)
        again.say(Sleep(now_ms() + 300, 2), Suspension(awaiting(2)))  # it tidies up first
        last = await peer.accepts()
        assert last.replayed[-1] == SleepCompletion(2, VOID), "it was asked again before anything had come"
        last.say(Output(Failure(409, "cancelled")), End())
        with pytest.raises(TerminalError, match="cancelled"):
            await world.answer_of(id)


async def test_the_id_of_a_callee_is_told_when_the_call_is_durable(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Call("Box", "put", b"", 1, 2, key="a"))
        await request.hears(CallInvocationIdCompletion)
        assert await _has(world, "SELECT FROM invocation WHERE service = 'Box'")
        callee = await peer.accepts()
        assert callee.start.key == "a"
        callee.say(SetState("n", Value(b"1")), *DONE)
        await request.until(lambda: len(request.told) == 4)
        request.say(*DONE)
        await call
        assert await world.rows("SELECT name, value FROM state") == [("n", b"1")]


async def test_killing_it_drops_its_stream(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id = await world.send("Afar/work")
        request = await peer.accepts()
        request.say(Run(1, "side"))
        await world.kill(id)
        await request.until(lambda: request.is_reset)
        with pytest.raises(TerminalError, match="killed"):
            await world.answer_of(id)
        request.say(ProposeRunCompletion(1, RESULT), *DONE)  # a zombie's words
        assert len(peer.requests) == 1


async def test_what_an_attempt_did_before_it_failed_is_kept(play: Play, peer: ScriptedPeer, is_streaming: bool) -> None:
    async with play(is_streaming=is_streaming) as world:
        call = asyncio.create_task(world.call("Box/a/put"))
        request = await peer.accepts()
        request.say(SetState("n", Value(b"1")), Run(1, "side"), ProposeRunCompletion(1, RESULT), Error(500, "Oh no"))
        again = await peer.accepts()
        assert again.replayed[1:] == [SetState("n", Value(b"1")), Run(1, "side"), RunCompletion(1, RESULT)]
        assert again.start.retry_count_since_last_stored_entry == 1
        assert again.start.state_map == {"n": b"1"}
        again.say(*DONE)
        assert await call == 1


async def test_a_step_without_a_result_is_left_to_a_new_attempt_and_not_waited_for(
    play: Play, peer: ScriptedPeer
) -> None:
    async with play(is_streaming=False) as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Run(1, "side"), Suspension(awaiting(1)))
        again = await peer.accepts()
        assert again.replayed[1:] == [Run(1, "side")]
        again.say(Suspension(awaiting(1)))  # again, and nothing done: that would go on for ever
        await world.until(
            lambda: _has(world, "SELECT FROM invocation WHERE failure->>'message' LIKE '%%not carry out%%'")
        )
        (await peer.accepts()).say(ProposeRunCompletion(1, RESULT), *DONE)
        assert await call == 1


async def test_an_engine_that_dies_leaves_its_attempt_to_another(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Box/a/put"))
        request = await peer.accepts()
        request.say(Run(1, "side"), ProposeRunCompletion(1, RESULT))
        await request.hears(ProposeRunCompletionAck)
        first = world.members[0]
        await world.start_engine(code=[play.code()])
        await first.kill()
        await world.bury(first)
        assert request.is_reset
        again = await peer.accepts()
        assert again.replayed[1:] == [Run(1, "side"), RunCompletion(1, RESULT)]
        again.say(*DONE)
        assert await call == 1


def _refuses(request: Request) -> None:
    request.answer(404)


def _is_not_the_service(request: Request) -> None:
    request.answer(content_type="text/html")


def _breaks_down(request: Request) -> None:
    request.break_down(ConnectionLost("The connection broke.", hint="Does it run?"))


def _says(*messages: Message) -> Misbehave:
    def say(request: Request) -> None:
        request.answer()
        request.say(*messages)

    return say


def _says_bytes(chunk: bytes) -> Misbehave:
    def say(request: Request) -> None:
        request.answer()
        request.say_bytes(chunk)

    return say


def _hangs_up(request: Request) -> None:
    request.answer()
    request.say_bytes(b"\0\3")
    request.hang_up()


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        (_refuses, "does not know Afar/work"),
        (_is_not_the_service, "Something else than the service answered"),
        (_breaks_down, "The connection broke. Does it run?"),
        (_hangs_up, "in the middle of a message"),
        (_says(Input(Value(b"1"))), "sent an Input"),
        (_says(SleepCompletion(1, VOID)), "sent a SleepCompletion"),
        (_says(Run(1, "a"), Run(1, "b")), "completion id 1 twice"),
        (_says(Run(0, "a")), "completion id 0"),
        (_says(ProposeRunCompletion(3, RESULT)), "the step 3, which is not open"),
        (_says(Run(1), ProposeRunCompletion(1, RESULT), ProposeRunCompletion(1, RESULT)), "the step 1, which is not"),
        (_says(Suspension(Wait())), "waits for nothing"),
        (_says(End()), "ended without a result"),
        (_says(SetState("n", Value(b"1"))), "may not write state"),
        (_says_bytes(b"<html>oh no</html>"), "does not keep to the protocol"),
        (_says_bytes(b"\x04\x00\0\0\xff\xff\xff\xff"), "longer than"),
    ],
)
@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_a_service_that_misbehaves_fails_its_own_attempt_in_words(
    play: Play, peer: ScriptedPeer, misbehave: Misbehave, words: str
) -> None:
    async with play() as world:
        call, bystander = asyncio.create_task(world.call("Afar/work")), asyncio.create_task(world.call("Box/a/put"))
        requests = {request.path: request for request in [await peer.next(), await peer.next()]}
        misbehave(requests["/invoke/Afar/work"])
        again = await peer.accepts()
        [(message,)] = await world.rows("SELECT failure->>'message' FROM invocation WHERE service = 'Afar'")
        assert words in message
        again.say(*DONE)
        assert await call == 1
        innocent = requests["/invoke/Box/put"]
        innocent.answer()
        innocent.say(*DONE)
        assert await bystander == 1


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_a_service_that_is_overrun_says_when_to_come_back(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        (await peer.next()).answer(503, retry_after="1")
        before = now_ms()
        again = await peer.accepts()
        assert now_ms() - before > 900
        again.say(*DONE)
        await call


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_what_follows_the_last_word_is_not_heard(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Box/a/put"))
        request = await peer.accepts()
        request.say(*DONE, SetState("n", Value(b"late")))
        request.say(Error(500, "late"))
        request.hang_up()
        assert await call == 1
        assert await world.rows("SELECT FROM state") == []


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_a_service_is_not_read_on_while_much_of_what_it_said_is_not_durable(
    play: Play, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engine.remote.MOST_BACKLOG", 1000)
    async with play() as world:
        call = asyncio.create_task(world.call("Box/a/put"))
        request = await peer.accepts()
        request.say(SetState("n", Value(bytes(2000))))
        assert request.acknowledged == 0
        await world.until(lambda: _acknowledged(request))
        request.say(*DONE)
        await call


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_a_service_with_a_long_journal_is_read_when_it_is_tried_again(
    play: Play, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engine.remote.MOST_BACKLOG", 1000)
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        request.say(Run(1, "side"), ProposeRunCompletion(1, Value(bytes(2000))), Error(500, "Oh no"))
        again = await peer.accepts()
        again.say_bytes(encode(Output(Value(b"1")))[:10])  # the rest of it comes when there is room for it
        assert again.acknowledged == 10
        again.say_bytes(encode(Output(Value(b"1")))[10:] + encode(End()))
        await call


async def _acknowledged(request: Request) -> bool:
    return request.acknowledged > 2000


async def _true(condition: bool) -> bool:
    return condition


async def _has(world: World, query: str) -> bool:
    return bool(await world.rows(query))


def now_ms() -> int:
    return int(time.time() * 1000)


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_values_that_were_not_told_are_asked_for(
    play: Play, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engine.remote_drive.values.told_at_first", lambda values, wanted: ({}, True))
    async with play() as world:
        call = asyncio.create_task(world.call("Box/a/put"))
        request = await peer.accepts()
        request.say(SetState("b", Value(b"1")), SetState("a", Value(b"2")))
        request.say(GetLazyState("a", 1), GetLazyState("c", 2), GetLazyStateKeys(3))
        await request.hears(GetLazyStateKeysCompletion)
        assert request.told[-3:] == [
            GetLazyStateCompletion(1, Value(b"2")),
            GetLazyStateCompletion(2, VOID),
            GetLazyStateKeysCompletion(3, StateKeys(("a", "b"))),
        ]
        request.say(*DONE)
        await call
        again = asyncio.create_task(world.call("Box/a/put"))
        request = await peer.accepts()
        assert request.start.partial_state
        assert request.start.state_map == {}
        request.say(GetLazyState("a", 1))
        assert (await request.hears(GetLazyStateCompletion)).result == Value(b"2")
        request.say(*DONE)
        await again


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_a_service_has_no_values_to_ask_for(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        (await peer.accepts()).say(GetLazyState("a", 1))
        again = await peer.accepts()
        [(message,)] = await world.rows("SELECT failure->>'message' FROM invocation")
        assert "has no state" in message
        again.say(*DONE)
        await call


async def test_who_waits_for_all_of_several_is_not_replayed_for_each(play: Play, peer: ScriptedPeer) -> None:
    both = Wait((1, 2), combinator=Combinator.ALL_COMPLETED)
    async with play(is_streaming=False) as world:
        call = asyncio.create_task(world.call("Afar/work"))
        request = await peer.accepts()
        soon = now_ms()
        sleeps = (Sleep(soon + 100, 1), Sleep(soon + 600, 2))
        request.say(*sleeps, Suspension(Wait(signals=(CANCEL_SIGNAL,), nested=(both,))))
        again = await peer.accepts()
        assert again.replayed[1:] == [*sleeps, SleepCompletion(1, VOID), SleepCompletion(2, VOID)]
        again.say(*DONE)
        await call
        assert len(peer.requests) == 2


async def test_a_cancellation_wakes_who_waits_for_all_of_several(play: Play, peer: ScriptedPeer) -> None:
    both = Wait((1, 2), combinator=Combinator.ALL_COMPLETED)
    async with play(is_streaming=False) as world:
        id = await world.send("Afar/work")
        request = await peer.accepts()
        late = now_ms() + 60_000
        request.say(Sleep(late, 1), Sleep(late, 2), Suspension(Wait(signals=(CANCEL_SIGNAL,), nested=(both,))))
        await world.until(lambda: _has(world, "SELECT FROM invocation WHERE status = 'suspended'"))
        await world.cancel(id)
        again = await peer.accepts()
        assert again.replayed[-1] == Signal(CANCEL_SIGNAL)
        again.say(*DONE)
        await world.answer_of(id)
        await world.sql.execute("DELETE FROM timer")
