"""Contact with the broker. Who takes a queue away from a worker, or gives it one, does so by the broker's messages.

While it is out of reach nobody can: then an engine goes on with the queues that it had, although no drain attaches it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

ASK = 2.0  # seconds between two looks whether it answers
SILENCE = 3.0  # seconds without an answer after which it is out of reach
REUNION = 40.0  # seconds that a worker may take to come back to it, and be sent drains: Celery waits up to 32
RECENT = 60.0  # seconds since its last drain after which its queue may well have been taken away before


class Contact:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._drained_at = clock()
        self._asking_since: float | None = None
        self._missed_until = 0.0
        self._had_queues = True

    def drained(self) -> None:
        """A drain is here, or goes: the queue is ours."""
        self._drained_at = self._clock()

    def ask(self, reach: Callable[[], None]) -> None:
        """Ask it once; `reach` raises when there is no answer, or lets us wait for it."""
        if self._asking_since is None:
            self._asking_since = self._clock()
            self._had_queues = self._asking_since - self._drained_at < RECENT or self._asking_since < self._missed_until
        try:
            reach()
        except Exception as error:  # whatever its library makes of it
            log.debug("the broker does not answer: %s", error)
            return
        if self.is_lost:
            self._missed_until = self._clock() + REUNION
        self._asking_since = None

    @property
    def is_lost(self) -> bool:
        """It does not answer."""
        return self._asking_since is not None and self._clock() - self._asking_since > SILENCE

    @property
    def is_missed(self) -> bool:
        """It does not answer, or has not until a moment ago: to have no drain means nothing."""
        return self._had_queues and (self.is_lost or self._clock() < self._missed_until)
