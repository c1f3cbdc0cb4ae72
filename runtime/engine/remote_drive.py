"""The drive of an invocation whose handler is behind HTTP: one attempt may follow another without leaving memory.

Such a handler suspends for reasons of its transport, often when what it waits for has come already. The journal is kept
here as it was written, so that the next attempt begins as soon as that is durable, without reading it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from perdure.protocol.codec import decode
from perdure.protocol.messages import Entry, Message, Notification, Suspension, Wait
from perdure.protocol.waits import Known, is_empty, satisfied
from runtime.core import lifecycle, slots, values
from runtime.core.changes import Changes
from runtime.engine.drive import Drive
from runtime.engine.remote import RemoteAttempt, RemoteHost, awaits_open_step


class RemoteDrive(Drive):
    __slots__ = (
        "_durable",
        "_durable_bytes",
        "_host",
        "_is_returning",
        "_known_bytes",
        "_stored",
        "_written",
    )

    attempt: RemoteAttempt | None  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._host: RemoteHost | None = None
        self._stored = b""
        """The journal as it was when it came into memory, without the input."""
        self._written: list[list[bytes]] = []
        """What was added since."""
        self._durable: Changes | None = None
        """The latest changes that are."""
        self._durable_bytes = 0
        self._known_bytes = 0
        """How long the journal was when this attempt began."""
        self._is_returning = False
        """One attempt has ended, and the next begins as soon as the journal is durable."""

    def begin(  # type: ignore[override]
        self,
        host: RemoteHost,
        frames: bytes,
        mail: list[tuple[int, bytes]],
        state: dict[str, bytes],
        *,
        gated: bool,
    ) -> None:
        self._host, self._stored, self.state = host, frames, state
        if self._take_up(frames, mail) is None:
            return
        self._durable_bytes = self.journal_bytes
        for slot, frame in mail:  # it is journaled, and so the attempt begins with it
            self.hear(slot, frame)
        if not self.is_over:
            self._attempt()

    def emit(self, message: Message) -> None:
        if type(message) is Suspension and not self.is_over:
            self._suspended(message.awaiting_on)
        else:
            super().emit(message)

    def committed(self, changes: Changes) -> None:
        self._durable = changes
        super().committed(changes)
        if not self._is_durable or self.is_over:
            return
        self._durable_bytes = self.journal_bytes
        if self.attempt is not None:
            self.attempt.stored()
        elif self._is_returning and not self.is_stopping:
            self._attempt()

    @property
    def _is_durable(self) -> bool:
        """Whether all that was added to the journal is."""
        return self.changes is None or self.changes is self._durable

    def _attempt(self) -> None:
        assert self._host is not None
        self._is_returning = False
        self._known_bytes = self.journal_bytes
        frames = self._frames()
        entries = self._entries(frames)
        state, is_partial = values.told_at_first(self._values, self.handler.eager_keys)
        start = self._first_message(len(entries), state, is_partial=is_partial)
        self.attempt = RemoteAttempt(
            self._host, self._target, start, entries, frames, self.emit, self._touch, self._backlog
        )
        self._touch()
        self.attempt.begin()

    def _frames(self) -> bytes:
        return b"".join([self.invocation.input, self._stored, *(frame for frames in self._written for frame in frames)])

    def _entries(self, frames: bytes) -> list[Entry]:
        return decode(frames)  # type: ignore[return-value]

    def _suspended(self, wait: Wait) -> None:
        attempt = self.attempt
        assert attempt is not None
        entries = self._entries(self._frames())
        if is_empty(wait):
            self.refuse("The service suspended, and waits for nothing.")
        elif self.is_pausing:
            self._park_paused()
        elif self._has_missed(attempt, wait) and satisfied(wait, Known(_notifications(entries))):
            self._return()
        elif awaits_open_step(wait, entries):
            if self.journal_bytes == self._known_bytes:
                self.refuse("The service waits for the result of a step that it does not carry out.")
            else:
                self._return()
        else:
            lifecycle.suspend(self.invocation, self._open_changes(), wait, stored_commands=self.stored_commands)
            self._over()

    def _has_missed(self, attempt: RemoteAttempt, wait: Wait) -> bool:
        """Whether a part of what it waits for has come, and it may not have heard of it."""
        awaited = lifecycle.leaves(wait)
        return attempt.has_missed(awaited) or any(
            slots.awaited(notification) in awaited for _, notification in self.undelivered
        )

    def _return(self) -> None:
        """Let the next attempt begin, now or when the journal is durable."""
        self.attempt = None
        self.undelivered.clear()  # all of it is in the journal
        if self.stored_commands:
            self.invocation.stuck = 0
            self.stored_commands = False
        self._is_returning = True
        if self._is_durable and not self.is_stopping:
            self._attempt()

    def _open_changes(self) -> Changes:
        changes = super()._open_changes()
        if not self._written or self._written[-1] is not changes.frames:
            self._written.append(changes.frames)
        return changes

    def _touch(self) -> None:
        self.touched = asyncio.get_running_loop().time()

    def _backlog(self) -> int:
        return self.journal_bytes - self._durable_bytes


def _notifications(entries: Iterable[Entry]) -> Iterator[Notification]:
    return (entry for entry in entries if isinstance(entry, Notification))
