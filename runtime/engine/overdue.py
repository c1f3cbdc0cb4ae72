"""Overdue: a handler that neither gets on nor waits, for longer than its service allows, is stopped and tried again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.engine.drive import Drive


class Overdue:
    """Looks now and then; of handlers whose service sets no `abort_timeout` it remembers nothing."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[int, float]] = {}
        """How long its journal was, and since when, by invocation."""

    def look(self, drives: Iterable[Drive], now: float, inactivity: float) -> list[tuple[Drive, float]]:
        """Those that are overdue, each with the seconds for which it has given no sign of life.

        It may do so for its inactivity time-out (`inactivity` seconds where none is set), and its abort time-out.
        """
        seen, found = {}, []
        for drive in drives:
            handler, attempt, id = drive.handler, drive.attempt, drive.invocation.id
            if handler.abort_ms is None or drive.is_over or attempt is None or attempt.waiting is not None:
                continue
            length, since = self._seen.get(id, (-1, now))
            if length != drive.journal_bytes:
                length, since = drive.journal_bytes, now
            seen[id] = length, since
            patience = inactivity if handler.inactivity_ms is None else handler.inactivity_ms / 1000
            if now - since > patience + handler.abort_ms / 1000:
                found.append((drive, now - since))
        self._seen = seen
        return found
