"""Whatever a handler asks, in whatever order: what is stored, what follows from it and what a replay sees agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from perdure.errors import SdkError
from perdure.protocol.codec import decode, encode
from perdure.protocol.ids import format_id, fresh_id, parse_id
from perdure.protocol.messages import (
    Call,
    CallCompletion,
    CallInvocationIdCompletion,
    ClearAllState,
    ClearState,
    Command,
    GetEagerState,
    Header,
    Input,
    InvocationRef,
    Message,
    OneWayCall,
    Run,
    SendSignal,
    SetState,
    Sleep,
    Value,
)
from runtime.core import lifecycle
from runtime.core.changes import Changes
from runtime.core.invocation import Invocation, Mode, Status
from runtime.core.lifecycle import LONGEST_DUE, LONGEST_KEY
from runtime.engine.keys import Lease
from runtime.errors import RuntimeFault
from runtime.store.claim import Inbox
from runtime.store.submit import status_at_birth
from runtime.store.verbs import unfinished_calls
from tests.support.manifests import registry

ME = fresh_id(1, 1)

texts = st.text(max_size=4)
contents = st.builds(Value, st.binary(max_size=4))
names = st.sampled_from(["a", "b", "c"]) | texts
numbers = st.integers(1, 2**31 - 1)
moments = st.integers(0, 2**64 - 1)
keys = st.sampled_from(["", "mary", "tom"]) | texts | st.just("k" * 9_000)
payloads = {
    "parameter": st.binary(max_size=4),
    "invocation_id_notification_idx": numbers,
    "headers": st.lists(st.builds(Header, texts, texts), max_size=2).map(tuple),
    "name": st.just("") | texts,
}
strangers = {
    "service_name": st.sampled_from(["Greeter", "Mailbox", "Nobody", "\ud800"]),
    "handler_name": st.sampled_from(["greet", "put", "\0"]),
    "key": keys,
    "idempotency_key": keys,
}
plain = {"service_name": st.just("Greeter"), "handler_name": st.just("greet")}
keyed = {"service_name": st.just("Mailbox"), "handler_name": st.sampled_from(["put", "letters"]), "key": keys}
once = {"idempotency_key": st.none() | st.sampled_from(["order-1", "order-2"])}
addresses: list[dict[str, st.SearchStrategy[Any]]] = [
    payloads | plain | once,
    payloads | keyed | once,
    payloads | strangers,
]

calls = st.one_of(*[st.builds(Call, result_completion_id=numbers, **address) for address in addresses])
sends = st.one_of(*[st.builds(OneWayCall, invoke_time=moments, **address) for address in addresses])
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Run, numbers, name=names),
    st.builds(GetEagerState, names, contents),
    st.builds(SetState, names, contents),
    st.builds(ClearState, names),
    st.builds(ClearAllState),
    st.builds(Sleep, moments, numbers),
    calls,
    sends,
    st.builds(
        SendSignal, st.sampled_from([format_id(fresh_id(2, 2)), "inv_1", "\ud800"]), st.sampled_from([1, 2, "x"])
    ),
)
modes = st.sampled_from([Mode.EXCLUSIVE, Mode.EXCLUSIVE, Mode.SHARED])


class Attempt:
    """Records what a handler asks; notes what was accepted, and the notifications that came at once."""

    def __init__(self, mode: Mode = Mode.EXCLUSIVE) -> None:
        self.invocation = Invocation(ME, "Mailbox", "put", "mary", mode, "default", encode(Input()))
        self.changes = Changes(self.invocation)
        self.accepted: list[Command] = []
        self.stored: list[Message] = []
        self._registry = registry()

    def record(self, command: Command) -> None:
        before = deepcopy(self.changes)
        ids = (fresh_id(3 + len(self.accepted), number) for number in count())
        context = lifecycle.Context(self._registry, ids.__next__)
        try:
            answer = lifecycle.record(command, self.invocation, self.changes, context)
        except (RuntimeFault, SdkError):
            assert self.changes == before, "what is refused leaves no trace"
            return
        self.accepted.append(command)
        self.stored += [command] if answer is None else [command, answer]


def recorded(commands: Sequence[Command], mode: Mode = Mode.EXCLUSIVE) -> Attempt:
    attempt = Attempt(mode)
    for command in commands:
        attempt.record(command)
    return attempt


@given(st.lists(commands), modes)
def test_the_journal_holds_what_was_accepted_and_each_id_right_behind_its_command(
    asked: list[Command], mode: Mode
) -> None:
    attempt = recorded(asked, mode)
    assert decode(b"".join(attempt.changes.frames)) == attempt.stored
    for frame in attempt.changes.frames:
        assert len(decode(frame)) == 1, "an entry is a frame: they are counted"
    for before, after in zip(attempt.stored, attempt.stored[1:], strict=False):
        if isinstance(after, CallInvocationIdCompletion):
            assert isinstance(before, Call | OneWayCall)
            assert after.completion_id == before.invocation_id_notification_idx


@given(st.lists(commands), modes)
def test_recording_what_a_journal_says_has_the_same_effects(asked: list[Command], mode: Mode) -> None:
    first = recorded(asked, mode)
    read = [entry for entry in decode(b"".join(first.changes.frames)) if isinstance(entry, Command)]
    assert recorded(read, mode).changes == first.changes


@given(st.lists(commands), modes)
def test_every_effect_has_its_command_and_keeps_its_place(asked: list[Command], mode: Mode) -> None:
    attempt = recorded(asked, mode)
    changes, accepted = attempt.changes, attempt.accepted
    invoking = [command for command in accepted if isinstance(command, Call | OneWayCall)]
    told = [entry for entry in attempt.stored if isinstance(entry, CallInvocationIdCompletion)]
    for command, creation, answer in zip(invoking, changes.creations, told, strict=True):
        created = creation.invocation
        assert answer.result == InvocationRef(format_id(created.id))
        assert decode(created.input) == [Input(Value(command.parameter), command.headers)]
        awaited = (ME, command.result_completion_id) if isinstance(command, Call) else (None, 0)
        assert (created.caller, created.caller_completion) == awaited
        assert (creation.token is None) == (command.idempotency_key is None)
        later = isinstance(command, OneWayCall) and command.invoke_time > 0
        assert (status_at_birth(creation) is Status.SCHEDULED) == later
    sleeps = [command for command in accepted if isinstance(command, Sleep)]
    assert [timer.slot for timer in changes.timers] == [sleep.result_completion_id for sleep in sleeps]
    cancels = [command for command in accepted if isinstance(command, SendSignal)]
    assert [letter.target for letter in changes.mails] == [parse_id(one.target_invocation_id) for one in cancels]


# However many flushes take it


def written(flushes: Sequence[Changes], values: dict[str, bytes]) -> dict[str, bytes]:
    """An object's values after these flushes."""
    for changes in flushes:
        if changes.cleared:
            values = {}
        values = {name: value for name, value in {**values, **changes.state}.items() if value is not None}
    return values


@given(st.lists(st.tuples(commands, st.booleans())))
def test_state_is_the_same_however_flushes_cut_the_commands(asked: list[tuple[Command, bool]]) -> None:
    attempt = Attempt()
    flushes = [attempt.changes]
    for command, is_flushed in asked:
        attempt.record(command)
        if is_flushed:
            attempt.changes = Changes(attempt.invocation)
            flushes.append(attempt.changes)
    values = {"a": b"old", "z": b"old"}
    lease = Lease(("Mailbox", "mary"))
    lease.take(Inbox(state=dict(values)), now=0)
    for command in attempt.accepted:
        lease.apply(command)
    assert written(flushes, values) == lease.state, "the database differs from what the next handler sees in memory"
    assert [frame for changes in flushes for frame in changes.frames] == [encode(entry) for entry in attempt.stored]


@given(st.lists(calls), st.data())
def test_the_unfinished_calls_of_a_journal_are_those_without_a_result(asked: list[Call], data: st.DataObject) -> None:
    attempt = recorded(
        [
            structs.replace(call, invocation_id_notification_idx=2 * number, result_completion_id=2 * number + 1)
            for number, call in enumerate(asked)
        ]
    )
    callees = {creation.invocation.caller_completion: creation.invocation.id for creation in attempt.changes.creations}
    finished = {id for id in callees if data.draw(st.booleans(), label=f"{id} has its result")}
    results = [CallCompletion(id, Value()) for id in finished]
    unfinished = [callee for id, callee in callees.items() if id not in finished]
    assert unfinished_calls(attempt.stored + results) == unfinished


# Poison


def fits(text: str | None) -> bool:
    """Whether PostgreSQL takes it as a text, and into an index."""
    if text is None:
        return True
    try:
        return len(text.encode()) <= LONGEST_KEY and "\0" not in text
    except UnicodeEncodeError:
        return False


def columns(changes: Changes) -> Iterator[str | None]:
    """What of these changes goes into columns of text."""
    yield from changes.state
    for creation in changes.creations:
        created = creation.invocation
        yield from (created.service, created.handler, created.key, created.queue, created.idempotency_key)


@given(st.lists(commands), modes)
def test_nothing_that_would_break_a_flush_gets_past_the_door(asked: list[Command], mode: Mode) -> None:
    changes = recorded(asked, mode).changes
    assert all(map(fits, columns(changes)))
    assert all(0 < timer.due <= LONGEST_DUE for timer in changes.timers)
    assert all(0 <= creation.due <= LONGEST_DUE for creation in changes.creations)
    assert changes.ending is None
