"""Whatever a handler does and however its answers come: a replay of any part of its journal does the same again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from perdure import (
    DurableFuture,
    ObjectContext,
    TerminalError,
    VirtualObject,
    first,
    gather,
    handler,
)
from perdure.protocol import messages as m
from perdure.protocol.ids import format_awakeable, format_id
from perdure.protocol.waits import Known, leaves, satisfied
from tests.sdk.support import CANCEL, Stage

Step = list[Any]
"""A verb and its arguments; a handler is a list of them. Futures are numbered as they are made."""


class Program(VirtualObject):
    """Does what it is told, and gives back all that it saw."""

    @handler
    async def play(self, ctx: ObjectContext, steps: list[Step]) -> list[Any]:
        futures: list[DurableFuture[Any]] = []
        seen: list[Any] = []
        for verb, *arguments in steps:
            try:
                match verb:
                    case "run":
                        futures.append(ctx.run("step", work, *arguments))
                    case "sleep":
                        futures.append(ctx.sleep(timedelta(seconds=arguments[0])))
                    case "call":
                        futures.append(ctx.object_client(Program, "other").play([]))
                    case "send":
                        futures.append(ctx.object_send_client(Program, "other").play([]).invocation_id())
                    case "set":
                        ctx.set(arguments[0], len(seen))
                    case "clear":
                        ctx.clear(arguments[0])
                    case "clear_all":
                        ctx.clear_all()
                    case "awakeable":
                        futures.append(ctx.awakeable(int))
                    case "signal":
                        futures.append(ctx.signal(arguments[0], int))
                    case "tell":
                        ctx.send_signal(format_id(bytes(16)), arguments[0], len(seen))
                        ctx.resolve_awakeable(format_awakeable(bytes(16), 17), len(seen))
                    case "get":
                        seen.append(await ctx.get(arguments[0], int))
                    case "keys":
                        seen.append(await ctx.keys())
                    case "uuid":
                        seen.append(str(ctx.uuid()))
                    case "await" if futures:
                        seen.append(await _pick(futures, arguments[0]))
                    case "gather" if futures:
                        picked = [_pick(futures, number) for number in arguments[0]]
                        futures.append(gather(*picked, timeout=_seconds(arguments[1])))
                    case "first" if futures:
                        picked = [_pick(futures, number) for number in arguments[0]]
                        race = first(*picked, timeout=_seconds(arguments[1]))
                        futures.append(race)
                        seen.append(await race)
                        seen.append(None if race.winner is None else picked.index(race.winner))
            except TerminalError as error:
                seen.append([error.code, error.message])
        return seen


def _pick(futures: Sequence[DurableFuture[Any]], number: int) -> DurableFuture[Any]:
    return futures[number % len(futures)]


def _seconds(timeout: int | None) -> timedelta | None:
    return None if timeout is None else timedelta(seconds=timeout)


async def work(number: int, turns: int) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    if number < 0:
        raise TerminalError("negative", code=400)
    return number


NUMBERS = st.integers(0, 9)
NAMES = st.sampled_from(["a", "b", "c"])
TIMEOUTS = st.none() | st.integers(0, 5)
SIGNALS: st.SearchStrategy[int | str] = st.sampled_from(["a", "b", "c", 17, 18, 19])
PICKS = st.lists(NUMBERS, min_size=1, max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("run"), st.integers(-2, 5), st.integers(0, 2)),
    st.tuples(st.just("sleep"), NUMBERS),
    st.tuples(st.just("call")),
    st.tuples(st.just("send")),
    st.tuples(st.sampled_from(["set", "clear", "get"]), NAMES),
    st.tuples(st.just("awakeable")),
    st.tuples(st.sampled_from(["signal", "signal", "tell"]), NAMES),
    st.tuples(st.sampled_from(["clear_all", "keys", "uuid"])),
    st.tuples(st.just("await"), NUMBERS),
    st.tuples(st.just("await"), NUMBERS),
    st.tuples(st.sampled_from(["gather", "first"]), PICKS, TIMEOUTS),
)
PROGRAMS = st.lists(STEPS.map(list), min_size=3, max_size=20)


class Runtime:
    """Delivers in an order that hypothesis chooses, and cancels now and then."""

    def __init__(self, data: st.DataObject, cancellations: int) -> None:
        self._data = data
        self._cancellations = cancellations
        self._due: list[m.Notification] = []
        self._seen = 0
        self._told = 0

    def answers(self, stage: Stage) -> list[m.Notification]:
        """Some of what is due, and some signals; at least what it waits for at last, or it would wait for ever."""
        for message in stage.emitted[self._seen :]:
            match message:
                case m.Sleep():
                    self._due.append(m.SleepCompletion(message.result_completion_id, m.VOID))
                case m.Call():
                    fails = self._data.draw(st.booleans(), label="the callee fails")
                    result = m.Failure(409, "no") if fails else m.Value(b"[]")
                    self._due.append(m.CallCompletion(message.result_completion_id, result))
                case m.ProposeRunCompletion(id, result):
                    self._due.append(m.RunCompletion(id, result))
                case m.GetLazyState():
                    self._due.append(m.GetLazyStateCompletion(message.result_completion_id, m.Value(b"7")))
                case m.GetLazyStateKeys():
                    self._due.append(m.GetLazyStateKeysCompletion(message.result_completion_id, m.StateKeys(("z",))))
                case _:
                    pass
        self._seen = len(stage.emitted)
        chosen: list[m.Notification] = []
        if self._cancellations and self._data.draw(st.booleans(), label="cancel now"):
            self._cancellations -= 1
            chosen.append(CANCEL)
        for _ in range(self._data.draw(st.integers(0 if chosen else 1, 3), label="answers")):
            if self._due:
                chosen.append(self._due.pop(self._data.draw(st.integers(0, len(self._due) - 1), label="which")))
        signals: st.SearchStrategy[int | str] = SIGNALS if self._due or chosen else st.sampled_from(awaited(stage))
        for _ in range(self._data.draw(st.integers(0 if chosen else 1, 2), label="signals")):
            signal = self._data.draw(signals, label="signal")
            self._told += 1
            fails = self._data.draw(st.booleans(), label="rejected")
            chosen.append(m.Signal(signal, m.Failure(410, "no") if fails else m.Value(b"%d" % self._told)))
        return chosen


def awaited(stage: Stage) -> list[int | str]:
    """The signals that it waits for, apart from a cancellation."""
    assert stage.attempt.waiting is not None
    found: list[int | str] = []
    for wait in leaves(stage.attempt.waiting):
        found += [number for number in wait.signals if number != m.CANCEL_SIGNAL]
        found += wait.named_signals
    return found


async def perform(steps: list[Step], data: st.DataObject, cancellations: int, partial: bool) -> Stage:
    """The first, uninterrupted attempt."""
    runtime = Runtime(data, cancellations)
    stage = Stage(Program, "play", steps, key="k", state_map={"a": b"1"}, partial_state=partial)
    await stage.begin()
    while not stage.ended:
        wait = stage.attempt.waiting
        assert wait is not None
        known = Known()
        for notification in runtime.answers(stage):
            stage.deliver(notification)
            known.add(notification)
            if stage.attempt.waiting is None:
                assert satisfied(wait, known), "it goes on, but a runtime would have let it sleep"
        await stage.settle()
    return stage


async def replayed(journal: list[m.Entry], cut: int, partial: bool) -> list[m.Message]:
    """What an attempt does that has the first `cut` entries, and is given the other notifications as they were."""
    stage = Stage(
        Program,
        "play",
        key="k",
        journal=journal[:cut],
        answer_ids=False,
        state_map=state_after(journal[:cut]),
        partial_state=partial,
    )
    later = [entry for entry in journal[cut:] if isinstance(entry, m.Notification)]
    await stage.begin()
    while not stage.ended:
        stage.deliver(later.pop(0))
        await stage.settle()
    executed = {
        message.result_completion_id for message in stage.emitted if isinstance(message, m.ProposeRunCompletion)
    }
    stored = {entry.completion_id for entry in journal[:cut] if isinstance(entry, m.RunCompletion)}
    assert not executed & stored, "a step whose result was stored is executed again"
    return [message for message in stage.emitted if not isinstance(message, m.ProposeRunCompletion)]


def state_after(journal: list[m.Entry]) -> dict[str, bytes]:
    """What the runtime has of the object once these entries are stored."""
    state = {"a": b"1"}
    for entry in journal:
        match entry:
            case m.SetState(name, m.Value(content)):
                state[name] = content
            case m.ClearState(name):
                state.pop(name, None)
            case m.ClearAllState():
                state.clear()
            case _:
                pass
    return state


@settings(max_examples=300, deadline=None)
@given(PROGRAMS, st.data(), st.integers(0, 2), st.booleans())
def test_a_replay_of_any_prefix_does_the_rest_and_nothing_else(
    steps: list[Step], data: st.DataObject, cancellations: int, partial: bool
) -> None:
    async def check() -> None:
        stage = await perform(steps, data, cancellations, partial)
        assert isinstance(stage.emitted[-1], m.End), stage.emitted[-1]
        for cut in range(1, len(stage.journal) + 1):
            rest = [entry for entry in stage.journal[cut:] if isinstance(entry, m.Command)]
            assert await replayed(stage.journal, cut, partial) == [*rest, m.End()]

    asyncio.run(check())


@settings(max_examples=60, deadline=None)
@given(PROGRAMS, st.data(), st.integers(0, 2))
def test_suspending_at_every_wait_changes_nothing(steps: list[Step], data: st.DataObject, cancellations: int) -> None:
    async def check() -> None:
        stage = await perform(steps, data, cancellations, partial=False)
        journal = stage.journal[:1]
        later = [entry for entry in stage.journal if isinstance(entry, m.Notification)]
        emitted: list[m.Message] = []
        while not emitted or not isinstance(emitted[-1], m.End):
            again = Stage(Program, "play", key="k", journal=journal, answer_ids=False, state_map=state_after(journal))
            await again.begin()
            if not again.ended:
                assert again.attempt.suspend()
            assert not again.attempt.suspend()
            emitted += [message for message in again.emitted if isinstance(message, m.Command | m.End)]
            journal = again.journal
            if later:
                journal.append(later.pop(0))
            await asyncio.sleep(0)
        assert emitted == [message for message in stage.emitted if isinstance(message, m.Command | m.End)]

    asyncio.run(check())


def changed(command: m.Entry) -> m.Command:
    """Another command than this, whatever this is."""
    if isinstance(command, m.Run):
        return structs.replace(command, name="another")
    return m.Run(999, "another")


@settings(max_examples=60, deadline=None)
@given(PROGRAMS, st.data())
def test_a_journal_that_differs_anywhere_is_found_out_there(steps: list[Step], data: st.DataObject) -> None:
    async def check() -> None:
        stage = await perform(steps, data, 0, partial=False)
        places = [place for place, entry in enumerate(stage.journal) if place and isinstance(entry, m.Command)]
        for place in places[:-1]:
            journal = stage.journal[:-1]  # with its output in it, nothing would be asked any more
            journal[place] = changed(journal[place])
            again = Stage(Program, "play", key="k", journal=journal, answer_ids=False)
            await again.begin()
            [error] = [message for message in again.emitted if not isinstance(message, m.ProposeRunCompletion)]
            assert isinstance(error, m.Error)
            assert error.code == 570
            assert error.related_command_index == 1 + places.index(place)
            assert "another" in error.message

    asyncio.run(check())
