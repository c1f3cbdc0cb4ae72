"""Figures: what was measured, one value per run, and their medians."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. What a case does not measure stays None and is not written."""

    per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    drained_per_s: float | None = None  # sends: how fast they were carried out, from the first send to the last end
    early: int | None = None  # delayed sends carried out before they were due
    mib: float | None = None  # memory of all the system's processes
    grown_mib: float | None = None  # of it since the system was idle
    lost: int | None = None  # accepted invocations that did not end in time
    cpu_us: dict[str, float] = field(default_factory=dict)  # processor time per call, by class of process
    foreign_cores: float | None = None  # cores used meanwhile by processes that are not part of the measurement


@dataclass(frozen=True, slots=True)
class Figure:
    """One system in one case, over all its runs."""

    system: str
    case: str
    concurrency: int
    runs: tuple[Run, ...]

    def middle(self, of: Callable[[Run], float | None]) -> float | None:
        """The median over the runs that have the value."""
        values = [value for run in self.runs if (value := of(run)) is not None]
        return median(values) if values else None

    @property
    def per_s(self) -> float | None:
        return self.middle(lambda run: run.per_s)

    @property
    def p50_ms(self) -> float | None:
        return self.middle(lambda run: run.p50_ms)

    @property
    def p99_ms(self) -> float | None:
        return self.middle(lambda run: run.p99_ms)

    def line(self) -> str:
        """The figure as one line of JSON."""
        return json.dumps(
            {
                "system": self.system,
                "case": self.case,
                "concurrency": self.concurrency,
                "per_s": _rounded(self.per_s),
                "p50_ms": _rounded(self.p50_ms),
                "p99_ms": _rounded(self.p99_ms),
                "runs": [_written(run) for run in self.runs],
            }
        )


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.0
    """
    if not ascending:
        raise ValueError("no values")
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def _written(run: Run) -> dict[str, Any]:
    return {name: _rounded(value) for name, value in asdict(run).items() if value is not None and value != {}}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return round(value, 3) if isinstance(value, float) else value
