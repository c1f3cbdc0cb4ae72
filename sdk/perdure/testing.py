"""A handler on a stage: played on a journal in memory, with answers that you give and time that you own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, ParamSpec, TypeVar

from msgspec import Struct

from perdure.closures import failure
from perdure.endpoint import Endpoint
from perdure.errors import TerminalError
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol import messages as m
from perdure.protocol.target import Target
from perdure.serde import encode_json, serde_for, stored_serde
from perdure.service import Component, Handler

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
    a function of the argument, a TerminalError, or NEVER. Sleeps end when nothing else can go on, and move the clock.

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
        headers: Mapping[str, str] | None = None,
        now: datetime = datetime(2030, 1, 1, tzinfo=UTC),
        cancel_after: int | None = None,
        attempts: int = 1,
    ) -> None:
        """`service`: an instance, when the class needs something to be made with. `cancel_after`: cancel it when it
        waits and so many commands are in its journal. `attempts`: how many may fail, but for the last."""
        self.now = now.timestamp()
        self.state = {name: encode_json(value) for name, value in (state or {}).items()}
        self.entries: list[m.Entry] = []
        """The journal."""
        self._handler = handler
        self._answers = dict(_answer(called, answer) for called, answer in (answers or {}).items())
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
            if attempt.waiting is not None:
                self._go_on()
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

    def _go_on(self) -> None:
        """Give a waiting handler what comes next."""
        if self._cancel_after is not None and len(self.commands) >= self._cancel_after:
            self._cancel_after = None
            self._deliver(m.Signal(m.CANCEL_SIGNAL))
        elif self._answered:
            self._deliver(self._answered.popleft())
        elif self._sleepers:
            self._sleepers.sort(key=lambda sleep: sleep.wake_up_time)
            sleep = self._sleepers.pop(0)
            self.now = max(self.now, sleep.wake_up_time / 1000)
            self._deliver(m.SleepCompletion(sleep.result_completion_id, m.VOID))
        else:
            raise AssertionError(f"{self._target} waits for what nobody gives, after {self.commands[-1:]}.")

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
        path = f"{call.service_name}/{call.handler_name}"
        if path not in self._answers:
            raise AssertionError(f"{self._target} calls {path}, for which there is no answer.")
        result = self._answers[path].to(call.parameter)
        if result is not None:
            self._answered.append(m.CallCompletion(call.result_completion_id, result))

    def _result(self) -> R:
        output = self.commands[-1]
        assert isinstance(output, m.Output)
        if isinstance(output.result, m.Failure):
            failed = output.result
            raise TerminalError(failed.message, code=failed.code, metadata=dict(failed.metadata))
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


def _answer(called: Handler[..., Any] | str, given: Any) -> tuple[str, _Answer]:
    if isinstance(called, str):
        anything = serde_for(Any)
        return called, _Answer(anything.decode, anything.encode, given)
    path = f"{called.owner.__perdure__.name}/{called.name}"
    return path, _Answer(called.input.decode, called.output.encode, given)
