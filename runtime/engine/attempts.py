"""An attempt and its host, as a drive needs them: wherever the handler runs, in this process or behind HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from perdure.protocol.messages import Entry, Message, Notification, Start, Wait
from perdure.protocol.target import Target


class Attempt(Protocol):
    """One attempt, wherever its handler runs. It emits messages in the journal's order, at last how it ends."""

    executing: int
    """Closures under way."""

    @property
    def waiting(self) -> Wait | None:
        """What it waits for; None while it does not, and where nobody can tell."""
        ...

    @property
    def has_waited(self) -> bool:
        """Whether its handler may have come to an await at which it would have heard of a cancellation."""
        ...

    def begin(self) -> None: ...
    def notify(self, notification: Notification) -> None: ...
    def open(self) -> None:
        """Let closures start, if it was made `gated`."""

    def suspend(self) -> bool:
        """Let it end with a Suspension if it does nothing but wait. True: it has, at once."""
        ...

    def abort(self) -> None:
        """Drop it: it emits nothing more."""


class Host(Protocol):
    """Where handlers run in this process."""

    def attempt(
        self,
        target: Target,
        start: Start,
        entries: list[Entry],
        emit: Callable[[Message], None],
        *,
        gated: bool = False,
    ) -> Attempt: ...
