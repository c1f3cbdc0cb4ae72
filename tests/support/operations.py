"""Operations without a database or engines: what is submitted is kept, and ends as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.protocol.codec import decode
from perdure.protocol.ids import fresh_id
from perdure.protocol.messages import Failure, Input, Output, Signal, Value
from runtime.core.lifecycle import RUN_BEFORE, id_at_birth, new_invocation, signal
from runtime.core.registry import Registry
from runtime.operations import Accepted, Ended, Operations, Submission, UnknownInvocation

Handle = Callable[[Submission], Value | Failure]


def echo(submission: Submission) -> Value:
    return Value(submission.input)


class FakeOperations(Operations):
    """Answers every submission with `handle`, at once or, after `hold`, when `release` is called."""

    def __init__(self, registry: Registry, handle: Handle = echo) -> None:
        self.registry = registry
        self.later: Registry | None = None  # what the next refresh brings
        self.handle = handle
        self.failure: Exception | None = None  # raised by everything
        self.submissions: list[Submission] = []
        self.signals: list[tuple[bytes, Signal]] = []
        self.expires = 0  # of every end
        self.waiting = 0
        self.is_running = False
        self.has_waiter = asyncio.Event()
        self._released = asyncio.Event()
        self._released.set()
        self._ends: dict[bytes, Ended] = {}
        self._accepted: set[bytes] = set()
        self._services: dict[bytes, str] = {}

    def hold(self) -> None:
        """Whatever is submitted from now on does not end."""
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    async def start(self) -> None:
        self._fail()
        self.is_running = True

    async def stop(self) -> None:
        self.is_running = False

    async def call(self, submission: Submission) -> Ended:
        accepted = await self.send(submission)
        if submission.handler.runs_once and not accepted.is_new:
            refusal = decode(RUN_BEFORE)[0]
            assert isinstance(refusal, Output)
            return Ended(accepted.id, refusal.result)
        return await self.attach(accepted.id)

    async def send(self, submission: Submission) -> Accepted:
        self._fail()
        handler, once = submission.handler, submission.idempotency_key
        id = id_at_birth(handler, submission.key, once, lambda: fresh_id(1, len(self.submissions)))
        new_invocation(handler, submission.key, id, Input(Value(submission.input), submission.headers), once)
        if id in self._accepted:
            return Accepted(id, is_new=False)
        self.submissions.append(submission)
        self._accepted.add(id)
        self._services[id] = handler.service
        self._ends[id] = Ended(id, self.handle(submission), self.expires)
        return Accepted(id, is_new=True)

    async def signal(self, id: bytes, message: Signal) -> None:
        signal(id, message)
        self._fail()
        self.signals.append((id, message))

    async def attach(self, id: bytes) -> Ended:
        self._fail()
        if id not in self._accepted:
            raise UnknownInvocation(id)
        self.waiting += 1
        self.has_waiter.set()
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1
        return self._ends[id]

    async def output(self, id: bytes) -> Ended | None:
        self._fail()
        if id not in self._accepted:
            raise UnknownInvocation(id)
        return self._ends[id] if self._released.is_set() else None

    async def service_of(self, id: bytes) -> str | None:
        self._fail()
        return self._services.get(id)

    async def refresh_registry(self) -> Registry:
        self.registry = self.later or self.registry
        return self.registry

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
