"""What a handler's message changes: one test for each command, and for each way in which an attempt ends."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perdure.protocol.codec import decode, encode
from perdure.protocol.ids import format_awakeable, format_id, fresh_id, idempotent_id, parse_id
from perdure.protocol.messages import (
    CANCEL_SIGNAL,
    PASSED_ON,
    Behavior,
    Call,
    CallInvocationIdCompletion,
    ClearAllState,
    ClearState,
    Command,
    CompleteAwakeable,
    Error,
    Failure,
    GetEagerState,
    GetPromise,
    Header,
    Input,
    InvocationRef,
    OneWayCall,
    Output,
    Run,
    SendSignal,
    SetState,
    Signal,
    Sleep,
    Value,
    Wait,
)
from runtime.core import lifecycle, slots
from runtime.core.changes import Changes, Completed, Mail, Parked, Timer
from runtime.core.invocation import Invocation, Mode, Outcome, Status
from runtime.core.lifecycle import LONGEST_DUE, LONGEST_KEY, CommandRefused
from runtime.core.registry import HandlerInfo, UnknownHandler, UnknownService
from runtime.core.retry import OnMaxAttempts, RetryPolicy
from tests.support.manifests import registry

ME = fresh_id(1, 1)
CALLEE = fresh_id(1, 2)
OTHER = fresh_id(1, 3)
AWAKEABLE = format_awakeable(OTHER, 17)
HANDLER = HandlerInfo("Mailbox", "put", Mode.EXCLUSIVE, "dp_1", retention=10, idempotency_retention=20)
FAR = 10**18  # milliseconds: year 31 million

results = st.one_of(
    st.builds(Value, st.binary()),
    st.builds(Failure, st.integers(0, 999), st.text(st.characters(codec="utf-8"))),
)


def me(mode: Mode = Mode.EXCLUSIVE, **fields: Any) -> Invocation:
    key = None if mode is Mode.SERVICE else "mary"
    return Invocation(ME, "Mailbox", "put", key, mode, "default", encode(Input(Value(b"1"))), **fields)


class Attempt:
    """Records commands of an attempt, and what followed from them."""

    def __init__(self, invocation: Invocation | None = None) -> None:
        self.invocation = invocation or me()
        self.changes = Changes(self.invocation)
        self.answers: list[Any] = []

    def record(self, *commands: Command) -> Changes:
        context = lifecycle.Context(registry(), lambda: CALLEE)
        for command in commands:
            self.answers.append(lifecycle.record(command, self.invocation, self.changes, context))
        return self.changes


def call(**fields: Any) -> Call:
    return Call(**{"service_name": "Greeter", "handler_name": "greet", "parameter": b"2",
                   "invocation_id_notification_idx": 1, "result_completion_id": 2, **fields})  # fmt: skip


def send(**fields: Any) -> OneWayCall:
    return OneWayCall(**{"service_name": "Greeter", "handler_name": "greet", "parameter": b"2",
                         "invocation_id_notification_idx": 1, **fields})  # fmt: skip


# Commands


@pytest.mark.parametrize("command", [Run(1, name="charge"), GetEagerState("letters", Value(b"3"))])
def test_a_step_and_a_read_are_only_written_down(command: Command) -> None:
    attempt = Attempt()
    assert attempt.record(command) == Changes(attempt.invocation, frames=[encode(command)])
    assert attempt.answers == [None]


def test_values_are_set_and_cleared_in_the_order_of_the_commands() -> None:
    changes = Attempt().record(SetState("a", Value(b"1")), SetState("b", Value(b"2")), ClearState("a"))
    assert changes.state == {"a": None, "b": b"2"}
    assert not changes.cleared
    assert len(changes.frames) == 3


def test_clearing_everything_forgets_what_was_set_before_and_keeps_what_is_set_after() -> None:
    changes = Attempt().record(SetState("a", Value(b"1")), ClearAllState(), SetState("b", Value(b"2")))
    assert (changes.state, changes.cleared) == ({"b": b"2"}, True)


@pytest.mark.parametrize("command", [SetState("a", Value(b"1")), ClearState("a"), ClearAllState()])
@pytest.mark.parametrize("mode", [Mode.SHARED, Mode.SERVICE])
def test_only_an_exclusive_handler_writes_state(mode: Mode, command: Command) -> None:
    attempt = Attempt(me(mode))
    with pytest.raises(CommandRefused, match="may not write state"):
        attempt.record(command)
    assert attempt.changes == Changes(attempt.invocation), "what is refused leaves no trace"


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "k" * 9_000], ids=["empty", "NUL", "surrogate", "9 kB"])
@pytest.mark.parametrize("make", [lambda name: SetState(name, Value(b"1")), ClearState])
def test_a_name_of_a_value_that_would_break_a_flush_is_refused_without_a_trace(make: Any, name: str) -> None:
    attempt = Attempt()
    with pytest.raises(CommandRefused, match="name of a value"):
        attempt.record(make(name))
    assert attempt.changes == Changes(attempt.invocation)


@pytest.mark.parametrize(("wake_up", "due"), [(5, 5), (0, 1), (FAR, LONGEST_DUE)])
def test_a_sleep_arms_a_timer_that_the_database_can_hold(wake_up: int, due: int) -> None:
    assert Attempt().record(Sleep(wake_up, 7)).timers == [Timer(due, 7)]


def test_a_call_creates_a_callee_that_answers_and_tells_its_id_at_once() -> None:
    attempt = Attempt()
    headers = (Header("trace", "1"),)
    changes = attempt.record(call(service_name="Mailbox", handler_name="put", key="tom", headers=headers))
    (creation,) = changes.creations
    created = creation.invocation
    assert (created.id, created.service, created.handler, created.key) == (CALLEE, "Mailbox", "put", "tom")
    assert (created.mode, created.caller, created.caller_completion) == (Mode.EXCLUSIVE, ME, 2)
    assert decode(created.input) == [Input(Value(b"2"), headers)]
    assert (creation.due, creation.token, creation.owner) == (0, None, None)
    (answer,) = attempt.answers
    assert isinstance(answer, CallInvocationIdCompletion)
    assert isinstance(answer.result, InvocationRef)
    assert (answer.completion_id, parse_id(answer.result.invocation_id)) == (1, CALLEE)
    assert changes.frames[1] == encode(answer)


@pytest.mark.parametrize(("invoke_time", "due"), [(0, 0), (5, 5), (FAR, LONGEST_DUE)])
def test_a_send_answers_to_nobody_and_begins_when_it_is_due(invoke_time: int, due: int) -> None:
    (creation,) = Attempt().record(send(invoke_time=invoke_time)).creations
    assert (creation.invocation.caller, creation.due) == (None, due)


def test_an_idempotency_key_makes_the_id_and_a_token_tells_the_first() -> None:
    (creation,) = Attempt().record(call(idempotency_key="order-1")).creations
    assert creation.invocation.id == idempotent_id("Greeter", None, "greet", "order-1")
    assert (creation.invocation.idempotency_key, creation.token) == ("order-1", CALLEE)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"service_name": "Nobody"}, UnknownService),
        ({"handler_name": "nothing-like-it"}, UnknownHandler),
        ({"key": "mary"}, CommandRefused),
        ({"service_name": "Mailbox", "handler_name": "put"}, CommandRefused),
        ({"service_name": "Mailbox", "handler_name": "put", "key": "a\0b"}, CommandRefused),
        ({"service_name": "Mailbox", "handler_name": "put", "key": "\ud800"}, CommandRefused),
        ({"service_name": "Mailbox", "handler_name": "put", "key": "é" * LONGEST_KEY}, CommandRefused),
        ({"idempotency_key": ""}, CommandRefused),
        ({"idempotency_key": "k" * (LONGEST_KEY + 1)}, CommandRefused),
    ],
)
@pytest.mark.parametrize("make", [call, send])
def test_what_cannot_be_invoked_is_refused_without_a_trace(
    make: Any, fields: dict[str, Any], error: type[Exception]
) -> None:
    attempt = Attempt()
    with pytest.raises(error):
        attempt.record(make(**fields))
    assert attempt.changes == Changes(attempt.invocation)


def test_cancelling_another_is_mail_to_it() -> None:
    text = format_id(OTHER)
    changes = Attempt().record(SendSignal(text, CANCEL_SIGNAL))
    assert changes.mails == [Mail(OTHER, slots.CANCEL)]


def test_a_cancellation_that_is_passed_on_says_whose_calls_it_is_for() -> None:
    attempt = Attempt()
    changes = attempt.record(SendSignal(format_id(OTHER), CANCEL_SIGNAL, entry_name=PASSED_ON))
    assert changes.mails == [Mail(OTHER, slots.CANCEL, caller=attempt.invocation.id)]


def test_a_signal_is_mail_that_carries_it_whole() -> None:
    named, numbered = SendSignal(format_id(OTHER), "go", Value(b"1")), CompleteAwakeable(AWAKEABLE, Failure(500, "no"))
    attempt = Attempt()
    attempt.record(named)
    assert attempt.record(numbered).mails == [
        Mail(OTHER, slots.NAMED, encode(Signal("go", Value(b"1")))),
        Mail(OTHER, slots.of_signal(17), encode(Signal(17, Failure(500, "no")))),
    ]


@pytest.mark.parametrize("scope", [{"scope": "a"}, {"limit_key": "b"}])
def test_what_is_scoped_is_refused_and_not_taken_for_what_is_not(scope: dict[str, str]) -> None:
    with pytest.raises(CommandRefused, match="not supported yet"):
        Attempt().record(call(**scope))


@pytest.mark.parametrize("command", [GetPromise("p", 1)])
def test_a_command_of_another_time_is_refused(command: Command) -> None:
    with pytest.raises(CommandRefused, match="not supported"):
        Attempt().record(command)


@pytest.mark.parametrize("command", [Run(1, name="\ud800"), call(name="\ud800"), SetState("a", Value(), name="\ud800")])
def test_a_name_that_is_no_unicode_is_refused_without_a_trace(command: Command) -> None:
    attempt = Attempt()
    with pytest.raises(CommandRefused, match="lone surrogate"):
        attempt.record(command)
    assert attempt.changes == Changes(attempt.invocation)


@given(st.text())
def test_a_key_that_passes_the_door_is_one_that_postgresql_takes(key: str) -> None:
    try:
        lifecycle.check_key(key, "A key")
    except CommandRefused:
        return
    assert 0 < len(key.encode()) <= LONGEST_KEY
    assert "\0" not in key


# Ends


@given(results, st.booleans(), st.booleans())
def test_an_end_tells_its_outcome_and_its_caller(result: Value | Failure, is_cancelled: bool, is_awaited: bool) -> None:
    invocation = me(caller=OTHER, caller_completion=9) if is_awaited else me()
    changes = Changes(invocation)
    output = Output(result)
    lifecycle.end(invocation, changes, output, HANDLER, position=4, is_cancelled=is_cancelled)
    ending = changes.ending
    assert isinstance(ending, Completed)
    assert (ending.result, ending.position, ending.retention) == (encode(output), 4, 10)
    assert (ending.failure is None) == isinstance(result, Value)
    if isinstance(result, Value):
        assert ending.outcome is Outcome.SUCCEEDED
    elif is_cancelled and result.code == 409:
        assert ending.outcome is Outcome.CANCELLED
    else:
        assert ending.outcome is Outcome.FAILED
    assert changes.mails == ([Mail(OTHER, 9, encode(output))] if is_awaited else [])


@pytest.mark.parametrize("outcome", [Outcome.KILLED, Outcome.CANCELLED])
def test_who_ends_one_without_its_handler_says_its_outcome(outcome: Outcome) -> None:
    invocation = me(caller=OTHER, caller_completion=9)
    changes = Changes(invocation)
    output = Output(Failure(409, "no more"))
    lifecycle.complete(invocation, changes, outcome, output, 30, 4)
    described = lifecycle.describe(409, "no more")
    assert changes.ending == Completed(outcome, encode(output), retention=30, position=4, failure=described)
    assert changes.mails == [Mail(OTHER, 9, encode(output))]


def test_what_has_an_idempotency_key_is_kept_for_as_long_as_that_answers() -> None:
    assert lifecycle.retention(me(), HANDLER) == 10
    assert lifecycle.retention(me(idempotency_key="k"), HANDLER) == 20
    shorter = msgspec.structs.replace(HANDLER, idempotency_retention=5)
    assert lifecycle.retention(me(idempotency_key="k"), shorter) == 10, "but not shorter than others"


def failed(error: Error, policy: RetryPolicy | None = None, *, stored_commands: bool = False, **fields: Any) -> Any:
    """What becomes of an invocation whose attempt fails at 1,000 ms."""
    invocation = me(**fields)
    changes = Changes(invocation)
    handler = msgspec.structs.replace(HANDLER, retry=policy or RetryPolicy(initial_ms=100, max_attempts=3))
    lifecycle.fail(invocation, changes, error, handler, now_ms=1_000, stored_commands=stored_commands, position=4)
    return changes.ending


def test_a_failed_attempt_backs_off_for_longer_and_longer() -> None:
    first, second = failed(Error(500, "down")), failed(Error(500, "down"), retries=1, stuck=1)
    assert (first.status, first.due, first.retries, first.stuck) == (Status.BACKING_OFF, 1_100, 1, 1)
    assert (second.due, second.retries, second.stuck) == (1_200, 2, 2)


def test_what_an_attempt_recorded_before_it_failed_stays_and_nobody_is_told() -> None:
    attempt = Attempt(me(caller=OTHER, caller_completion=9))
    attempt.record(call(), Sleep(5, 7))
    before = deepcopy(attempt.changes)
    lifecycle.fail(
        attempt.invocation, attempt.changes, Error(500, "down"), HANDLER, now_ms=1, stored_commands=True, position=4
    )
    assert isinstance(attempt.changes.ending, Parked)
    assert msgspec.structs.replace(attempt.changes, ending=None) == before
    assert not attempt.changes.mails


def test_an_attempt_that_got_on_is_not_stuck_at_the_same_place() -> None:
    assert failed(Error(500, "down"), stuck=7, stored_commands=True).stuck == 1


@pytest.mark.parametrize(("end", "status"), [(OnMaxAttempts.PAUSE, Status.PAUSED), (OnMaxAttempts.KILL, None)])
def test_when_attempts_are_used_up_the_policy_decides(end: OnMaxAttempts, status: Status | None) -> None:
    ending = failed(Error(500, "down"), RetryPolicy(max_attempts=3, on_max_attempts=end), retries=2)
    if status is None:
        assert (ending.outcome, decode(ending.result)) == (Outcome.FAILED, [Output(Failure(500, "down"))])
        assert ending.position == 4
    else:
        assert (ending.status, ending.retries) == (status, 0)


def test_the_delay_of_a_step_is_its_own_and_uses_up_no_attempt_of_the_handler() -> None:
    ending = failed(Error(500, "down", next_retry_delay=7), retries=2)
    assert (ending.status, ending.due, ending.retries) == (Status.BACKING_OFF, 1_007, 2)


def test_no_delay_leads_beyond_the_calendar() -> None:
    assert failed(Error(500, "down", next_retry_delay=FAR)).due == LONGEST_DUE
    assert failed(Error(500, "down"), RetryPolicy(initial_ms=FAR, max_ms=FAR)).due == LONGEST_DUE


@pytest.mark.parametrize("error", [Error(570, "mismatch"), Error(500, "wait", behavior=Behavior.PAUSE)])
def test_a_mismatch_or_a_request_pauses_at_once(error: Error) -> None:
    assert failed(error).status is Status.PAUSED


KILLED_AT_ONCE = RetryPolicy(max_attempts=1, on_max_attempts=OnMaxAttempts.KILL)


def test_a_request_to_pause_goes_before_a_policy_that_gives_up() -> None:
    assert failed(Error(500, "wait", behavior=Behavior.PAUSE), KILLED_AT_ONCE).status is Status.PAUSED


def test_a_mismatch_ends_only_what_has_no_attempts_left_and_is_to_be_given_up() -> None:
    assert failed(Error(570, "mismatch"), KILLED_AT_ONCE).outcome is Outcome.FAILED


@pytest.mark.parametrize("policy", [None, KILLED_AT_ONCE])
def test_of_what_was_given_up_people_see_where_it_failed_and_callers_do_not(policy: RetryPolicy | None) -> None:
    ending = failed(Error(500, "down", "line 3", behavior=Behavior.RETRY if policy else Behavior.FAIL), policy)
    assert json.loads(ending.failure) == {"code": 500, "message": "down", "stacktrace": "line 3"}
    assert decode(ending.result) == [Output(Failure(500, "down"))]


def test_an_error_may_end_it_for_good() -> None:
    ending = failed(Error(500, "no use", behavior=Behavior.FAIL))
    assert ending.outcome is Outcome.FAILED


def test_an_error_whose_words_are_no_unicode_ends_it_all_the_same() -> None:
    ending = failed(Error(500, "no \ud800", behavior=Behavior.FAIL))
    assert decode(ending.result) == [Output(Failure(500, "no ?"))]


@given(st.integers(0, 2**64 - 1), st.text(), st.text(), st.none() | st.text())
@example(0, "a\0b", "\0\ud800", "\udfff")
def test_a_failure_is_described_in_json_that_postgresql_takes(
    code: int, message: str, trace: str, name: str | None
) -> None:
    described = json.loads(lifecycle.describe(code, message, trace, command=0, name=name, type=0).encode())
    said = {"code": code, "message": message, "stacktrace": trace, "command": 0, "name": name, "type": 0}
    assert described.keys() == {word for word, value in said.items() if value not in (None, "")}
    for word, value in described.items():
        if isinstance(value, str):
            assert "\0" not in value
            assert value.encode().decode() == value, "a lone surrogate"
            assert len(value) == len(str(said[word])), "what cannot be said is replaced, not left out"
        else:
            assert value == said[word]


def test_words_that_everybody_takes_are_told_as_they_are() -> None:
    assert json.loads(lifecycle.describe(409, 'über "ΩΩ" \U0001f600\n')) == {
        "code": 409,
        "message": 'über "ΩΩ" \U0001f600\n',
    }


waits: st.SearchStrategy[Wait] = st.recursive(
    st.builds(Wait, completions=st.lists(st.integers(1, 99)).map(tuple)),
    lambda nested: st.builds(
        Wait, completions=st.lists(st.integers(1, 99)).map(tuple), nested=st.lists(nested).map(tuple)
    ),
    max_leaves=10,
)


@given(waits)
def test_one_that_sleeps_is_woken_by_every_leaf_of_its_wait(wait: Wait) -> None:
    changes = Changes(me(stuck=2))
    lifecycle.suspend(changes.invocation, changes, wait)
    assert isinstance(changes.ending, Parked)
    ending = changes.ending
    assert (ending.status, ending.stuck, ending.retries, ending.due) == (Status.SUSPENDED, 2, 0, 0)
    pending, leaves = [wait], set[int]()
    while pending:
        one = pending.pop()
        leaves.update(one.completions)
        pending += one.nested
    assert set(changes.ending.waits) == leaves
