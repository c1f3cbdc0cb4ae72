"""The commands of one invocation: compared with the record as far as it goes, then written on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import structs

from perdure.errors import AttemptEnded, JournalMismatch, TerminalError
from perdure.protocol import messages as m
from perdure.protocol.limits import TOO_LARGE

MOST_SWALLOWED = 100
"""How often a handler may catch what says that its attempt is over: to undo things it may well ask for several."""

UNANSWERED = m.ClearAllState()
"""Stands for a command that is neither written nor ever answered."""


class Journal:
    """What the handler asked for in earlier attempts, and asks for now.

    `index` is the place of the latest command; the input stands at 0. A mismatch is not raised as itself: an author's
    `except Exception` would swallow it, and the handler would go on beside its journal.
    """

    __slots__ = ("_emit", "_known", "_recorded", "_swallowed", "index", "mismatch", "over")

    def __init__(self, recorded: Sequence[m.Command], emit: Callable[[m.Message], None]) -> None:
        self._recorded = recorded
        self._known = len(recorded)
        self._emit = emit
        self.index = 0
        self.over = False
        self.mismatch: JournalMismatch | None = None
        self._swallowed = 0

    @property
    def replaying(self) -> bool:
        """Whether commands of earlier attempts are left."""
        return self.index + 1 < self._known

    @property
    def finished(self) -> bool:
        """Whether an earlier attempt came to the handler's end."""
        return isinstance(self._recorded[-1], m.Output)

    def is_recorded(self, index: int) -> bool:
        """Whether the command at this place was made by an earlier attempt."""
        return index < self._known

    def write(self, command: m.Command, excess: str | None = None) -> m.Command:
        """Take the next command, and give it as it stands in the journal: as recorded, or as it is now made.

        With an excess it is not written, and TerminalError raised, unless that very command was recorded when limits
        were others.
        """
        if self.over:
            return self.unwind()
        if excess is not None and not self._is_next(command):
            raise TerminalError(excess, code=TOO_LARGE)
        self.index = index = self.index + 1
        if index >= self._known:
            self._emit(command)
            return command
        recorded = self._recorded[index]
        if recorded != command and not _same(recorded, command):
            same = in_words(command) == in_words(recorded)
            raise self.contradict(
                f"the handler now asks for {'the same with other content' if same else in_words(command)}"
            )
        return recorded

    def _is_next(self, command: m.Command) -> bool:
        index = self.index + 1
        return index < self._known and _same(self._recorded[index], command)

    def unwind(self) -> m.Command:
        """Raise AttemptEnded, because the attempt is over; returns when its handler has swallowed that too often."""
        if self.is_deaf:
            return UNANSWERED
        self._swallowed += 1
        raise AttemptEnded

    @property
    def is_deaf(self) -> bool:
        """Whether the handler goes on whatever it is told. Raised once more, it would go round in a circle for ever."""
        return self._swallowed > MOST_SWALLOWED

    def starve(self) -> AttemptEnded:
        """The handler waits for what no entry answers, though commands were recorded behind this point."""
        self.index += 1
        return self.contradict("the handler now waits for something that was never answered")

    def contradict(self, asked: str) -> AttemptEnded:
        """End the attempt, because the command at `index` is not the recorded one."""
        recorded = in_words(self._recorded[self.index])
        self.mismatch = JournalMismatch(f"At command {self.index} the journal has {recorded}, but {asked}.")
        self.over = True
        return AttemptEnded()

    @property
    def contradicted(self) -> m.Command:
        """The recorded command that the mismatch is about."""
        return self._recorded[self.index]


def _same(recorded: m.Command, asked: m.Command) -> bool:
    """Whether two commands that differ mean the same: times are those of the first attempt, and so are answers."""
    match recorded, asked:
        case m.Sleep(), m.Sleep():
            return recorded.name == asked.name
        case m.OneWayCall(), m.OneWayCall():
            return structs.replace(asked, invoke_time=recorded.invoke_time) == recorded
        case m.SendSignal(), m.SendSignal():  # what it was to reach, it has reached
            return structs.replace(asked, entry_name=recorded.entry_name) == recorded
        case m.GetEagerState() | m.GetLazyState(), m.GetEagerState() | m.GetLazyState():
            return recorded.key == asked.key
        case m.GetEagerStateKeys() | m.GetLazyStateKeys(), m.GetEagerStateKeys() | m.GetLazyStateKeys():
            return True
        case _:
            return recorded == asked


def in_words(command: m.Command) -> str:
    """A command as a person would say it, without what it carries: not everybody who sees a failure may see that.

    >>> in_words(m.Call("Greeter", "greet", b'"Hi"', 1, 2))
    'a call to Greeter/greet with 4 bytes (completion 2)'
    """
    match command:
        case m.Call():
            return f"a call to {_callee(command)} (completion {command.result_completion_id})"
        case m.OneWayCall():
            return f"a send to {_callee(command)} (completion {command.invocation_id_notification_idx})"
        case m.Run():
            return f'a run named "{command.name}" (completion {command.result_completion_id})'
        case m.Sleep():
            return f"a sleep (completion {command.result_completion_id})"
        case m.SetState():
            return f'setting "{command.key}" to {_size(command.value.content)}'
        case m.ClearState():
            return f'clearing "{command.key}"'
        case m.GetEagerState() | m.GetLazyState():
            return f'reading "{command.key}"'
        case m.Output(result=m.Value(content)):
            return f"the end, with a result of {_size(content)}"
        case m.Output(result=m.Failure(code, message)):
            return f"the end, with the failure {code} {message}"
        case m.SendSignal():
            return f"signal {command.signal} to {command.target_invocation_id}"
        case m.CompleteAwakeable():
            return f"completing the awakeable {command.awakeable_id}"
        case m.GetPromise():
            return f'waiting for the promise "{command.key}" (completion {command.result_completion_id})'
        case m.PeekPromise():
            return f'looking at the promise "{command.key}" (completion {command.result_completion_id})'
        case m.CompletePromise():
            return f'completing the promise "{command.key}" (completion {command.result_completion_id})'
        case m.AttachInvocation():
            return f"attaching to another invocation (completion {command.result_completion_id})"
        case m.GetInvocationOutput():
            return f"looking at the result of another invocation (completion {command.result_completion_id})"
        case m.ClearAllState():
            return "clearing all values"
        case m.GetEagerStateKeys() | m.GetLazyStateKeys():
            return "reading the names of all values"
        case _:
            return type(command).__name__


def _callee(call: m.Call | m.OneWayCall) -> str:
    path = "/".join(filter(None, (call.service_name, call.key, call.handler_name)))
    key = f", idempotency key {call.idempotency_key}" if call.idempotency_key is not None else ""
    headers = "".join(f", header {header.key}" for header in call.headers)
    return f"{path} with {_size(call.parameter)}{key}{headers}"


def _size(content: bytes) -> str:
    return f"{len(content)} bytes" if content else "nothing"
