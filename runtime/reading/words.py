"""How sentences for people write times, spans and counts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta


def moment(time: datetime) -> str:
    """A point in time, to the second, the same for readers everywhere.

    >>> moment(datetime(2030, 1, 31, 8, 0, 0, 5, tzinfo=UTC))
    '2030-01-31 08:00:00 UTC'
    """
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(age: timedelta) -> str:
    """How long something takes or took.

    >>> [span(timedelta(seconds=seconds)) for seconds in (0.12, 3.4, 420, 259_200)]
    ['120 ms', '3.4 s', '7 min', '72 h']
    """
    seconds = age.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def counted(count: int, thing: str) -> str:
    """So many of them.

    >>> counted(1, "machine"), counted(2, "machine")
    ('1 machine', '2 machines')
    """
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def enumerated(things: Sequence[str], most: int = 3) -> str:
    """Several things in one sentence; from there on only how many.

    >>> enumerated(["a"]), enumerated(["a", "b"]), enumerated(["a", "b", "c", "d", "e"])
    ('a', 'a and b', 'a, b, c and 2 more')
    """
    if len(things) > most:
        things = [*things[:most], f"{len(things) - most} more"]
    *others, last = things
    return f"{', '.join(others)} and {last}" if others else last
