"""What an invocation waits to hear: what its commands were promised, and how the mail keeps that."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.protocol.codec import decode
from perdure.protocol.ids import parse_id
from perdure.protocol.messages import (
    CANCEL_SIGNAL,
    VOID,
    AttachInvocation,
    AttachInvocationCompletion,
    Call,
    CallCompletion,
    CallInvocationIdCompletion,
    Command,
    CompletePromise,
    CompletePromiseCompletion,
    Completion,
    Entry,
    GetInvocationOutput,
    GetInvocationOutputCompletion,
    GetPromise,
    GetPromiseCompletion,
    InvocationRef,
    Notification,
    Output,
    PeekPromise,
    PeekPromiseCompletion,
    Signal,
    Sleep,
    SleepCompletion,
)
from runtime.core import slots

PROMISES: dict[type[Command], type[Completion]] = {
    Call: CallCompletion,
    Sleep: SleepCompletion,
    AttachInvocation: AttachInvocationCompletion,
    GetInvocationOutput: GetInvocationOutputCompletion,
    GetPromise: GetPromiseCompletion,
    PeekPromise: PeekPromiseCompletion,
    CompletePromise: CompletePromiseCompletion,
}
"""Commands that the mail answers, and how."""


class Expected:
    __slots__ = ("calls", "is_cancelled", "promised")

    def __init__(self) -> None:
        self.promised: dict[int, type[Completion]] = {}
        self.calls: dict[int, bytes] = {}
        """Unfinished calls: completion id -> callee."""
        self.is_cancelled = False
        """It was asked to end, and has heard it."""

    def remember(self, entries: Iterable[Entry]) -> None:
        """What a journal says is still awaited, and whether a cancel was heard."""
        callees: dict[int, bytes] = {}
        calls: list[Call] = []
        for entry in entries:
            promise = PROMISES.get(type(entry))  # type: ignore[arg-type]
            if promise is not None:
                self.promised[entry.result_completion_id] = promise  # type: ignore[union-attr]
                if isinstance(entry, Call):
                    calls.append(entry)
            elif isinstance(entry, CallInvocationIdCompletion) and isinstance(entry.result, InvocationRef):
                callees[entry.completion_id] = parse_id(entry.result.invocation_id)
            elif isinstance(entry, Completion):
                self.promised.pop(entry.completion_id, None)
            elif isinstance(entry, Signal) and entry.signal == CANCEL_SIGNAL:
                self.is_cancelled = True
        self.calls = {
            call.result_completion_id: callees[call.invocation_id_notification_idx]
            for call in calls
            if call.result_completion_id in self.promised
        }

    def add(self, command: Command, callee: bytes | None) -> None:
        """It has asked for something more; `callee`: whom it called, or sent something."""
        promise = PROMISES.get(type(command))
        if promise is None:
            return
        id = command.result_completion_id  # type: ignore[attr-defined]
        self.promised[id] = promise
        if promise is CallCompletion and callee is not None:
            self.calls[id] = callee

    def take(self, slot: int, frame: bytes) -> Notification | None:
        """What is in the mail as it goes into the journal; None: nobody asked for it, or it has been answered."""
        notification = self.read(slot, frame)
        if slot == slots.CANCEL:
            self.is_cancelled = True
        self.promised.pop(slot, None)
        self.calls.pop(slot, None)
        return notification

    def read(self, slot: int, frame: bytes) -> Notification | None:
        """As `take`, and it is expected still."""
        if slot == slots.CANCEL:
            return Signal(CANCEL_SIGNAL)
        if slots.is_signal(slot):
            return decode(frame)[0]  # type: ignore[return-value]
        promise = self.promised.get(slot)
        if promise is None or not frame:
            return None if promise is None else promise(slot, VOID)
        output = decode(frame)[0]
        assert isinstance(output, Output)
        return promise(slot, output.result)
