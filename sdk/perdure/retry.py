"""How often, and how patiently, something that failed is tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from msgspec import Struct

from perdure.durations import want_duration


class Retry(Struct, frozen=True, kw_only=True):
    """A policy for a service, a handler or one `ctx.run`; what is left out is the runtime's to decide.

    >>> Retry(initial=timedelta(seconds=1), max_interval=timedelta(seconds=3)).delay(2)
    datetime.timedelta(seconds=2)
    """

    initial: timedelta | None = None
    """The pause before the second attempt."""
    factor: float | None = None
    """Each further pause is so many times longer,"""
    max_interval: timedelta | None = None
    """up to this."""
    max_attempts: int | None = None
    """The first counts. Without it: a `ctx.run` with an `initial` of its own for ever, else as often as the handler."""
    max_duration: timedelta | None = None
    """For `ctx.run` alone: no attempt begins later than this after the first."""
    on_max_attempts: Literal["pause", "kill"] | None = None
    """What then: wait for a person, or fail. Handlers pause and `ctx.run` fails when nothing is said."""

    def __post_init__(self) -> None:
        for duration in (self.initial, self.max_interval, self.max_duration):
            if duration is None:
                continue
            want_duration(duration, "A pause or duration of Retry")
            if duration < timedelta(0):
                raise ValueError("A retry policy cannot wait for less than no time.")
        if self.factor is not None and self.factor < 1:
            raise ValueError("The factor of a retry policy is at least 1.")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("A retry policy allows at least one attempt.")

    def delay(self, failures: int) -> timedelta | None:
        """The pause after so many failures; None: the policy does not say."""
        if self.initial is None:
            return None
        longest = (self.max_interval or timedelta(minutes=1)).total_seconds()
        seconds = min(self.initial.total_seconds(), longest)
        for _ in range(failures - 1):
            longer = min(seconds * (self.factor or 2.0), longest)
            if longer == seconds:
                break
            seconds = longer
        return timedelta(seconds=seconds)

    def exhausted(self, failures: int, elapsed: timedelta) -> bool:
        """Whether no further attempt is allowed."""
        out_of_attempts = self.max_attempts is not None and failures >= self.max_attempts
        out_of_time = self.max_duration is not None and elapsed >= self.max_duration
        return out_of_attempts or out_of_time
