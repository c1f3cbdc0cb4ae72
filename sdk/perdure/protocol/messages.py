"""The messages between a runtime and a handler: what a journal is made of.

Values only. A host in the worker's process passes these objects; a host behind HTTP passes their frames
(`codec`), and a journal stores the frames. Field order is the order of use, not of the wire: the numbers of
the wire stand in `codec`, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar

from msgspec import Struct

CANCEL_SIGNAL = 1
"""The built-in signal that asks an invocation to end; 2 to 16 are reserved."""


class Message(Struct, frozen=True):
    """One frame: CODE names its kind on the wire and in the journal."""

    CODE: ClassVar[int] = -1


# What results and payloads are made of -------------------------------------------------------------------------------


class Void(Struct, frozen=True):
    """No value: present on the wire, unlike an absent field."""


class Value(Struct, frozen=True):
    """A payload: bytes end to end, nobody but the handler's serde looks inside."""

    content: bytes = b""


class Failure(Struct, frozen=True):
    """A terminal error as it travels: the code reads like an HTTP status."""

    code: int
    message: str
    metadata: tuple[tuple[str, str], ...] = ()


class InvocationRef(Struct, frozen=True):
    """The id of a callee, as text (`inv_…`)."""

    invocation_id: str


class StateKeys(Struct, frozen=True):
    """The names of an object's values."""

    keys: tuple[str, ...] = ()


class Header(Struct, frozen=True):
    key: str
    value: str


Result = Void | Value | Failure | InvocationRef | StateKeys
VOID = Void()


class Combinator(IntEnum):
    """How a wait is satisfied by its parts."""

    UNKNOWN = 0
    FIRST_COMPLETED = 1
    ALL_COMPLETED = 2
    FIRST_SUCCEEDED_OR_ALL_FAILED = 3
    ALL_SUCCEEDED_OR_FIRST_FAILED = 4


class Wait(Struct, frozen=True):
    """What a handler waits for: leaves (completions, signals, named signals) and nested waits."""

    completions: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()
    named_signals: tuple[str, ...] = ()
    nested: tuple[Wait, ...] = ()
    combinator: Combinator = Combinator.FIRST_COMPLETED


# Control -------------------------------------------------------------------------------------------------------------


class Start(Message, frozen=True):
    """The first message of an attempt."""

    CODE: ClassVar[int] = 0x0000
    id: bytes
    debug_id: str
    known_entries: int
    """Entries of the journal that follow, commands and notifications, the input included: at least 1."""
    state_map: Mapping[str, bytes] = {}
    partial_state: bool = False
    """False: a name that is not in state_map has no value. True: ask for it."""
    key: str = ""
    retry_count_since_last_stored_entry: int = 0
    duration_since_last_stored_entry: int = 0
    """Milliseconds."""
    random_seed: int = 0
    scope: str | None = None
    limit_key: str | None = None
    idempotency_key: str | None = None


class Suspension(Message, frozen=True):
    """The attempt ends here and goes on when `awaiting_on` may be satisfied."""

    CODE: ClassVar[int] = 0x0001
    awaiting_on: Wait


class Behavior(IntEnum):
    """What an attempt's error asks the runtime to do."""

    RETRY = 0
    PAUSE = 1
    FAIL = 2


class Error(Message, frozen=True):
    """The attempt failed; the invocation has not."""

    CODE: ClassVar[int] = 0x0002
    code: int
    message: str
    stacktrace: str = ""
    related_command_index: int | None = None
    related_command_name: str | None = None
    related_command_type: int | None = None
    next_retry_delay: int | None = None
    """Milliseconds; absent: the runtime's policy decides."""
    behavior: Behavior = Behavior.RETRY


class End(Message, frozen=True):
    """The handler is done; its result is the last Output."""

    CODE: ClassVar[int] = 0x0003


class ProposeRunCompletion(Message, frozen=True):
    """What a `ctx.run` closure gave: durable once the runtime has stored it as a RunCompletion."""

    CODE: ClassVar[int] = 0x0005
    result_completion_id: int
    result: Value | Failure
    """On the wire a value is raw bytes here, not a Value message."""


class AwaitingOn(Message, frozen=True):
    """A hint for people: the handler waits for this."""

    CODE: ClassVar[int] = 0x0006
    awaiting_on: Wait
    executing_side_effects: bool = False


class ProposeRunCompletionAck(Message, frozen=True):
    CODE: ClassVar[int] = 0x0007
    completion_id: int


# Commands: by the handler, stored and replayed unchanged -------------------------------------------------------------


class Command(Message, frozen=True):
    """An entry made by the handler (the input by the runtime). `name` is for people, usually empty."""


class Input(Command, frozen=True):
    CODE: ClassVar[int] = 0x0400
    value: Value = Value()
    headers: tuple[Header, ...] = ()
    name: str = ""


class Output(Command, frozen=True):
    CODE: ClassVar[int] = 0x0401
    result: Value | Failure
    name: str = ""


class GetLazyState(Command, frozen=True):
    CODE: ClassVar[int] = 0x0402
    key: str
    result_completion_id: int
    name: str = ""


class SetState(Command, frozen=True):
    CODE: ClassVar[int] = 0x0403
    key: str
    value: Value
    name: str = ""


class ClearState(Command, frozen=True):
    CODE: ClassVar[int] = 0x0404
    key: str
    name: str = ""


class ClearAllState(Command, frozen=True):
    CODE: ClassVar[int] = 0x0405
    name: str = ""


class GetLazyStateKeys(Command, frozen=True):
    CODE: ClassVar[int] = 0x0406
    result_completion_id: int
    name: str = ""


class GetEagerState(Command, frozen=True):
    """A read answered from Start's state_map: the answer is journaled with the question."""

    CODE: ClassVar[int] = 0x0407
    key: str
    result: Void | Value
    name: str = ""


class GetEagerStateKeys(Command, frozen=True):
    CODE: ClassVar[int] = 0x0408
    keys: StateKeys
    name: str = ""


class GetPromise(Command, frozen=True):
    CODE: ClassVar[int] = 0x0409
    key: str
    result_completion_id: int
    name: str = ""


class PeekPromise(Command, frozen=True):
    CODE: ClassVar[int] = 0x040A
    key: str
    result_completion_id: int
    name: str = ""


class CompletePromise(Command, frozen=True):
    CODE: ClassVar[int] = 0x040B
    key: str
    completion: Value | Failure
    result_completion_id: int
    name: str = ""


class Sleep(Command, frozen=True):
    CODE: ClassVar[int] = 0x040C
    wake_up_time: int
    """Milliseconds since the epoch."""
    result_completion_id: int
    name: str = ""


class Call(Command, frozen=True):
    """Request-response: the callee's id and its result come back as two completions."""

    CODE: ClassVar[int] = 0x040D
    service_name: str
    handler_name: str
    parameter: bytes
    invocation_id_notification_idx: int
    result_completion_id: int
    key: str = ""
    headers: tuple[Header, ...] = ()
    idempotency_key: str | None = None
    scope: str | None = None
    limit_key: str | None = None
    name: str = ""


class OneWayCall(Command, frozen=True):
    """A send, now or at `invoke_time`."""

    CODE: ClassVar[int] = 0x040E
    service_name: str
    handler_name: str
    parameter: bytes
    invocation_id_notification_idx: int
    invoke_time: int = 0
    """Milliseconds since the epoch; 0 or past: now."""
    key: str = ""
    headers: tuple[Header, ...] = ()
    idempotency_key: str | None = None
    scope: str | None = None
    limit_key: str | None = None
    name: str = ""


class SendSignal(Command, frozen=True):
    CODE: ClassVar[int] = 0x0410
    target_invocation_id: str
    signal: int | str
    result: Void | Value | Failure = VOID
    entry_name: str = ""


PASSED_ON = "passed on"
"""The name of a cancellation that goes down to the calls of the one cancelled: it reaches the callees that it began.
With an idempotency key one may have been there already, and goes on."""


class Run(Command, frozen=True):
    CODE: ClassVar[int] = 0x0411
    result_completion_id: int
    name: str = ""


class InvocationTarget(Struct, frozen=True):
    invocation_id: str


class WorkflowTarget(Struct, frozen=True):
    workflow_name: str
    workflow_key: str
    scope: str | None = None


class IdempotentRequestTarget(Struct, frozen=True):
    service_name: str
    handler_name: str
    idempotency_key: str
    service_key: str | None = None
    scope: str | None = None


AttachTarget = InvocationTarget | WorkflowTarget | IdempotentRequestTarget


class AttachInvocation(Command, frozen=True):
    CODE: ClassVar[int] = 0x0412
    target: AttachTarget
    result_completion_id: int
    name: str = ""


class GetInvocationOutput(Command, frozen=True):
    CODE: ClassVar[int] = 0x0413
    target: AttachTarget
    result_completion_id: int
    name: str = ""


class CompleteAwakeable(Command, frozen=True):
    CODE: ClassVar[int] = 0x0414
    awakeable_id: str
    result: Value | Failure
    name: str = ""


# Notifications: by the runtime ---------------------------------------------------------------------------------------


class Notification(Message, frozen=True):
    """An entry made by the runtime: it settles one completion id, or delivers one signal."""


class Completion(Notification, frozen=True):
    """Settles what the command with this completion id promised; there is exactly one, ever."""

    completion_id: int
    result: Result


class GetLazyStateCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x8002


class GetLazyStateKeysCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x8006


class GetPromiseCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x8009


class PeekPromiseCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x800A


class CompletePromiseCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x800B


class SleepCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x800C


class CallCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x800D


class CallInvocationIdCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x800E


class RunCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x8011


class AttachInvocationCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x8012


class GetInvocationOutputCompletion(Completion, frozen=True):
    CODE: ClassVar[int] = 0x8013


class Signal(Notification, frozen=True):
    """A message to the invocation itself: built-in (1 is cancel), an awakeable (from 17) or named."""

    CODE: ClassVar[int] = 0xFBFF
    signal: int | str
    result: Void | Value | Failure = VOID


Entry = Command | Notification
"""What a journal holds."""
