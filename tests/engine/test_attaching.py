"""Attaching: an invocation learns how another ends, whichever of the two comes first, and whatever dies meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from perdure.protocol.ids import format_id
from perdure.protocol.messages import (
    CANCEL_SIGNAL,
    VOID,
    AttachInvocation,
    AttachInvocationCompletion,
    AttachTarget,
    End,
    Failure,
    GetInvocationOutput,
    GetInvocationOutputCompletion,
    IdempotentRequestTarget,
    InvocationTarget,
    Output,
    Suspension,
    Value,
    Wait,
    WorkflowTarget,
)
from tests.support.peers import DONE, Play, Request, ScriptedPeer, awaiting
from tests.support.world import World

UNKNOWN = InvocationTarget(format_id(bytes(16)))


async def target(world: World, peer: ScriptedPeer, *, once: str | None = None) -> tuple[str, Request]:
    id = await world.send("Box/a/put", once=once)
    return id, await peer.accepts()


async def test_it_is_told_of_the_end_when_that_comes(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id, other = await target(world, peer)
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        asks.say(AttachInvocation(InvocationTarget(id), 1))
        await world.until(lambda: _rows(world, "SELECT FROM waiter"))
        other.say(*DONE)
        assert await asks.hears(AttachInvocationCompletion) == AttachInvocationCompletion(1, Value(b"1"))
        asks.say(*DONE)
        await call


async def test_a_sleeper_is_woken_by_the_end_that_it_waits_for(play: Play, peer: ScriptedPeer) -> None:
    async with play(is_streaming=False) as world:
        id, other = await target(world, peer)
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        asks.say(AttachInvocation(InvocationTarget(id), 1), Suspension(awaiting(1)))
        await world.until(lambda: _rows(world, "SELECT FROM invocation WHERE status = 'suspended'"))
        other.say(Output(Failure(418, "no")), End())
        again = await peer.accepts()
        assert again.replayed[-1] == AttachInvocationCompletion(1, Failure(418, "no"))
        again.say(*DONE)
        await call


@pytest.mark.parametrize("is_streaming", [True, False], ids=["streams", "requests"])
async def test_what_has_ended_already_is_answered_at_once(play: Play, peer: ScriptedPeer, is_streaming: bool) -> None:
    async with play(is_streaming=is_streaming) as world:
        id, other = await target(world, peer)
        other.say(*DONE)
        await world.answer_of(id)
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        wanted = (AttachInvocation(InvocationTarget(id), 1), GetInvocationOutput(InvocationTarget(id), 2))
        if is_streaming:
            asks.say(*wanted)
            await asks.until(lambda: len(asks.told) == 4)
            answers = asks.told[2:]
        else:
            asks.say(*wanted, Suspension(Wait((1, 2), signals=(CANCEL_SIGNAL,))))
            asks = await peer.accepts()
            answers = asks.replayed[3:]
        assert set(map(repr, answers)) == {
            repr(AttachInvocationCompletion(1, Value(b"1"))),
            repr(GetInvocationOutputCompletion(2, Value(b"1"))),
        }
        asks.say(*DONE)
        await call


async def test_the_output_of_one_under_way_is_not_there_yet(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id, other = await target(world, peer)
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        asks.say(GetInvocationOutput(InvocationTarget(id), 1))
        assert await asks.hears(GetInvocationOutputCompletion) == GetInvocationOutputCompletion(1, VOID)
        other.say(*DONE)
        asks.say(*DONE)
        await call


@pytest.mark.parametrize("wanted", [UNKNOWN, WorkflowTarget("Signup", "nobody")])
async def test_nobody_is_not_found(play: Play, peer: ScriptedPeer, wanted: AttachTarget) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        asks.say(AttachInvocation(wanted, 1))
        assert (await asks.hears(AttachInvocationCompletion)).result == Failure(404, "not found")
        asks.say(*DONE)
        await call


async def test_one_with_an_idempotency_key_is_found_by_that(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        _, other = await target(world, peer, once="once")
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        asks.say(AttachInvocation(IdempotentRequestTarget("Box", "put", "once", service_key="a"), 1))
        await world.until(lambda: _rows(world, "SELECT FROM waiter"))
        other.say(*DONE)
        assert (await asks.hears(AttachInvocationCompletion)).result == Value(b"1")
        asks.say(*DONE)
        await call


async def test_who_is_killed_is_an_end_as_well(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id, _ = await target(world, peer)
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        asks.say(AttachInvocation(InvocationTarget(id), 1))
        await world.until(lambda: _rows(world, "SELECT FROM waiter"))
        await world.kill(id)
        assert (await asks.hears(AttachInvocationCompletion)).result == Failure(409, "killed")
        asks.say(*DONE)
        await call


async def test_a_waiter_that_has_ended_is_told_nothing(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id, other = await target(world, peer)
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        asks.say(AttachInvocation(InvocationTarget(id), 1), *DONE)
        await call
        other.say(*DONE)
        await world.answer_of(id)


async def test_the_end_finds_the_waiter_whose_engine_has_died(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        id, other = await target(world, peer)
        call = asyncio.create_task(world.call("Afar/work"))
        asks = await peer.accepts()
        asks.say(AttachInvocation(InvocationTarget(id), 1))
        await world.until(lambda: _rows(world, "SELECT FROM waiter"))
        first = world.members[0]
        await world.start_engine(code=[play.code()])
        await first.kill()
        await world.bury(first)
        assert other.is_reset
        requests = [await peer.accepts(), await peer.accepts()]
        requests.sort(key=lambda request: request.path)
        asks, other = requests
        other.say(*DONE)
        assert (await asks.hears(AttachInvocationCompletion)).result == Value(b"1")
        asks.say(*DONE)
        await call


async def _rows(world: World, query: str) -> bool:
    return bool(await world.rows(query))
