"""A drive: one invocation while this engine drives it, from the start of an attempt to what ends it.

Everything here happens synchronously on the engine's loop: the attempt emits a message, the pure core says what
follows from it, and that is gathered in the invocation's Changes until the next flush takes them. What must not be
known before it is durable (the result of a step) waits here for that flush.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from perdure.errors import SdkError
from perdure.protocol.codec import decode, encode
from perdure.protocol.ids import format_id
from perdure.protocol.limits import TOO_LARGE, excess
from perdure.protocol.messages import (
    AwaitingOn,
    Behavior,
    Call,
    Command,
    CompletePromise,
    End,
    Entry,
    Error,
    Failure,
    GetLazyState,
    GetLazyStateKeys,
    GetPromise,
    Input,
    Message,
    Notification,
    Output,
    PeekPromise,
    ProposeRunCompletion,
    Run,
    RunCompletion,
    Sleep,
    Start,
    Suspension,
)
from perdure.protocol.target import Target
from perdure.protocol.waits import Known, satisfied
from runtime.core import edits, history, lifecycle, slots
from runtime.core.changes import Changes, Mail, Parked
from runtime.core.expected import Expected
from runtime.core.identity import random_seed
from runtime.core.invocation import Invocation, Outcome, Status
from runtime.core.registry import HandlerInfo
from runtime.engine.attempts import Attempt, Host
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from runtime.engine.keys import Lease
    from runtime.wakeups import Asker

log = logging.getLogger(__name__)

LONG_JOURNAL = 1_000
LONGEST_JOURNAL = 20_000


class Surroundings(Protocol):
    """What a drive needs of its engine."""

    context: lifecycle.Context

    def now_ms(self) -> int: ...
    def add(self, changes: Changes) -> None: ...
    def place(self, changes: Changes) -> None: ...
    def takes(self, new: Invocation, deployment: str | None = None) -> bool: ...
    def expect_timer(self, due: int) -> None: ...
    def ended(self, drive: Drive) -> None: ...


class Drive:
    __slots__ = (
        "attempt",
        "began",
        "changes",
        "expected",
        "handler",
        "heard",
        "invocation",
        "is_begun",
        "is_doomed",
        "is_hearsay",
        "is_over",
        "is_pausing",
        "is_stopping",
        "journal_bytes",
        "lease",
        "next_index",
        "output",
        "position",
        "state",
        "stored_commands",
        "surroundings",
        "touched",
        "undelivered",
        "watchers",
    )

    def __init__(
        self,
        invocation: Invocation,
        handler: HandlerInfo,
        surroundings: Surroundings,
        *,
        lease: Lease | None = None,
        position: int | None = None,
        is_begun: bool = True,
        is_hearsay: bool = False,
    ) -> None:
        self.invocation = invocation
        self.handler = handler
        self.surroundings = surroundings
        self.lease = lease
        self.position = position
        self.is_begun = is_begun
        """The database knows that it runs and on which deployment."""
        self.is_hearsay = is_hearsay
        """That it is ours was said by a hint, and the database has not confirmed it by a flush."""
        self.attempt: Attempt | None = None
        self.changes: Changes | None = None
        self.next_index = 1
        self.journal_bytes = 0
        """All that is in the journal, or will be, but its input."""
        self.output: Output | None = None
        self.expected = Expected()
        self.heard: set[int] = set()
        """Slots of mail that has been journaled, or will be by the flush under way."""
        self.undelivered: deque[tuple[Changes | None, Notification]] = deque()
        """Notifications in the journal's order, the first of which waits for the flush of these changes."""
        self.state: Mapping[str, bytes] = {}
        """The object's values as they were when this came into memory."""
        self.watchers: list[Asker] = []
        self.is_doomed = False
        """It was cancelled before this attempt, and no attempt has begun anything that could be awaited and undone."""
        self.is_over = False
        self.is_stopping = False
        self.is_pausing = False
        self.stored_commands = False
        self.touched = 0.0
        self.began = 0.0
        """When it came into memory, by the loop's clock."""

    def begin(
        self, host: Host, frames: bytes, mail: list[tuple[int, bytes]], state: dict[str, bytes], *, gated: bool
    ) -> None:
        """Start an attempt on the journal; `mail` is what came while nobody drove it."""
        self.state = state
        entries = self._take_up(frames, mail)
        if entries is None:
            return
        start = self._first_message(len(entries), state)
        self.attempt = host.attempt(self._target, start, entries, self.emit, gated=gated)
        for slot, frame in mail:  # first, for the handler may run as soon as it begins: a cancel keeps it from steps
            self.hear(slot, frame)
        if not self.is_over:
            self.attempt.begin()

    def _take_up(self, frames: bytes, mail: list[tuple[int, bytes]]) -> list[Entry] | None:
        """The journal so far; None: what is in the mail keeps it from going on."""
        invocation = self.invocation
        told = {slot for slot, _ in mail}
        entries: list[Entry] = decode(invocation.input)  # type: ignore[assignment]
        if frames:
            entries += decode(frames)  # type: ignore[arg-type]
            self.journal_bytes = len(frames)
            self.next_index = len(entries)
            self.expected.remember(entries)
            self.is_doomed = not any(isinstance(entry, Run | Call | Sleep) for entry in entries)
            if not self.is_begun:  # it may go on for long without a word: people see that it runs again
                self._open_changes()
        elif slots.CANCEL in told and not invocation.crashes:  # asked to go before it came: it never starts
            self._complete(Outcome.CANCELLED, Failure(409, "cancelled"), mail)
            return None
        if slots.KILL in told:
            self.kill(mail)
            return None
        if slots.PAUSE in told:
            if slots.CANCEL not in told:
                self._park_paused()
                return None
            self._stay()
        self.is_doomed &= (self.expected.is_cancelled or slots.CANCEL in told) and not invocation.crashes
        if invocation.awaited and not self._has_come(invocation.awaited, entries, mail):
            return None
        return entries

    def _has_come(self, awaited: bytes, entries: list[Entry], mail: list[tuple[int, bytes]]) -> bool:
        """Whether it was woken by all that it waits for. If not, what has come is journaled, and it sleeps on."""
        suspension = decode(awaited)[0]
        assert isinstance(suspension, Suspension)
        known = Known(entry for entry in entries if isinstance(entry, Notification))
        for slot, frame in mail:
            notification = self.expected.read(slot, frame)
            if notification is not None:
                known.add(notification)
        if satisfied(suspension.awaiting_on, known):
            return True
        for slot, frame in mail:
            self.hear(slot, frame)
        lifecycle.suspend(self.invocation, self._open_changes(), suspension.awaiting_on)
        self._over()
        return False

    @property
    def _values(self) -> Mapping[str, bytes]:
        """The object's values as this attempt has made them; to a shared handler, as they were when it began."""
        return self.state if self.lease is None else self.lease.state

    @property
    def _target(self) -> Target:
        return Target(self.invocation.service, self.invocation.handler, self.invocation.key)

    def _first_message(self, known_entries: int, state: Mapping[str, bytes], *, is_partial: bool = False) -> Start:
        invocation = self.invocation
        return Start(
            id=invocation.id,
            debug_id=format_id(invocation.id),
            known_entries=known_entries,
            state_map=state,
            partial_state=is_partial,
            key=invocation.key or "",
            retry_count_since_last_stored_entry=invocation.stuck,
            duration_since_last_stored_entry=invocation.stuck_ms,
            random_seed=random_seed(invocation.id),
            idempotency_key=None if self.handler.runs_once else invocation.idempotency_key,
        )

    def start_clean(self, values: dict[str, bytes]) -> None:
        """A workflow's run begins: what an earlier one under its key has left is gone."""
        if values:
            values.clear()
            self._open_changes().cleared = True

    def edit(self, mail: list[tuple[int, bytes]], state: dict[str, bytes]) -> None:
        """Carry out what a person wants the values to be: no handler is needed, and it ends at once."""
        told = {slot for slot, _ in mail}
        if slots.KILL in told:
            self._complete(Outcome.KILLED, Failure(409, "killed"), mail)
        elif slots.CANCEL in told:
            self._complete(Outcome.CANCELLED, Failure(409, "cancelled"), mail)
        else:
            input = decode(self.invocation.input)[0]
            assert isinstance(input, Input)
            try:
                edit = edits.decode(input.value.content)
            except edits.NoEdit as error:
                self.refuse(str(error))
                return
            before = dict(state)
            changes = self._open_changes()
            changes.by = edit.by
            for message in edits.carry_out(edit, before):
                self.emit(message)
            if self.output is None:  # refused on the way: none of it is done
                changes.forget_what_was_done()
                state.clear()
                state.update(before)

    def emit(self, message: Message) -> None:
        """Take a message of the attempt."""
        if self.is_over:
            return
        if isinstance(message, Command):
            if type(message) is Output:
                self.output = message
            else:
                self._record(message)
        elif type(message) is ProposeRunCompletion:
            completion = RunCompletion(message.result_completion_id, message.result)
            changes = self._append(completion)
            self.undelivered.append((changes, completion))
            if self.is_pausing:
                self.pause()
        elif type(message) is End:
            self._end()
        elif type(message) is Suspension:
            stored = self.stored_commands
            lifecycle.suspend(self.invocation, self._open_changes(), message.awaiting_on, stored_commands=stored)
            self._over()
        elif type(message) is Error:
            self._fail(message)
        elif type(message) is not AwaitingOn:
            self.refuse(f"{type(message).__name__} is no message of a handler.")

    def hear(self, slot: int, frame: bytes) -> None:
        """Take mail: give it its place in the journal and deliver it. Repetitions are ignored."""
        if self.is_over or self.is_stopping or slot in self.heard:
            return
        if slot == slots.KILL:
            self.kill([(slot, frame)])
            return
        if slot == slots.PAUSE:
            self.pause()
            return
        if self.is_pausing:
            if slot != slots.CANCEL:  # it stays in the mail
                return
            self._stay()
        notification = self.expected.take(slot, frame)
        if notification is None:
            return
        self.heard.add(slot)
        self._append(notification).read.append(slot)
        if self.undelivered:
            self.undelivered.append((None, notification))
        elif self.attempt is not None:
            self.attempt.notify(notification)

    def committed(self, changes: Changes) -> None:
        """A flush made `changes` durable: what waited for it may be known now."""
        for slot in changes.read:
            if slot < 0:  # a verb may come again; a completion never does
                self.heard.discard(slot)
        if changes.frames:
            self.invocation.crashes = 0  # as the database has it now
        undelivered = self.undelivered
        while undelivered and not self.is_over and not self.is_stopping and not self.is_pausing:
            awaited, notification = undelivered[0]
            if awaited is not None and awaited.first > changes.first:
                break
            undelivered.popleft()
            if self.attempt is not None:
                self.attempt.notify(notification)

    def suspend(self) -> bool:
        """Let it leave memory if it waits; False when it does not, or something for it is under way."""
        return self.attempt is not None and not self.is_over and not self.undelivered and self.attempt.suspend()

    def stop(self) -> None:
        """Go no further: what its closures give is still taken and stored, but not told to it."""
        self.is_stopping = True

    def park(self, parked: Parked) -> None:
        """Leave memory without an attempt having ended."""
        self._open_changes().ending = parked
        self._over()

    def pause(self) -> None:
        """Leave memory until somebody resumes it: at once, or when the closures under way have given their results."""
        self.is_pausing = True
        if self.attempt is None or not self.attempt.executing:
            self._park_paused()

    def abort(self) -> None:
        """Drop it: nothing more of this attempt becomes true."""
        self.is_over = True
        if self.attempt is not None:
            self.attempt.abort()

    def kill(self, mail: list[tuple[int, bytes]]) -> None:
        """End it at once, without its handler's help; so do the calls that it began."""
        if self.attempt is not None:
            self.attempt.abort()
        changes = self._open_changes()
        changes.mails += [
            Mail(callee, slots.KILL, caller=self.invocation.id) for callee in self.expected.calls.values()
        ]
        self._complete(Outcome.KILLED, Failure(409, "killed"), mail)

    def dismiss(self, outcome: Outcome, word: str) -> None:
        """End one that never started."""
        self._complete(outcome, Failure(409, word), [])

    def refuse(self, reason: str, *, code: int = 500, command: Message | None = None, name: str = "") -> None:
        """Fail the attempt for what its handler asked."""
        if self.attempt is not None:
            self.attempt.abort()
        self._fail(
            Error(
                code, reason, related_command_type=command.CODE if command else None, related_command_name=name or None
            )
        )

    def _record(self, message: Command) -> None:
        limits = self.surroundings.context.limits
        if self.journal_bytes >= limits.journal:
            self._end_journal(TOO_LARGE, excess("The journal", self.journal_bytes, "journal", limits))
            return
        changes = self._open_changes()
        born, timers, written = len(changes.creations), len(changes.timers), len(changes.frames)
        try:
            if isinstance(message, GetLazyState | GetLazyStateKeys):
                answer: Message | None = lifecycle.answer_read(message, self.invocation, changes, self._values)
            elif isinstance(message, GetPromise | PeekPromise | CompletePromise):
                answer = lifecycle.ask_promise(message, self.handler, changes)  # type: ignore[func-returns-value]
            else:
                answer = lifecycle.record(message, self.invocation, changes, self.surroundings.context)
        except (RuntimeFault, SdkError) as error:
            self.refuse(str(error), command=message)
            return
        self.stored_commands = True
        for frame in changes.frames[written:]:
            self.journal_bytes += len(frame)
        length = changes.first + len(changes.frames)
        if length >= LONGEST_JOURNAL:
            self._end_journal(500, f"The journal has {length} entries, which is the most there may be.")
            return
        if length == LONG_JOURNAL:
            log.warning("the journal of %s has %d entries: each resume replays them all", self._name, length)
        lease = self.lease
        if lease is not None:
            if self.handler.keeps_history:
                self._note_change(message, lease.state, changes)
            lease.apply(message)
        if len(changes.creations) > born:
            self.surroundings.place(changes)
        if len(changes.timers) > timers:
            self.surroundings.expect_timer(changes.timers[-1].due)
        self.expected.add(message, changes.creations[-1].invocation.id if len(changes.creations) > born else None)
        if answer is not None:
            self.undelivered.append((changes, answer))  # type: ignore[arg-type]

    def _note_change(self, command: Command, values: dict[str, bytes], changes: Changes) -> None:
        if changes.history is None:
            changes.history = {}
            changes.history_retention = lifecycle.retention(self.invocation, self.handler)
        history.note(changes.history, values, command)

    def _end_journal(self, code: int, reason: str) -> None:
        """No invocation may go on for ever: what it wanted next is not recorded, and it fails for good."""
        if self.attempt is not None:
            self.attempt.abort()
        self._fail(Error(code, f"{reason} Split the work into calls.", behavior=Behavior.FAIL))

    @property
    def _name(self) -> str:
        return f"{self.invocation.service}/{self.invocation.handler} {format_id(self.invocation.id)}"

    def _append(self, notification: Notification) -> Changes:
        changes = self._open_changes()
        frame = encode(notification)
        self.journal_bytes += len(frame)
        changes.frames.append(frame)
        return changes

    def _open_changes(self) -> Changes:
        """The changes that the next flush will take."""
        changes = self.changes
        if changes is None or changes.sealed:
            if changes is not None:
                self.next_index = changes.first + len(changes.frames)
            changes = Changes(self.invocation, first=self.next_index)
            if not self.is_begun:
                changes.begun = self.handler.deployment
                self.is_begun = True
            changes.is_first_word, self.is_hearsay = self.is_hearsay, False
            self.changes = changes
            self.surroundings.add(changes)
        return changes

    def _end(self) -> None:
        if self.output is None:
            self.refuse("The handler ended without a result.")
            return
        changes = self._open_changes()
        changes.begun = self.handler.deployment
        lifecycle.end(
            self.invocation,
            changes,
            self.output,
            self.handler,
            position=self.position,
            is_cancelled=self.expected.is_cancelled,
        )
        self._over()

    def _complete(self, outcome: Outcome, failure: Failure, mail: list[tuple[int, bytes]]) -> None:
        changes = self._open_changes()
        changes.read += [slot for slot, _ in mail]
        self.output = Output(failure)
        seconds = lifecycle.retention(self.invocation, self.handler)
        lifecycle.complete(self.invocation, changes, outcome, self.output, seconds, self.position)
        self._over()

    def _fail(self, error: Error) -> None:
        log.warning("an attempt of %s failed: %s", self._name, error.message)
        if self.is_doomed and self._has_heard_nothing and _may_pass(error):
            self._complete(Outcome.CANCELLED, Failure(409, "cancelled"), [])
            return
        changes = self._open_changes()
        lifecycle.fail(
            self.invocation,
            changes,
            error,
            self.handler,
            now_ms=self.surroundings.now_ms(),
            stored_commands=self.stored_commands,
            position=self.position,
        )
        if self.is_pausing and isinstance(changes.ending, Parked):
            changes.ending.status, changes.ending.due = Status.PAUSED, 0
            changes.read.append(slots.PAUSE)
        self._over()

    @property
    def _has_heard_nothing(self) -> bool:
        """This attempt has come to no await, and has called nobody who would have to be told."""
        return self.attempt is not None and not self.attempt.has_waited and not self.expected.promised

    def _park_paused(self) -> None:
        if self.attempt is not None:
            self.attempt.abort()
        changes = self._open_changes()
        changes.read.append(slots.PAUSE)
        stuck = 0 if self.stored_commands else self.invocation.stuck
        changes.ending = Parked(Status.PAUSED, stuck=stuck, crashes=self.invocation.crashes)
        self._over()

    def _stay(self) -> None:
        """Whoever is to be cancelled must not sleep."""
        self.is_pausing = False
        self.heard.add(slots.PAUSE)
        self._open_changes().read.append(slots.PAUSE)

    def _over(self) -> None:
        self.is_over = True
        self.surroundings.ended(self)


def _may_pass(error: Error) -> bool:
    """Whether an attempt that failed so is tried again, as far as it is concerned."""
    return error.behavior is Behavior.RETRY and error.code != lifecycle.JOURNAL_MISMATCH
