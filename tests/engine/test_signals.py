"""Signals and awakeables: whoever waits hears each of them once, in order, whenever they were sent."""

from __future__ import annotations

import asyncio

import pytest

from perdure.protocol.ids import FIRST_AWAKEABLE, format_awakeable, format_id
from perdure.protocol.messages import (
    CANCEL_SIGNAL,
    VOID,
    CompleteAwakeable,
    Failure,
    SendSignal,
    Signal,
    Suspension,
    Value,
    Wait,
)
from runtime.core.lifecycle import CommandRefused
from tests.support.peers import DONE, Play, Request, ScriptedPeer
from tests.support.world import World

ONE, TWO, THREE = (Value(content) for content in (b"1", b"2", b"3"))


async def both(peer: ScriptedPeer) -> tuple[Request, Request]:
    """The requests of somebody who waits (Box) and of somebody who tells (Afar)."""
    requests = [await peer.accepts(), await peer.accepts()]
    requests.sort(key=lambda request: request.path)
    return requests[1], requests[0]


async def is_suspended(world: World) -> bool:
    return bool(await world.rows("SELECT FROM invocation WHERE status = 'suspended'"))


@pytest.mark.parametrize("result", [ONE, Failure(500, "rejected")])
async def test_an_awakeable_is_resolved_by_another_invocation(
    play: Play, peer: ScriptedPeer, result: Value | Failure
) -> None:
    async with play() as world:
        calls = asyncio.gather(world.call("Box/a/put"), world.call("Afar/work"))
        waits, tells = await both(peer)
        id = format_awakeable(waits.start.id, FIRST_AWAKEABLE)
        tells.say(CompleteAwakeable(id, result), *DONE)
        assert await waits.hears(Signal) == Signal(FIRST_AWAKEABLE, result)
        waits.say(*DONE)
        await calls


async def test_a_sleeper_is_woken_by_the_signal_that_it_waits_for_and_by_no_other(
    play: Play, peer: ScriptedPeer
) -> None:
    async with play() as world:
        waiting = asyncio.create_task(world.call("Box/a/put"))
        waits = await peer.accepts()
        waits.say(Suspension(Wait(signals=(CANCEL_SIGNAL, 18))))
        await world.until(lambda: is_suspended(world))
        telling = asyncio.create_task(world.call("Afar/work"))
        tells = await peer.accepts()
        me = waits.start.debug_id
        tells.say(SendSignal(me, "go", ONE), SendSignal(me, 17, TWO), SendSignal(me, 18, THREE), *DONE)
        await telling
        again = await peer.accepts()
        assert len(peer.requests) == 3, "it was woken too early"
        assert again.replayed[1:] == [Signal(17, TWO), Signal(18, THREE), Signal("go", ONE)]
        again.say(*DONE)
        await waiting


async def test_signals_of_one_name_come_one_by_one_and_in_order(play: Play, peer: ScriptedPeer) -> None:
    async with play(is_streaming=False) as world:
        waiting = asyncio.create_task(world.call("Box/a/put"))
        waits = await peer.accepts()
        waits.say(Suspension(Wait(named_signals=("go",))))
        await world.until(lambda: is_suspended(world))
        telling = asyncio.create_task(world.call("Afar/work"))
        tells = await peer.accepts()
        me = waits.start.debug_id
        same = [SendSignal(me, "go", ONE), SendSignal(me, "go", ONE), SendSignal(me, "go", TWO)]
        tells.say(*same, *DONE)
        await telling
        again = await peer.accepts()
        assert again.replayed[1:] == [Signal("go", ONE), Signal("go", ONE), Signal("go", TWO)]
        again.say(*DONE)
        await waiting


async def test_a_signal_may_come_before_its_target_has_begun(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        holding = asyncio.create_task(world.call("Box/a/put"))
        holder = await peer.accepts()
        id = await world.send("Box/a/put")  # waits for its key
        telling = asyncio.create_task(world.call("Afar/work"))
        tells = await peer.accepts()
        tells.say(SendSignal(id, "go", ONE), SendSignal(id, "go", TWO), *DONE)
        await telling
        holder.say(*DONE)
        await holding
        waits = await peer.accepts()
        assert waits.start.debug_id == id
        told = [message for message in waits.told if isinstance(message, Signal)]
        if len(told) < 2:
            await waits.until(lambda: sum(isinstance(message, Signal) for message in waits.told) == 2)
        waits.say(*DONE)
        assert [message for message in waits.told if isinstance(message, Signal)] == [
            Signal("go", ONE),
            Signal("go", TWO),
        ]


async def test_a_signal_to_who_has_ended_or_never_was_is_dropped(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        ended = asyncio.create_task(world.call("Box/a/put"))
        first = await peer.accepts()
        first.say(*DONE)
        await ended
        telling = asyncio.create_task(world.call("Afar/work"))
        tells = await peer.accepts()
        unknown = format_id(bytes(16))
        tells.say(SendSignal(first.start.debug_id, "go", VOID), SendSignal(unknown, 17, ONE), *DONE)
        await telling


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (SendSignal(format_id(bytes(16)), 2), "There is no signal 2"),
        (SendSignal(format_id(bytes(16)), 2**31), "There is no signal 2147483648"),
        (SendSignal(format_id(bytes(16)), ""), "must not be empty"),
        (SendSignal("inv_nonsense", "go"), "not the id of an invocation"),
        (CompleteAwakeable("prom_1nonsense", ONE), "not the id of an awakeable"),
    ],
)
@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_a_signal_that_nobody_can_hear_fails_the_attempt(
    play: Play, peer: ScriptedPeer, command: SendSignal | CompleteAwakeable, words: str
) -> None:
    async with play() as world:
        call = asyncio.create_task(world.call("Afar/work"))
        (await peer.accepts()).say(command)
        again = await peer.accepts()
        [(message,)] = await world.rows("SELECT failure->>'message' FROM invocation")
        assert words in message
        again.say(*DONE)
        await call


async def test_signals_survive_the_engine_that_was_to_hear_them(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        waiting = asyncio.create_task(world.call("Box/a/put"))
        waits = await peer.accepts()
        telling = asyncio.create_task(world.call("Afar/work"))
        tells = await peer.accepts()
        first = world.members[0]
        tells.say(SendSignal(waits.start.debug_id, "go", ONE))
        await waits.hears(Signal)
        await world.start_engine(code=[play.code()])
        await first.kill()
        await world.bury(first)
        for _ in range(2):
            again = await peer.accepts()
            if again.path.startswith("/invoke/Box"):
                await again.hears(Signal)
                assert sum(isinstance(message, Signal) for message in again.told) == 1
            again.say(*DONE)
        await asyncio.gather(waiting, telling)


async def test_a_caller_outside_resolves_the_awakeable_of_who_waits_awake(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        waiting = asyncio.create_task(world.call("Box/a/put"))
        waits = await peer.accepts()
        await world.operations.signal(waits.start.id, Signal(FIRST_AWAKEABLE, ONE))
        assert await waits.hears(Signal) == Signal(FIRST_AWAKEABLE, ONE)
        waits.say(*DONE)
        await waiting


async def test_a_caller_outside_wakes_who_sleeps(play: Play, peer: ScriptedPeer) -> None:
    async with play() as world:
        waiting = asyncio.create_task(world.call("Box/a/put"))
        waits = await peer.accepts()
        waits.say(Suspension(Wait(signals=(FIRST_AWAKEABLE,))))
        await world.until(lambda: is_suspended(world))
        await world.operations.signal(waits.start.id, Signal(FIRST_AWAKEABLE, Failure(500, "rejected")))
        again = await peer.accepts()
        assert again.replayed[1:] == [Signal(FIRST_AWAKEABLE, Failure(500, "rejected"))]
        again.say(*DONE)
        await waiting


async def test_a_signal_from_outside_to_nobody_is_dropped(play: Play) -> None:
    async with play() as world:
        await world.operations.signal(bytes(16), Signal("go", VOID))
        assert not await world.rows("SELECT FROM mail")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Signal(CANCEL_SIGNAL, VOID), "There is no signal 1"),
        (Signal("", VOID), "must not be empty"),
        (Signal(17, Failure(500, "\ud800")), "lone surrogate"),
    ],
)
async def test_a_signal_from_outside_that_nobody_can_hear_is_refused(play: Play, message: Signal, words: str) -> None:
    async with play() as world:
        with pytest.raises(CommandRefused, match=words):
            await world.operations.signal(bytes(16), message)
