"""A delay as callers write it: `5000`, `PT60S`, `1h 30m`."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from runtime.errors import RuntimeFault

FORMATS = (
    "A delay is a number of milliseconds (5000), an ISO 8601 duration (PT60S, P1DT12H) "
    "or like 10ms, 60s, 60 sec, 1h 30m, 2 days; at most ten years."
)
LONGEST_TEXT = 100
LONGEST = 3650 * 86_400
"""Seconds. Beyond it an interval is a slip of the pen, and PostgreSQL's dates end somewhere too."""


class BadDelay(RuntimeFault):
    """This is no delay, or a mad one."""

    code = "bad_delay"
    hint = FORMATS


_UNITS = {
    Fraction(1, 1_000_000): ("ns", "nsec", "nsecs", "nanos", "nanosecond", "nanoseconds"),
    Fraction(1, 1_000): ("us", "µs", "μs", "usec", "usecs", "micros", "microsecond", "microseconds"),
    Fraction(1): ("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"),
    Fraction(1_000): ("s", "sec", "secs", "second", "seconds"),
    Fraction(60_000): ("m", "min", "mins", "minute", "minutes"),
    Fraction(3_600_000): ("h", "hr", "hrs", "hour", "hours"),
    Fraction(86_400_000): ("d", "day", "days"),
    Fraction(604_800_000): ("w", "wk", "wks", "week", "weeks"),
}  # no months and years: they have no fixed length
_MILLISECONDS = {name: size for size, names in _UNITS.items() for name in names}

_NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
_BARE = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_ISO = re.compile(
    rf"P(?:({_NUMBER})W)?(?:({_NUMBER})D)?(?:T(?=[0-9])(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?",
    re.IGNORECASE,
)
_ISO_UNITS = ("w", "d", "h", "m", "s")
_FRIENDLY_PART = re.compile(rf"({_NUMBER})\s*([a-zµμ]+)\s*,?\s*")


def read_delay(text: str) -> int:
    """Milliseconds, rounded up: never early; raises BadDelay.

    >>> read_delay("5000"), read_delay("PT60S"), read_delay("1h 30m")
    (5000, 60000, 5400000)
    """
    parts = _parts(text.strip()) if len(text) <= LONGEST_TEXT else None
    if not parts:
        raise BadDelay(f"The delay {text[:LONGEST_TEXT]!r} cannot be understood.")
    delay = math.ceil(sum(Fraction(number.replace(",", ".")) * _MILLISECONDS[unit] for number, unit in parts))
    if delay > LONGEST * 1000:
        raise BadDelay(f"The delay {text!r} is too long.")
    return delay


def write_delay(milliseconds: int) -> str:
    """A duration as `read_delay` takes it.

    >>> write_delay(5_400_000), write_delay(500), write_delay(86_400_000), write_delay(0)
    ('1h 30m', '500ms', '1d', '0s')
    """
    parts = []
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def _parts(text: str) -> list[tuple[str, str]] | None:
    """The numbers and units that add up to the delay; None: it is none."""
    if _BARE.fullmatch(text):
        return [(text, "ms")]
    if iso := _ISO.fullmatch(text):
        return [(number, unit) for number, unit in zip(iso.groups(), _ISO_UNITS, strict=True) if number is not None]
    return _friendly_parts(text.lower())


def _friendly_parts(text: str) -> list[tuple[str, str]] | None:
    parts = []
    position = 0
    while position < len(text):
        part = _FRIENDLY_PART.match(text, position)
        if part is None or part[2] not in _MILLISECONDS:
            return None
        parts.append((part[1], part[2]))
        position = part.end()
    return parts
