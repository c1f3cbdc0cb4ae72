"""Workflows: a run once for each key, and promises between it and the handlers beside it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from perdure import Endpoint, Retry, TerminalError, Workflow, WorkflowContext, WorkflowSharedContext, handler
from perdure.protocol.ids import format_id, workflow_id
from perdure.protocol.messages import (
    VOID,
    Call,
    CallCompletion,
    CompletePromise,
    CompletePromiseCompletion,
    Failure,
    GetPromise,
    GetPromiseCompletion,
    OneWayCall,
    Output,
    PeekPromise,
    PeekPromiseCompletion,
    SetState,
    Suspension,
    Value,
)
from runtime.core.lifecycle import CommandRefused
from runtime.store.restart import Restarted
from runtime.store.retention import keep_house
from tests.engine.conftest import OpenWorld
from tests.support.peers import DONE, Afar, Play, Request, ScriptedPeer, awaiting
from tests.support.world import World

ONE, TWO = Value(b"1"), Value(b"2")
LATE = Failure(409, "promise was already completed")
RUN_BEFORE = "the workflow method was already invoked"


class Flow(Workflow, retry=Retry(initial=timedelta(milliseconds=1))):
    """What it does is written in each test."""

    @handler
    async def run(self, ctx: WorkflowContext) -> int: ...  # type: ignore[empty-body]

    @handler
    async def look(self, ctx: WorkflowSharedContext) -> int: ...  # type: ignore[empty-body]


class FlowPlay(Play):
    APP = Endpoint(Afar, Flow)


@pytest.fixture
def play(open_world: OpenWorld, peer: ScriptedPeer) -> Play:
    return FlowPlay(open_world, peer)


async def by_handler(peer: ScriptedPeer, count: int = 2) -> dict[str, Request]:
    """The next requests, by the names of their handlers."""
    requests = [await peer.accepts() for _ in range(count)]
    return {request.path.rpartition("/")[2]: request for request in requests}


async def is_suspended(world: World) -> bool:
    return bool(await world.rows("SELECT FROM invocation WHERE status = 'suspended'"))


async def expire(world: World) -> None:
    """Let the time pass for which ended runs are remembered."""
    await world.rows("UPDATE idempotency SET expires_at = now() - interval '1 second' RETURNING 1")


# Once


async def test_a_run_has_the_id_that_its_key_gives_and_no_idempotency_key(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id = await world.send("Flow/a/run")
        assert id == format_id(workflow_id("Flow", "a"))
        run = await peer.accepts()
        assert run.start.idempotency_key is None
        run.say(*DONE)


async def test_a_second_send_of_a_run_is_the_first(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id = await world.send("Flow/a/run")
        assert await world.send("Flow/a/run") == id
        (await peer.accepts()).say(*DONE)
        await world.until_status(id, "completed")
        assert await world.send("Flow/a/run") == id
        other = await world.send("Flow/b/run")
        assert other != id
        (await peer.accepts()).say(*DONE)
        await world.until_status(other, "completed")
        assert len(peer.requests) == 2


async def test_a_second_call_of_a_run_is_refused_while_it_runs_and_after(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Flow/a/run"))
        run = await peer.accepts()
        with pytest.raises(TerminalError, match=RUN_BEFORE) as refused:
            await world.call("Flow/a/run")
        assert refused.value.code == 409
        run.say(*DONE)
        assert await call == 1
        with pytest.raises(TerminalError, match=RUN_BEFORE):
            await world.call("Flow/a/run")


async def test_a_handlers_second_call_of_a_run_is_refused_and_its_send_is_none(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        run_call = asyncio.create_task(world.call("Flow/a/run"))
        run = await peer.accepts()
        caller_call = asyncio.create_task(world.call("Afar/work"))
        caller = await peer.accepts()
        caller.say(OneWayCall("Flow", "run", b"", 1, key="a"), Call("Flow", "run", b"", 2, 3, key="a"))
        refused = await caller.hears(CallCompletion)
        assert refused.result == Failure(409, RUN_BEFORE)
        run.say(*DONE)
        await run_call
        caller.say(Call("Flow", "run", b"", 4, 5, key="a"))
        await caller.until(lambda: CallCompletion(5, Failure(409, RUN_BEFORE)) in caller.told)
        caller.say(*DONE)
        await caller_call
        assert len(peer.requests) == 2


async def test_a_run_takes_no_idempotency_key_and_needs_a_key(play: Play) -> None:
    async with play() as world:
        with pytest.raises(CommandRefused, match="takes no idempotency key"):
            await world.send("Flow/a/run", once="x")
        with pytest.raises(CommandRefused, match="'Flow' is a workflow: 'run' needs a key"):
            await world.send("Flow/run")


async def test_a_shared_handler_of_a_workflow_runs_before_during_and_after_the_run(
    play: Play, peer: ScriptedPeer
) -> None:
    async with play() as world:

        async def looks() -> None:
            call = asyncio.create_task(world.call("Flow/a/look", once=str(len(peer.requests))))
            (await peer.accepts()).say(*DONE)
            assert await call == 1

        await looks()
        run_call = asyncio.create_task(world.call("Flow/a/run"))
        run = await peer.accepts()
        await looks()
        run.say(*DONE)
        await run_call
        await looks()


@pytest.mark.parametrize("is_swept", [True, False])
async def test_a_run_begins_anew_and_clean_once_the_first_is_forgotten(
    play: Play, peer: ScriptedPeer, is_swept: bool
) -> None:
    async with play() as world:
        first = await world.send("Flow/a/run")
        run = await peer.accepts()
        run.say(SetState("n", ONE), CompletePromise("p", ONE, 1), *DONE)
        await world.until_status(first, "completed")
        assert await world.state("Flow", "a") == {"n": 1}
        world.accepted.clear()
        await expire(world)
        if is_swept:
            await keep_house(world.database)
            assert await world.state("Flow", "a") == {}
            assert not await world.rows("SELECT FROM promise")
        assert await world.send("Flow/a/run") == first
        run = await peer.accepts()
        assert not run.start.state_map
        run.say(PeekPromise("p", 1))
        assert (await run.hears(PeekPromiseCompletion)).result == VOID
        run.say(*DONE)
        await world.until_status(first, "completed")
        assert await world.state("Flow", "a") == {}


async def test_what_was_completed_before_the_run_stays_for_it(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        early = asyncio.create_task(world.call("Flow/a/look"))
        look = await peer.accepts()
        look.say(CompletePromise("p", ONE, 1))
        assert (await look.hears(CompletePromiseCompletion)).result == VOID
        look.say(*DONE)
        await early
        run_call = asyncio.create_task(world.call("Flow/a/run"))
        run = await peer.accepts()
        run.say(GetPromise("p", 1))
        assert (await run.hears(GetPromiseCompletion)).result == ONE
        run.say(*DONE)
        await run_call


async def test_a_run_cannot_be_restarted_as_another(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id = await world.send("Flow/a/run")
        (await peer.accepts()).say(*DONE)
        await world.until_status(id, "completed")
        assert await world.restart(id) == (Restarted.RUNS_ONCE, "")


# Promises


async def test_who_awaits_a_promise_hears_of_it_where_it_is_completed(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        calls = asyncio.gather(world.call("Flow/a/run"), world.call("Flow/a/look"), world.call("Flow/b/run"))
        requests = [await peer.accepts() for _ in range(3)]
        look = next(request for request in requests if request.path.endswith("look"))
        run = next(one for one in requests if one is not look and one.start.key == "a")
        other = next(one for one in requests if one.start.key == "b")
        for waiting in (run, other):
            waiting.say(GetPromise("p", 1), PeekPromise("p", 2))
            assert (await waiting.hears(PeekPromiseCompletion)).result == VOID
        look.say(CompletePromise("p", ONE, 1), CompletePromise("p", TWO, 2), PeekPromise("p", 3))
        assert await run.hears(GetPromiseCompletion) == GetPromiseCompletion(1, ONE)
        await look.hears(PeekPromiseCompletion)
        assert CompletePromiseCompletion(1, VOID) in look.told
        assert CompletePromiseCompletion(2, LATE) in look.told
        assert PeekPromiseCompletion(3, ONE) in look.told
        assert not any(isinstance(message, GetPromiseCompletion) for message in other.told), "it has another key"
        other.say(CompletePromise("p", TWO, 3))
        assert await other.hears(GetPromiseCompletion) == GetPromiseCompletion(1, TWO)
        for request in requests:
            request.say(*DONE)
        await calls


@pytest.mark.parametrize("result", [ONE, Failure(500, "rejected"), Value(b"")])
async def test_a_sleeper_is_woken_by_its_promise(play: Play, peer: ScriptedPeer, result: Value | Failure) -> None:
    async with play() as world:
        run_call = asyncio.create_task(world.call("Flow/a/run"))
        run = await peer.accepts()
        run.say(GetPromise("p", 1), GetPromise("q", 2), Suspension(awaiting(1)))
        await world.until(lambda: is_suspended(world))
        look_call = asyncio.create_task(world.call("Flow/a/look"))
        look = await peer.accepts()
        look.say(CompletePromise("q", TWO, 1), CompletePromise("p", result, 2), *DONE)
        await look_call
        again = await peer.accepts()
        told = again.replayed[3:]
        assert len(told) == 2
        assert GetPromiseCompletion(1, result) in told
        assert GetPromiseCompletion(2, TWO) in told
        again.say(*DONE)
        await run_call


async def test_a_promise_that_is_asked_for_and_slept_on_at_once_is_not_missed(play: Play, peer: ScriptedPeer) -> None:
    async with play(is_streaming=False) as world:
        look_call = asyncio.create_task(world.call("Flow/a/look"))
        (await peer.accepts()).say(CompletePromise("p", ONE, 1), *DONE)
        await look_call
        run_call = asyncio.create_task(world.call("Flow/a/run"))
        (await peer.accepts()).say(GetPromise("p", 1), Suspension(awaiting(1)))
        again = await peer.accepts()
        assert again.replayed[2:] == [GetPromiseCompletion(1, ONE)]
        again.say(*DONE)
        await run_call


async def test_of_many_that_complete_a_promise_one_wins(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        await world.start_engine(code=[play.code()])
        calls = asyncio.gather(*(world.call("Flow/a/look", once=str(n)) for n in range(8)))
        looks = [await peer.accepts() for _ in range(8)]
        for n, look in enumerate(looks):
            look.say(CompletePromise("p", Value(str(n).encode()), 1), GetPromise("p", 2))
        results = [(await look.hears(CompletePromiseCompletion)).result for look in looks]
        winner = results.index(VOID)
        assert results.count(LATE) == 7
        for look in looks:
            assert (await look.hears(GetPromiseCompletion)).result == Value(str(winner).encode())
            look.say(*DONE)
        await calls


async def test_a_promise_outlives_the_engine_of_who_awaits_it(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        run_call = asyncio.create_task(world.call("Flow/a/run"))
        run = await peer.accepts()
        run.say(GetPromise("p", 1), PeekPromise("q", 2))
        await run.hears(PeekPromiseCompletion)
        first = world.members[0]
        await world.start_engine(code=[play.code()])
        await first.kill()
        await world.bury(first)
        again = await peer.accepts()
        look_call = asyncio.create_task(world.call("Flow/a/look"))
        look = await peer.accepts()
        look.say(CompletePromise("p", ONE, 1), *DONE)
        assert await again.hears(GetPromiseCompletion) == GetPromiseCompletion(1, ONE)
        again.say(*DONE)
        await asyncio.gather(run_call, look_call)


async def test_who_has_ended_without_its_promise_is_told_nothing_and_forgotten(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Flow/a/look"))
        (await peer.accepts()).say(GetPromise("p", 1), *DONE)
        await call
        assert await world.rows("SELECT FROM promise_listener")
        run_call = asyncio.create_task(world.call("Flow/a/run"))
        run = await peer.accepts()
        run.say(GetPromise("q", 1), PeekPromise("r", 2))
        await run.hears(PeekPromiseCompletion)
        await keep_house(world.database)
        assert await world.rows("SELECT name FROM promise_listener") == [("q",)]
        assert await world.rows("SELECT name FROM promise") == [("q",)]
        run.say(CompletePromise("p", ONE, 3), CompletePromise("q", ONE, 4), *DONE)
        await run_call


async def test_a_purged_run_takes_its_promises_and_values_along(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id = await world.send("Flow/a/run")
        (await peer.accepts()).say(SetState("n", ONE), CompletePromise("p", ONE, 1), *DONE)
        await world.until_status(id, "completed")
        world.accepted.clear()
        await world.purge(id)
        assert await world.state("Flow", "a") == {}
        assert not await world.rows("SELECT FROM promise")
        assert await world.send("Flow/a/run") == id
        (await peer.accepts()).say(Output(ONE), DONE[-1])


@pytest.mark.parametrize(
    ("target", "command", "words"),
    [
        ("Afar/work", GetPromise("p", 1), "'Afar' is no workflow: 'work' has no promises"),
        ("Flow/a/look", PeekPromise("", 1), "must not be empty"),
        ("Flow/a/look", CompletePromise("p\0", ONE, 1), "must not hold a NUL"),
        ("Flow/a/look", SetState("n", ONE), "may not write state"),
    ],
)
@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_what_no_promise_can_be_asked_fails_the_attempt(
    play: Play, peer: ScriptedPeer, target: str, command: GetPromise, words: str
) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call(target))
        (await peer.accepts()).say(command)
        again = await peer.accepts()
        [(message,)] = await world.rows("SELECT failure->>'message' FROM invocation")
        assert words in message
        again.say(*DONE)
        await call
