"""The tally: what a process counts of its work, as plain numbers that can be added to those of other processes.

Counting is on the hot path: an attribute or a list's item, and no name is put together. `counts` does that, seldom.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cache

from runtime.core.invocation import Outcome

MOST_HANDLERS = 200
"""Handlers that a process counts apart, the first that it meets; all others are `other`."""
OTHER = ("other", "other")

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
INFINITE = "+Inf"
SUM = "sum"


class Histogram:
    """How often a value was at most so large, by bounds.

    >>> sizes = Histogram((1.0, 10.0))
    >>> for size in (1, 3, 99):
    ...     sizes.observe(size)
    >>> dict(sizes.counts())
    {'1': 1, '10': 1, '+Inf': 1, 'sum': 103.0}
    """

    __slots__ = ("_bounds", "_counts", "_names", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._names = _names(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def counts(self) -> Iterator[tuple[str, float]]:
        """By bound, each without those below it, and the sum of all values."""
        if any(self._counts):
            yield from ((name, count) for name, count in zip(self._names, self._counts, strict=True) if count)
            yield SUM, self._total


@cache
def _names(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*(f"{bound:g}" for bound in bounds), INFINITE)


class OfHandler:
    """What is counted of one handler."""

    __slots__ = ("accepted", "attempts", "calls", "failed", "other_ends", "retried", "started", "succeeded")

    def __init__(self) -> None:
        self.accepted = 0
        self.started = 0
        self.failed = 0
        """Attempts that failed without ending their invocation."""
        self.retried = 0
        """Those of them that are tried again by themselves."""
        self.succeeded = 0
        """Apart from the other outcomes, for an enum's hash is slow."""
        self.other_ends = dict.fromkeys(Outcome, 0)
        self.attempts = Histogram(SECONDS)
        """How long they were in memory."""
        self.calls = Histogram(SECONDS)
        """How long callers outside waited for their answer."""


class Handlers(dict[tuple[str, str], OfHandler]):
    """By service and handler; asking makes what is missing. A dict of its own, for that is found without a call."""

    def __missing__(self, handler: tuple[str, str]) -> OfHandler:
        if len(self) >= MOST_HANDLERS:
            return self.setdefault(OTHER, OfHandler())
        return self.setdefault(handler, OfHandler())


class Tally:
    """What one process counts; `kind` is its own among `engine` and `ingress`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.handlers = Handlers()
        self.flush_seconds = Histogram(SECONDS)
        self.flush_sizes = Histogram(SIZES)
        self.lag = Histogram(SECONDS)
        """How late the loop came to what it was to do at a certain time."""
        self.fenced = 0
        """Engines that were declared dead."""

    def counts(self) -> dict[str, float]:
        """All that is not zero, by family and the values of its labels."""
        found: dict[str, float] = {}
        for names, one in self.handlers.items():
            found[name("accepted", *names)] = one.accepted
            found[name("started", *names)] = one.started
            found[name("attempts_failed", *names)] = one.failed
            found[name("retries", *names)] = one.retried
            for outcome, ended in {**one.other_ends, Outcome.SUCCEEDED: one.succeeded}.items():
                found[name("completed", *names, outcome)] = ended
            for part, count in one.attempts.counts():
                found[name("attempt_seconds", *names, part)] = count
            for part, count in one.calls.counts():
                found[name("call_seconds", *names, part)] = count
        for family, histogram in (
            ("flush_seconds", self.flush_seconds),
            ("flush_changes", self.flush_sizes),
            ("loop_lag_seconds", self.lag),
        ):
            for part, count in histogram.counts():
                found[name(family, self._kind, part)] = count
        found[name("fenced")] = self.fenced
        return {name: count for name, count in found.items() if count}


def name(family: str, *labels: str) -> str:
    """Of a count: no name of a service or handler holds a tab."""
    return "\t".join((family, *labels))


def parse_name(text: str) -> tuple[str, tuple[str, ...]]:
    """The reverse of `name`.

    >>> parse_name(name("accepted", "Greeter", "greet"))
    ('accepted', ('Greeter', 'greet'))
    """
    family, *labels = text.split("\t")
    return family, tuple(labels)
