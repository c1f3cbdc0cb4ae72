"""When a failed attempt is tried again, and when no more."""

from __future__ import annotations

import sys
from enum import StrEnum

from msgspec import Struct


class OnMaxAttempts(StrEnum):
    """What becomes of an invocation whose attempts are used up."""

    PAUSE = "PAUSE"
    KILL = "KILL"


class RetryPolicy(Struct, frozen=True):
    """Exponential backoff, without end unless `max_attempts` is given."""

    initial_ms: int = 500
    factor: float = 2.0
    max_ms: int = 60_000
    max_attempts: int | None = 70
    """Counts the first attempt; None: without end."""
    on_max_attempts: OnMaxAttempts = OnMaxAttempts.PAUSE

    def delay_ms(self, failures: int) -> int | None:
        """Milliseconds until the next attempt after so many failures in a row; None: no more attempts.

        >>> RetryPolicy(initial_ms=100, factor=2, max_ms=300, max_attempts=4).delay_ms(2)
        200
        >>> [RetryPolicy(initial_ms=100, max_ms=300, max_attempts=4).delay_ms(n) for n in (1, 3, 4)]
        [100, 300, None]
        """
        if self.max_attempts is not None and failures >= self.max_attempts:
            return None
        try:
            growth = self.factor ** (failures - 1)
        except OverflowError:
            growth = sys.float_info.max
        return int(max(0, min(self.max_ms, self.initial_ms * growth)))
