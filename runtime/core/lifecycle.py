"""What a handler's message changes: the rules of the journal, as functions of values.

`record` takes one message of a running attempt and adds what follows from it to the invocation's Changes; `end`,
`fail` and `suspend` decide how an attempt's end leaves the invocation. Nothing here waits, reads a clock or draws
an id: those are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from perdure.protocol.codec import encode
from perdure.protocol.ids import FIRST_AWAKEABLE, format_id, idempotent_id, parse_awakeable, parse_id, workflow_id
from perdure.protocol.limits import DEFAULTS, Limits
from perdure.protocol.messages import (
    CANCEL_SIGNAL,
    PASSED_ON,
    VOID,
    AttachInvocation,
    AttachTarget,
    Behavior,
    Call,
    CallInvocationIdCompletion,
    ClearAllState,
    ClearState,
    Command,
    CompleteAwakeable,
    CompletePromise,
    Completion,
    Error,
    Failure,
    GetEagerState,
    GetEagerStateKeys,
    GetInvocationOutput,
    GetLazyState,
    GetLazyStateCompletion,
    GetLazyStateKeys,
    GetLazyStateKeysCompletion,
    GetPromise,
    IdempotentRequestTarget,
    Input,
    InvocationRef,
    InvocationTarget,
    Message,
    OneWayCall,
    Output,
    PeekPromise,
    Run,
    SendSignal,
    SetState,
    Signal,
    Sleep,
    StateKeys,
    Suspension,
    Value,
    Wait,
    WorkflowTarget,
)
from perdure.protocol.waits import is_flat
from runtime.core import slots
from runtime.core.changes import (
    Attachment,
    Changes,
    Completed,
    Creation,
    Mail,
    Parked,
    PromiseAsk,
    Question,
    Timer,
)
from runtime.core.invocation import Invocation, Mode, Outcome, Status
from runtime.core.registry import HandlerInfo, Registry
from runtime.core.retry import OnMaxAttempts
from runtime.errors import RuntimeFault

JOURNAL_MISMATCH = 570
RUN_BEFORE = encode(Output(Failure(409, "the workflow method was already invoked")))
"""The answer to a call of a workflow's run that comes second."""
COMPLETED_BEFORE = encode(Output(Failure(409, "promise was already completed")))
FIRST_SIGNAL = FIRST_AWAKEABLE
"""The numbers before are the protocol's own."""
LONGEST_DUE = 253_370_764_800_000  # the year 9999 in milliseconds: later than any timer that is meant
LONGEST_KEY = DEFAULTS.name
"""Bytes of UTF-8: an index row ends at 2.7 kB."""


class CommandRefused(RuntimeFault):
    """The handler asked for something that cannot be done; the attempt fails, and may pass when tried again."""

    code = "command_refused"


class TooLarge(CommandRefused):
    """What an invocation is called with is larger than it may be."""

    code = "too_large"


class Context(Struct):
    """What `record` needs of the world: the registry as it is now, and a maker of ids; and what a journal may hold."""

    registry: Registry
    new_id: Callable[[], bytes]
    limits: Limits = DEFAULTS


def record(message: Message, invocation: Invocation, changes: Changes, context: Context) -> Message | None:
    """Add what follows from a command to `changes`; returns a notification that comes at once, if there is one.

    Raises CommandRefused, UnknownService, UnknownHandler: the command is not recorded.
    """
    effect = _EFFECTS.get(type(message))
    if effect is None:
        raise CommandRefused(f"{type(message).__name__} is not supported here.")
    try:
        return effect(message, invocation, changes, context)
    except UnicodeEncodeError:
        raise CommandRefused(f"{type(message).__name__} holds a lone surrogate, which is no Unicode.") from None


def _append(message: Command, _: Invocation, changes: Changes, __: Context) -> None:
    changes.frames.append(encode(message))


def _set_state(message: SetState, invocation: Invocation, changes: Changes, _: Context) -> None:
    _writes_state(invocation)
    check_key(message.key, "The name of a value")
    changes.frames.append(encode(message))
    changes.state[message.key] = message.value.content


def _clear_state(message: ClearState, invocation: Invocation, changes: Changes, _: Context) -> None:
    _writes_state(invocation)
    check_key(message.key, "The name of a value")
    changes.frames.append(encode(message))
    changes.state[message.key] = None


def _clear_all_state(message: ClearAllState, invocation: Invocation, changes: Changes, _: Context) -> None:
    _writes_state(invocation)
    changes.frames.append(encode(message))
    changes.state.clear()
    changes.cleared = True


def answer_read(
    message: GetLazyState | GetLazyStateKeys, invocation: Invocation, changes: Changes, values: Mapping[str, bytes]
) -> Completion:
    """Record a question for a value, or for the names of all, with its answer. Raises CommandRefused."""
    if invocation.mode is Mode.SERVICE:
        raise CommandRefused(f"{invocation.service}/{invocation.handler} has no state: it is not an object's.")
    id = message.result_completion_id
    answer: Completion
    if isinstance(message, GetLazyStateKeys):
        answer = GetLazyStateKeysCompletion(id, StateKeys(tuple(sorted(values))))
    else:
        content = values.get(message.key)
        answer = GetLazyStateCompletion(id, VOID if content is None else Value(content))
    changes.frames += [encode(message), encode(answer)]
    return answer


def _sleep(message: Sleep, _: Invocation, changes: Changes, __: Context) -> None:
    changes.frames.append(encode(message))
    changes.timers.append(Timer(bounded(message.wake_up_time) or 1, message.result_completion_id))


def _call(message: Call, invocation: Invocation, changes: Changes, context: Context) -> Message:
    return _invoke(message, invocation, changes, context, caller=invocation.id, due=0)


def _send(message: OneWayCall, invocation: Invocation, changes: Changes, context: Context) -> Message:
    return _invoke(message, invocation, changes, context, caller=None, due=bounded(message.invoke_time))


def _invoke(
    message: Call | OneWayCall,
    invocation: Invocation,
    changes: Changes,
    context: Context,
    *,
    caller: bytes | None,
    due: int,
) -> Message:
    _refuse_scope(message.scope or message.limit_key)
    handler = context.registry.resolve(message.service_name, message.handler_name)
    key, once = message.key or None, message.idempotency_key
    created = new_invocation(
        handler,
        key,
        id_at_birth(handler, key, once, context.new_id),
        Input(value=Value(message.parameter), headers=message.headers),
        idempotency_key=once,
    )
    if caller is not None:
        created.caller = caller
        created.caller_completion = message.result_completion_id  # type: ignore[union-attr]
    changes.frames.append(encode(message))
    answer = CallInvocationIdCompletion(message.invocation_id_notification_idx, InvocationRef(format_id(created.id)))
    changes.frames.append(encode(answer))
    token = None if created.idempotency_key is None else context.new_id()
    changes.creations.append(Creation(created, due=due, token=token, is_run=handler.runs_once))
    return answer


def _send_signal(message: SendSignal, invocation: Invocation, changes: Changes, _: Context) -> None:
    target = parse_id(message.target_invocation_id)
    if message.signal == CANCEL_SIGNAL:
        caller = invocation.id if message.entry_name == PASSED_ON else None
        letter = Mail(target, slots.CANCEL, caller=caller)
    else:
        letter = signal(target, Signal(message.signal, message.result))
    changes.frames.append(encode(message))
    changes.mails.append(letter)


def _complete_awakeable(message: CompleteAwakeable, _: Invocation, changes: Changes, __: Context) -> None:
    target, number = parse_awakeable(message.awakeable_id)
    letter = signal(target, Signal(number, message.result))
    changes.frames.append(encode(message))
    changes.mails.append(letter)


def signal(target: bytes, message: Signal) -> Mail:
    """The mail that brings a signal; raises CommandRefused for one that nobody can hear."""
    if isinstance(message.signal, str):
        check_key(message.signal, "The name of a signal")
        return Mail(target, slots.NAMED, encode(message))
    if not FIRST_SIGNAL <= message.signal <= slots.LARGEST_SIGNAL:
        raise CommandRefused(
            f"There is no signal {message.signal}: {CANCEL_SIGNAL} cancels, and awakeables are numbered from "
            f"{FIRST_SIGNAL} to {slots.LARGEST_SIGNAL}."
        )
    return Mail(target, slots.of_signal(message.signal), encode(message))


def _attach(message: AttachInvocation | GetInvocationOutput, _: Invocation, changes: Changes, __: Context) -> None:
    wanted = Attachment(target_of(message.target), message.result_completion_id, isinstance(message, AttachInvocation))
    changes.frames.append(encode(message))
    changes.attachments.append(wanted)


def ask_promise(message: GetPromise | PeekPromise | CompletePromise, handler: HandlerInfo, changes: Changes) -> None:
    """Record what a workflow's handler asks of a promise; the database answers, by mail. Raises CommandRefused."""
    if not handler.is_workflow:
        raise CommandRefused(f"{handler.service!r} is no workflow: {handler.name!r} has no promises.")
    check_key(message.key, "The name of a promise")
    id = message.result_completion_id
    match message:
        case GetPromise():
            asked = PromiseAsk(Question.GET, message.key, id)
        case PeekPromise():
            asked = PromiseAsk(Question.PEEK, message.key, id)
        case CompletePromise():
            asked = PromiseAsk(Question.COMPLETE, message.key, id, _frame(message.completion))
    changes.frames.append(encode(message))
    changes.promises.append(asked)


def _frame(result: Value | Failure) -> bytes:
    try:
        return encode(Output(result))
    except UnicodeEncodeError:
        raise CommandRefused("What a promise gets holds a lone surrogate, which is no Unicode.") from None


def target_of(target: AttachTarget) -> bytes:
    """Which invocation is meant."""
    match target:
        case InvocationTarget(id):
            return parse_id(id)
        case WorkflowTarget(name, key, scope):
            _refuse_scope(scope)
            return workflow_id(name, key)
        case IdempotentRequestTarget(service, handler, once, key, scope):
            _refuse_scope(scope)
            check_key(once, "An idempotency key")
            return idempotent_id(service, key or None, handler, once)


def _refuse_scope(scope: str | None) -> None:
    if scope is not None:
        raise CommandRefused(f"Scopes and limit keys are not supported yet: {scope!r} means nothing here.")


_EFFECTS: dict[type[Message], Callable[..., Message | None]] = {
    Run: _append,
    GetEagerState: _append,
    GetEagerStateKeys: _append,
    SetState: _set_state,
    ClearState: _clear_state,
    ClearAllState: _clear_all_state,
    Sleep: _sleep,
    Call: _call,
    OneWayCall: _send,
    SendSignal: _send_signal,
    CompleteAwakeable: _complete_awakeable,
    AttachInvocation: _attach,
    GetInvocationOutput: _attach,
}


def id_at_birth(handler: HandlerInfo, key: str | None, once: str | None, fresh: Callable[[], bytes]) -> bytes:
    """The id of an invocation about to be created: the same again for a workflow's key and for an idempotency key."""
    if handler.runs_once and key is not None:
        return workflow_id(handler.service, key)
    return fresh() if once is None else idempotent_id(handler.service, key, handler.name, once)


def new_invocation(
    handler: HandlerInfo, key: str | None, id: bytes, input: Input, idempotency_key: str | None = None
) -> Invocation:
    """An invocation of `handler` about to be created; raises CommandRefused when key and handler do not fit."""
    if handler.is_keyed:
        if key is None:
            kind = "a workflow" if handler.is_workflow else "an object"
            raise CommandRefused(f"{handler.service!r} is {kind}: {handler.name!r} needs a key.")
        check_key(key, "A key")
    elif key is not None:
        raise CommandRefused(f"{handler.service!r} is no object: {handler.name!r} takes no key.")
    if idempotency_key is not None:
        check_key(idempotency_key, "An idempotency key")
        if handler.runs_once:
            raise CommandRefused(
                f"{handler.service!r} is a workflow: {handler.name!r} runs once for each key, "
                "and takes no idempotency key."
            )
    if handler.runs_once:
        idempotency_key = key
    return Invocation(
        id=id,
        service=handler.service,
        handler=handler.name,
        key=key,
        mode=handler.mode,
        queue=handler.queue,
        input=encode(input),
        idempotency_key=idempotency_key,
        deployment=None,
    )


def check_key(key: str, what: str) -> None:
    """Keep poison out: one such value would break the whole flush it is in. Raises CommandRefused."""
    if not key:
        raise CommandRefused(f"{what} must not be empty.")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise CommandRefused(f"{what} must be valid Unicode (it holds a lone surrogate).") from None
    if size > LONGEST_KEY:
        raise CommandRefused(f"{what} may have {LONGEST_KEY} bytes of UTF-8, this one has {size}.")
    if "\0" in key:
        raise CommandRefused(f"{what} must not hold a NUL character.")


# How an attempt ends ----------------------------------------------------------------------------------------------


def end(
    invocation: Invocation,
    changes: Changes,
    output: Output,
    handler: HandlerInfo,
    *,
    position: int | None,
    is_cancelled: bool = False,
) -> None:
    """The handler is done: its result moves to history and to whoever awaits it."""
    failure = output.result if isinstance(output.result, Failure) else None
    if failure is None:
        outcome = Outcome.SUCCEEDED
    else:
        outcome = Outcome.CANCELLED if is_cancelled and failure.code == 409 else Outcome.FAILED
    complete(invocation, changes, outcome, output, retention(invocation, handler), position)


def complete(
    invocation: Invocation,
    changes: Changes,
    outcome: Outcome,
    output: Output,
    seconds: int,
    position: int | None,
    described: str | None = None,
) -> None:
    """The end. `described`: an attempt failed, and this is the failure for people, who are told more than callers."""
    frame = encode(output)
    failure = output.result if isinstance(output.result, Failure) else None
    gave_up = described is not None
    if failure is not None and described is None:
        described = describe(failure.code, failure.message)
    changes.ending = Completed(outcome, frame, seconds, position, described, gave_up)
    if invocation.caller is not None:
        changes.mails.append(Mail(invocation.caller, invocation.caller_completion, frame))


def fail(
    invocation: Invocation,
    changes: Changes,
    error: Error,
    handler: HandlerInfo,
    *,
    now_ms: int,
    stored_commands: bool,
    position: int | None,
) -> None:
    """The attempt failed: try again later, pause, or give up, as the error or the policy says."""
    own_delay = error.next_retry_delay  # the policy of a `ctx.run` is at work: the handler's is not used up by it
    retries = invocation.retries + (own_delay is None)
    stuck = 1 if stored_commands else invocation.stuck + 1
    failure = describe(
        error.code,
        error.message,
        error.stacktrace,
        command=error.related_command_index,
        name=error.related_command_name,
        type=error.related_command_type,
    )
    delay = handler.retry.delay_ms(retries) if own_delay is None else own_delay
    gives_up = delay is None and handler.retry.on_max_attempts is OnMaxAttempts.KILL
    if error.behavior is Behavior.FAIL or (gives_up and error.behavior is not Behavior.PAUSE):
        output = Output(Failure(error.code, unicode(error.message)))
        complete(invocation, changes, Outcome.FAILED, output, retention(invocation, handler), position, failure)
    elif error.code == JOURNAL_MISMATCH or error.behavior is Behavior.PAUSE or delay is None:
        changes.ending = Parked(Status.PAUSED, retries=0, stuck=stuck, failure=failure)
    else:
        due = bounded(now_ms + delay)
        changes.ending = Parked(Status.BACKING_OFF, due=due, retries=retries, stuck=stuck, failure=failure)


def suspend(invocation: Invocation, changes: Changes, wait: Wait, *, stored_commands: bool = False) -> None:
    """The handler waits for something far off; trying starts afresh when it comes."""
    awaited = None if is_flat(wait) else encode(Suspension(wait))
    stuck = 0 if stored_commands else invocation.stuck
    changes.ending = Parked(Status.SUSPENDED, waits=tuple(leaves(wait)), awaited=awaited, stuck=stuck)


def leaves(wait: Wait) -> list[int]:
    """The slots of all that the tree mentions: waking too early is safe, too late is not."""
    found = [*wait.completions, *map(slots.of_signal, wait.signals)]
    if wait.named_signals:
        found.append(slots.NAMED)
    for nested in wait.nested:
        found += leaves(nested)
    return found


def retention(invocation: Invocation, handler: HandlerInfo) -> int:
    if invocation.idempotency_key is None:
        return handler.retention
    return max(handler.retention, handler.idempotency_retention)


def describe(
    code: int,
    message: str,
    stacktrace: str = "",
    *,
    command: int | None = None,
    name: str | None = None,
    type: int | None = None,
) -> str:
    """A failure for people, as JSON that PostgreSQL takes: no NUL, no lone surrogates."""
    fields = {
        "code": code,
        "message": message,
        "stacktrace": stacktrace,
        "command": command,
        "name": name,
        "type": type,
    }
    clean = {
        name: storable(value) if isinstance(value, str) else value
        for name, value in fields.items()
        if value not in (None, "")
    }
    return msgspec.json.encode(clean).decode()


def unicode(text: str) -> str:
    """The text with lone surrogates replaced: they have no encoding."""
    return text.encode(errors="replace").decode()


def storable(text: str) -> str:
    """The text as PostgreSQL can keep it: no NUL, no lone surrogates."""
    return unicode(text.replace("\0", "\ufffd"))


def bounded(due: int) -> int:
    """A due time that PostgreSQL's calendar has; later than that is never, all the same."""
    return min(due, LONGEST_DUE)


def _writes_state(invocation: Invocation) -> None:
    if invocation.mode is not Mode.EXCLUSIVE:
        raise CommandRefused(f"{invocation.service}/{invocation.handler} may not write state: it is {invocation.mode}.")
