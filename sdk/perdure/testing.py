"""A handler on a stage: played on a journal in memory, with answers that you give and time that you own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, ParamSpec, TypeVar

from msgspec import Struct

from perdure.closures import failure
from perdure.endpoint import Endpoint
from perdure.errors import TerminalError
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol import messages as m
from perdure.protocol.ids import FIRST_AWAKEABLE
from perdure.protocol.target import Target
from perdure.protocol.waits import leaves
from perdure.serde import encode_json, encode_stored, serde_for, stored_serde
from perdure.service import RUN, Component, Handler

P = ParamSpec("P")
R = TypeVar("R")

NEVER = object()
"""The answer of a callee that does not answer."""


class AttemptFailed(AssertionError):
    """The handler failed in a way that a runtime would try again."""

    def __init__(self, error: m.Error) -> None:
        super().__init__(f"{error.message}\n{error.stacktrace}")
        self.error = error


class Rehearsal(Generic[P, R]):
    """One invocation of a handler, without a runtime.

    `ctx.run` functions are executed; calls are answered from `answers`: by handler (or by "Service/handler"), a value,
    a function of the argument, a TerminalError, or NEVER; so is who attaches to others, also by an invocation's id.
    Sleeps end when nothing else can go on, and move the clock.

    >>> class Greeter(Service):
    ...     @handler
    ...     async def greet(self, ctx: Context, name: str) -> str:
    ...         await ctx.sleep(timedelta(days=30))
    ...         return f"Hello {name}"
    >>> async def test_greets_in_a_month() -> None:
    ...     rehearsal = Rehearsal(Greeter.greet)
    ...     assert await rehearsal.play("Ann") == "Hello Ann"
    ...     await rehearsal.replay()
    >>> asyncio.run(test_greets_in_a_month())
    """

    def __init__(
        self,
        handler: Handler[P, R],
        *,
        service: Component | None = None,
        key: str = "",
        state: Mapping[str, Any] | None = None,
        answers: Mapping[Handler[..., Any] | str, Any] | None = None,
        promises: Mapping[str, Any] | None = None,
        awakeables: Sequence[Any] = (),
        signals: Mapping[str, Sequence[Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        now: datetime = datetime(2030, 1, 1, tzinfo=UTC),
        cancel_after: int | None = None,
        attempts: int = 1,
    ) -> None:
        """`service`: an instance, when the class needs something to be made with. `cancel_after`: cancel it when it
        waits and so many commands are in its journal. `attempts`: how many may fail, but for the last.

        What others say comes when the handler waits for it: `promises` that they give, by name, `awakeables` in the
        order of their making, and `signals`, several of a name. Each is a value, a TerminalError, or NEVER.
        """
        self.now = now.timestamp()
        self.state = {name: encode_json(value) for name, value in (state or {}).items()}
        self.entries: list[m.Entry] = []
        """The journal."""
        self._handler = handler
        self._answers = dict(_answer(called, answer) for called, answer in (answers or {}).items())
        self._promises = {name: _said(value) for name, value in (promises or {}).items() if value is not NEVER}
        self._askers: dict[str, list[int]] = {}  # who waits for a promise that is not given: completion ids
        self._signals: dict[int | str, deque[Any]] = {name: deque(said) for name, said in (signals or {}).items()}
        self._signals |= {FIRST_AWAKEABLE + number: deque([said]) for number, said in enumerate(awakeables)}
        self._headers = tuple(m.Header(name, value) for name, value in (headers or {}).items())
        self._host = InProcessHost(Endpoint(service or handler.owner), clock=lambda: self.now)
        self._target = Target(handler.owner.__perdure__.name, handler.name, key or None)
        self._cancel_after = cancel_after
        self._attempts = attempts
        self._answered: deque[m.Notification] = deque()
        self._sleepers: list[m.Sleep] = []
        self._end: m.Message | None = None

    @property
    def commands(self) -> list[m.Command]:
        """What the handler did, without its input."""
        return [entry for entry in self.entries[1:] if isinstance(entry, m.Command)]

    def value(self, name: str, hint: Any = Any) -> Any:
        """A value of the object, as it stands now; None: there is none."""
        return stored_serde(hint).decode(self.state[name]) if name in self.state else None

    def promise(self, name: str, hint: Any = Any) -> Any:
        """What a promise was given, by the handler or by others; None: nothing. Raises what it was rejected with."""
        result = self._promises.get(name)
        if isinstance(result, m.Failure):
            raise _error(result)
        return None if result is None else serde_for(hint).decode(result.content)

    async def play(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Play it to its end, and give its result.

        Raises the TerminalError that it ends with, AttemptFailed, or AssertionError when it waits for an answer that
        nobody gives.
        """
        self.entries = [m.Input(m.Value(self._handler.argument(args, dict(kwargs))), self._headers)]
        failures = 0
        while not isinstance(self._end, m.End):
            known = len(self.commands)
            await self._attempt(failures)
            if isinstance(self._end, m.Error):
                self._attempts -= 1
                if not self._attempts:
                    raise AttemptFailed(self._end)
                self.now += (self._end.next_retry_delay or 0) / 1000
                failures = failures + 1 if len(self.commands) == known else 1
        return self._result()

    async def replay(self) -> None:
        """Play the recorded journal once more; raises AssertionError when the handler does something else.

        Nothing is executed or changed: all answers are in the journal.
        """
        recorded = self.entries[:-1] if isinstance(self.entries[-1], m.Output) else self.entries
        emitted: list[m.Message] = []
        attempt = self._host.attempt(self._target, self._start(0, self.state), recorded, emitted.append)
        attempt.begin()
        while not emitted and attempt.waiting is None:
            await asyncio.sleep(0)
        attempt.suspend()
        expected = [self.entries[-1], m.End()]
        assert emitted == expected, f"A replay ends with {emitted} instead of {expected}."

    # The runtime's part

    async def _attempt(self, failures: int) -> None:
        self._end = None
        start = self._start(failures, dict(self.state))
        attempt = self._host.attempt(self._target, start, list(self.entries), self._record)
        self._notify = attempt.notify
        attempt.begin()
        while self._end is None:
            if (wait := attempt.waiting) is not None:
                self._go_on(wait)
            await asyncio.sleep(0.001 if attempt.executing else 0)

    def _start(self, failures: int, state: Mapping[str, bytes]) -> m.Start:
        return m.Start(
            id=bytes(16),
            debug_id="inv_10000000000000000000000",
            known_entries=len(self.entries),
            state_map=state,
            key=self._target.key or "",
            retry_count_since_last_stored_entry=failures,
        )

    def _go_on(self, wait: m.Wait) -> None:
        """Give a waiting handler what comes next."""
        if self._cancel_after is not None and len(self.commands) >= self._cancel_after:
            self._cancel_after = None
            self._deliver(m.Signal(m.CANCEL_SIGNAL))
        elif self._answered:
            self._deliver(self._answered.popleft())
        elif signal := self._signal(wait):
            self._deliver(signal)
        elif self._sleepers:
            self._sleepers.sort(key=lambda sleep: sleep.wake_up_time)
            sleep = self._sleepers.pop(0)
            self.now = max(self.now, sleep.wake_up_time / 1000)
            self._deliver(m.SleepCompletion(sleep.result_completion_id, m.VOID))
        else:
            raise AssertionError(f"{self._target} waits for what nobody gives, after {self.commands[-1:]}.")

    def _signal(self, wait: m.Wait) -> m.Signal | None:
        """The next that is said of what it waits for."""
        for part in leaves(wait):
            signals: list[int | str] = [*part.signals, *part.named_signals]
            for signal in signals:
                said = self._signals.get(signal)
                if said and said[0] is not NEVER:
                    return m.Signal(signal, _said(said.popleft()))
        return None

    def _deliver(self, notification: m.Notification) -> None:
        self.entries.append(notification)
        self._notify(notification)

    def _record(self, message: m.Message) -> None:
        match message:
            case m.ProposeRunCompletion(id, result):
                self._answered.append(m.RunCompletion(id, result))
                return
            case m.Command():
                self.entries.append(message)
            case _:
                self._end = message
        match message:
            case m.Sleep():
                self._sleepers.append(message)
            case m.Call():
                self._deliver_id(message.invocation_id_notification_idx)
                self._answer(message)
            case m.OneWayCall():
                self._deliver_id(message.invocation_id_notification_idx)
            case m.AttachInvocation(target, id):
                if end := self._answer_of(_path(target)).to(b""):
                    self._answered.append(m.AttachInvocationCompletion(id, end))
            case m.GetInvocationOutput(target, id):
                end = self._answer_of(_path(target)).to(b"")
                self._answered.append(m.GetInvocationOutputCompletion(id, end or m.VOID))
            case m.GetPromise(name, id):
                self._askers.setdefault(name, []).append(id)
                self._tell_askers(name)
            case m.PeekPromise(name, id):
                self._answered.append(m.PeekPromiseCompletion(id, self._promises.get(name, m.VOID)))
            case m.CompletePromise(name, result, id):
                self._answered.append(m.CompletePromiseCompletion(id, self._complete(name, result)))
                self._tell_askers(name)
            case m.SetState(name, m.Value(content)):
                self.state[name] = content
            case m.ClearState(name):
                self.state.pop(name, None)
            case m.ClearAllState():
                self.state.clear()
            case _:
                pass

    def _deliver_id(self, id: int) -> None:
        self._deliver(m.CallInvocationIdCompletion(id, m.InvocationRef(f"inv_1{id:022}")))

    def _answer(self, call: m.Call) -> None:
        result = self._answer_of(f"{call.service_name}/{call.handler_name}").to(call.parameter)
        if result is not None:
            self._answered.append(m.CallCompletion(call.result_completion_id, result))

    def _answer_of(self, path: str) -> _Answer:
        if path not in self._answers:
            raise AssertionError(f"{self._target} calls {path}, for which there is no answer.")
        return self._answers[path]

    def _complete(self, name: str, result: m.Value | m.Failure) -> m.Void | m.Failure:
        if name in self._promises:
            return m.Failure(409, "promise was already completed")
        self._promises[name] = result
        return m.VOID

    def _tell_askers(self, name: str) -> None:
        if name in self._promises:
            for id in self._askers.pop(name, ()):
                self._answered.append(m.GetPromiseCompletion(id, self._promises[name]))

    def _result(self) -> R:
        output = self.commands[-1]
        assert isinstance(output, m.Output)
        if isinstance(output.result, m.Failure):
            raise _error(output.result)
        result: R = self._handler.output.decode(output.result.content)
        return result


class _Answer(Struct):
    """What a callee says, whatever form it was given in."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    given: Any

    def to(self, parameter: bytes) -> m.Value | m.Failure | None:
        given = self.given
        if given is NEVER:
            return None
        try:
            if callable(given):
                given = given(self.decode(parameter)) if parameter else given()
            if isinstance(given, TerminalError):
                raise given
            return m.Value(self.encode(given))
        except TerminalError as error:
            return failure(error)


def _said(value: Any) -> m.Value | m.Failure:
    return failure(value) if isinstance(value, TerminalError) else m.Value(encode_stored(value))


def _error(failed: m.Failure) -> TerminalError:
    return TerminalError(failed.message, code=failed.code, metadata=dict(failed.metadata))


def _path(target: m.AttachTarget) -> str:
    """By what its answer is given."""
    match target:
        case m.InvocationTarget(id):
            return id
        case m.WorkflowTarget(name):
            return f"{name}/{RUN}"
        case m.IdempotentRequestTarget(service, handler):
            return f"{service}/{handler}"


def _answer(called: Handler[..., Any] | str, given: Any) -> tuple[str, _Answer]:
    if isinstance(called, str):
        anything = serde_for(Any)
        return called, _Answer(anything.decode, anything.encode, given)
    path = f"{called.owner.__perdure__.name}/{called.name}"
    return path, _Answer(called.input.decode, called.output.encode, given)
