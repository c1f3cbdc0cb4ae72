"""The replay machine: decides what a handler sees, and in which order. It does no I/O and reads no clock.

Notifications are taken from the journal one at a time, in its order, and only while the handler waits. What is settled
at any point of the handler's code is therefore the same in every replay, and so is the winner of every race.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from perdure.errors import AttemptEnded, Cancelled, TerminalError
from perdure.journal import Journal
from perdure.nodes import AwakeableLeaf, Leaf, Node, named_signals
from perdure.protocol import messages as m
from perdure.protocol.ids import FIRST_AWAKEABLE
from perdure.protocol.limits import DEFAULTS, TOO_LARGE, Limits, excess

Pause = Callable[[Node], Generator[Any, None, None]]
"""Suspends the handler's coroutine until something new is in the inbox, or unwinds it, for its attempt is over."""


SHORT = DEFAULTS.name // 4
"""Characters that fit into a name whatever they are."""


class Machine:
    """One attempt's view of its invocation: the journal, the state, and who is still to answer."""

    __slots__ = (
        "_awakeables",
        "_base",
        "_calls",
        "_latest_awakeable",
        "_latest_id",
        "_leaves",
        "_limits",
        "_partial",
        "_pause",
        "_unheard",
        "_written",
        "has_waited",
        "inbox",
        "journal",
    )

    def __init__(
        self,
        start: m.Start,
        entries: Sequence[m.Entry],
        emit: Callable[[m.Message], None],
        pause: Pause,
        limits: Limits = DEFAULTS,
    ) -> None:
        commands = [entry for entry in entries if isinstance(entry, m.Command)]
        self.journal = Journal(commands, emit)
        self.inbox = deque(entry for entry in entries if isinstance(entry, m.Notification))
        self.has_waited = False
        """Whether the handler has come to an await at which it would hear of a cancellation."""
        self._pause = pause
        self._limits = limits
        self._latest_id = 0
        self._leaves: dict[int, Leaf] = {}
        self._calls: dict[int, Leaf] = {}  # unfinished calls: completion id of the result, leaf of the callee's id
        self._latest_awakeable = FIRST_AWAKEABLE - 1
        self._awakeables: dict[int, Leaf] = {}  # by number, also those that are completed before they are made
        self._unheard: dict[str, deque[m.Result]] = {}  # named signals that nobody has waited for yet
        self._base: Mapping[str, bytes] = start.state_map  # the runtime's own: what we write stands beside it
        self._written: dict[str, bytes | None] = {}
        self._partial = start.partial_state

    # Waiting

    def wait(self, target: Node) -> Generator[Any, None, None]:
        """Wait until `target` is settled; raises Cancelled when the invocation is asked to end before that."""
        self.has_waited = True
        if self.journal.over:
            yield from self._pause(target)
        self._hear(target)
        while not self.can_go_on(target):
            if self.journal.replaying:
                raise self.journal.starve()
            yield from self._pause(target)
        if not target.settled:
            self.inbox.popleft()
            yield from self._cancel()

    def can_go_on(self, target: Node) -> bool:
        """Take notifications until `target` is settled or a cancellation is next; False: there are not enough."""
        inbox = self.inbox
        while not target.settled:
            if not inbox:
                return False
            notification = inbox[0]
            if isinstance(notification, m.Completion):
                self._settle(notification)
            elif isinstance(notification, m.Signal):
                if notification.signal == m.CANCEL_SIGNAL:
                    return True
                self._take(notification, target)
            inbox.popleft()
        return True

    def _take(self, signal: m.Signal, target: Node) -> None:
        """Settle an awakeable, also one that is not made yet, or keep a named signal for whoever waits for it."""
        name = signal.signal
        if isinstance(name, str):
            self._unheard.setdefault(name, deque()).append(signal.result)
            self._hear(target)
        elif not (awakeable := self._awakeable(name)).settled:
            awakeable.hear(signal.result)

    def _hear(self, target: Node) -> None:
        """Give named signals to what waits for them just now: who has lost a race takes none from who asks next."""
        if not self._unheard:
            return
        for leaf in named_signals(target):
            if queue := self._unheard.get(leaf.name):
                leaf.hear(queue.popleft())
                if not queue:
                    del self._unheard[leaf.name]

    def _settle(self, completion: m.Completion) -> None:
        id = completion.completion_id
        leaf = self._leaves.pop(id, None)
        if leaf is None:
            return
        self._calls.pop(id, None)
        leaf.hear(completion.result)

    def _cancel(self) -> Generator[Any, None, None]:
        """Pass the cancellation on to the calls, then raise it here."""
        for callee in list(self._calls.values()):
            if not callee.settled:
                yield from self.wait(callee)
            if isinstance(callee.result, m.InvocationRef):
                self.cancel(callee.result.invocation_id, m.PASSED_ON)
        raise Cancelled

    # Commands

    def sleep(self, wake_up_time: int) -> Leaf:
        id = self._next_id()
        self.journal.write(m.Sleep(wake_up_time, id))
        return self._expect(id)

    def run(self, name: str) -> Leaf:
        id = self._next_id()
        self.journal.write(m.Run(id, name))
        return self._expect(id)

    def call(
        self,
        service: str,
        handler: str,
        key: str,
        parameter: bytes,
        headers: tuple[m.Header, ...],
        idempotency_key: str | None,
    ) -> tuple[Leaf, Leaf]:
        """The leaves of the callee's id and of its result. Raises TerminalError when something is too large."""
        id, result = self._next_id(), self._next_id()
        fits = len(parameter) <= self._limits.payload and len(key) <= SHORT and idempotency_key is None
        self.journal.write(
            m.Call(service, handler, parameter, id, result, key, headers, idempotency_key),
            None if fits else self._excess_of_call(service, handler, key, parameter, idempotency_key),
        )
        self._calls[result] = callee = self._expect(id)
        return callee, self._expect(result)

    def send(
        self,
        service: str,
        handler: str,
        key: str,
        parameter: bytes,
        headers: tuple[m.Header, ...],
        idempotency_key: str | None,
        invoke_time: int,
    ) -> Leaf:
        """The leaf of the callee's id. Raises TerminalError when something is too large."""
        id = self._next_id()
        fits = len(parameter) <= self._limits.payload and len(key) <= SHORT and idempotency_key is None
        self.journal.write(
            m.OneWayCall(service, handler, parameter, id, invoke_time, key, headers, idempotency_key),
            None if fits else self._excess_of_call(service, handler, key, parameter, idempotency_key),
        )
        return self._expect(id)

    def cancel(self, invocation_id: str, name: str = "") -> None:
        """Ask an invocation to end."""
        self.journal.write(m.SendSignal(invocation_id, m.CANCEL_SIGNAL, entry_name=name))

    def awakeable(self) -> Leaf:
        """The next one, whose id is its number; nothing is journaled."""
        self._latest_awakeable += 1
        return self._awakeable(self._latest_awakeable)

    def _awakeable(self, number: int) -> Leaf:
        if number not in self._awakeables:
            self._awakeables[number] = AwakeableLeaf(number)
        return self._awakeables[number]

    def send_signal(self, invocation_id: str, name: str, result: m.Void | m.Value | m.Failure) -> None:
        """Raises TerminalError when something is too large."""
        problem = self._excess_of_name("The name of a signal", name) or self._excess_of_result("a signal", result)
        self.journal.write(m.SendSignal(invocation_id, name, result), problem)

    def complete_awakeable(self, id: str, result: m.Value | m.Failure) -> None:
        """Raises TerminalError when something is too large."""
        self.journal.write(m.CompleteAwakeable(id, result), self._excess_of_result("an awakeable", result))

    def get_promise(self, name: str) -> Leaf:
        id = self._next_id()
        self.journal.write(m.GetPromise(name, id), self._excess_of_name("The name of a promise", name))
        return self._expect(id)

    def peek_promise(self, name: str) -> Leaf:
        id = self._next_id()
        self.journal.write(m.PeekPromise(name, id), self._excess_of_name("The name of a promise", name))
        return self._expect(id)

    def complete_promise(self, name: str, result: m.Value | m.Failure) -> Leaf:
        """Raises TerminalError when something is too large."""
        id = self._next_id()
        problem = self._excess_of_name("The name of a promise", name) or self._excess_of_result("a promise", result)
        self.journal.write(m.CompletePromise(name, result, id), problem)
        return self._expect(id)

    def attach(self, target: m.AttachTarget) -> Leaf:
        id = self._next_id()
        self.journal.write(m.AttachInvocation(target, id))
        return self._expect(id)

    def output_of(self, target: m.AttachTarget) -> Leaf:
        id = self._next_id()
        self.journal.write(m.GetInvocationOutput(target, id))
        return self._expect(id)

    def output(self, result: m.Value | m.Failure) -> None:
        if self.journal.over:
            raise AttemptEnded
        self.journal.write(m.Output(result))

    def get(self, key: str) -> Leaf:
        id = self._next_id()
        known = key in self._written
        content = self._written[key] if known else self._base.get(key)
        command: m.Command
        if content is not None:
            command = m.GetEagerState(key, m.Value(content))
        elif known or not self._partial:
            command = m.GetEagerState(key, m.VOID)
        else:
            command = m.GetLazyState(key, id)
        command = self.journal.write(command)
        return Leaf(id, command.result) if isinstance(command, m.GetEagerState) else self._expect(id)

    def keys(self) -> Leaf:
        id = self._next_id()
        command: m.Command = m.GetLazyStateKeys(id)
        if not self._partial:
            values = {**self._base, **self._written}
            command = m.GetEagerStateKeys(m.StateKeys(tuple(sorted(key for key in values if values[key] is not None))))
        command = self.journal.write(command)
        return Leaf(id, command.keys) if isinstance(command, m.GetEagerStateKeys) else self._expect(id)

    def set(self, key: str, content: bytes) -> None:
        """Raises TerminalError when something is too large."""
        fits = len(content) <= self._limits.value and len(key) <= SHORT
        self.journal.write(m.SetState(key, m.Value(content)), None if fits else self._excess_of_value(key, content))
        self._written[key] = content

    def clear(self, key: str) -> None:
        """Raises TerminalError when something is too large."""
        self.journal.write(m.ClearState(key), self._excess_of_name("The name of a value", key))
        self._written[key] = None

    def clear_all(self) -> None:
        self.journal.write(m.ClearAllState())
        self._base, self._written, self._partial = {}, {}, False

    def result(self, content: bytes, what: str) -> m.Value:
        """What a handler or a function has given, if it is not too large: raises TerminalError."""
        if len(content) > self._limits.result:
            message = excess(f"The result of {what}", len(content), "result", self._limits)
            raise TerminalError(message, code=TOO_LARGE)
        return m.Value(content)

    def _excess_of_call(
        self, service: str, handler: str, key: str, parameter: bytes, idempotency_key: str | None
    ) -> str | None:
        if len(parameter) > self._limits.payload:
            return excess(f"The argument of {service}/{handler}", len(parameter), "payload", self._limits)
        problem = self._excess_of_name("A key", key) if key else None
        if problem is None and idempotency_key is not None:
            problem = self._excess_of_name("An idempotency key", idempotency_key)
        return problem

    def _excess_of_value(self, key: str, content: bytes) -> str | None:
        if len(content) > self._limits.value:
            return excess(f"The value {key!r}", len(content), "value", self._limits)
        return self._excess_of_name("The name of a value", key)

    def _excess_of_result(self, what: str, result: m.Void | m.Value | m.Failure) -> str | None:
        size = len(result.content) if isinstance(result, m.Value) else 0
        return excess(f"What {what} brings", size, "result", self._limits) if size > self._limits.result else None

    def _excess_of_name(self, what: str, name: str) -> str | None:
        size = len(name.encode(errors="replace"))
        return excess(what, size, "name", self._limits) if size > self._limits.name else None

    def _next_id(self) -> int:
        self._latest_id += 1
        return self._latest_id

    def _expect(self, id: int) -> Leaf:
        self._leaves[id] = leaf = Leaf(id)
        return leaf
