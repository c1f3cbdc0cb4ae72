"""A runtime in miniature for tests of the machine: it keeps one journal and delivers what the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from perdure import Endpoint
from perdure.attempt import Attempt
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol import messages as m
from perdure.protocol.target import Target
from perdure.serde import encode_json
from perdure.service import Component

T = TypeVar("T", bound=m.Message)
NOW = 1_900_000_000.0
CANCEL = m.Signal(m.CANCEL_SIGNAL)


def start(**fields: Any) -> m.Start:
    return m.Start(**{"id": bytes(16), "debug_id": "inv_1me", "known_entries": 1, **fields})


class Stage:
    """One attempt of a handler, and all that it says."""

    def __init__(
        self,
        service: type[Component],
        handler: str,
        argument: Any = None,
        *,
        key: str | None = None,
        journal: Sequence[m.Message] = (),
        gated: bool = False,
        answer_ids: bool = True,
        store_runs: bool = False,
        **fields: Any,
    ) -> None:
        self.journal = [entry for entry in journal if isinstance(entry, m.Command | m.Notification)]
        if not self.journal:
            self.journal.append(m.Input(m.Value(b"" if argument is None else encode_json(argument))))
        self.emitted: list[m.Message] = []
        self._answer_ids = answer_ids
        self._store_runs = store_runs
        host = InProcessHost(Endpoint(service), clock=lambda: NOW)
        target = Target(service.__perdure__.name, handler, key)
        fields = {"known_entries": len(self.journal), **fields}
        self.attempt: Attempt = host.attempt(target, start(**fields), list(self.journal), self._hear, gated=gated)

    def _hear(self, message: m.Message) -> None:
        self.emitted.append(message)
        if isinstance(message, m.Command):
            self.journal.append(message)
        if isinstance(message, m.Call | m.OneWayCall) and self._answer_ids:
            self.deliver(self.id_of(message))
        if isinstance(message, m.ProposeRunCompletion) and self._store_runs:
            self.deliver(m.RunCompletion(message.result_completion_id, message.result))

    @staticmethod
    def id_of(call: m.Call | m.OneWayCall) -> m.CallInvocationIdCompletion:
        id = call.invocation_id_notification_idx
        return m.CallInvocationIdCompletion(id, m.InvocationRef(f"inv_1callee{id}"))

    def deliver(self, *notifications: m.Notification) -> None:
        for notification in notifications:
            self.journal.append(notification)
            self.attempt.notify(notification)

    @property
    def ended(self) -> bool:
        return bool(self.emitted) and isinstance(self.emitted[-1], m.End | m.Error | m.Suspension)

    async def settle(self) -> Stage:
        """Go on until it waits or has ended."""
        await until(lambda: self.ended or self.attempt.waiting is not None)
        return self

    async def begin(self) -> Stage:
        self.attempt.begin()
        return await self.settle()

    def last(self, kind: type[T]) -> T:
        [*_, found] = [message for message in self.emitted if isinstance(message, kind)]
        return found

    @property
    def commands(self) -> list[m.Command]:
        return [message for message in self.emitted if isinstance(message, m.Command)]

    async def drop(self) -> None:
        """Abort it, and let its tasks end."""
        self.attempt.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a condition, for as long as only a hanging test takes."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)


def output(value: Any) -> list[m.Message]:
    """How a handler ends that gives this."""
    return [m.Output(m.Value(encode_json(value))), m.End()]
