"""Marks: what a handler reports from the inside, one fixed record appended to a file that all processes share.

An append of 32 bytes is atomic and costs about 2 us, in whichever process and system the handler runs, so every system
pays the same for being watched. A mark is outside the journal: a handler that is replayed marks twice.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

ENVIRONMENT = "PERDURE_BENCHMARK_MARKS"
STARTED, ENDED = 0, 1
NUMBERS = 1_000_000  # more than one measurement has invocations

_LAYOUT = struct.Struct("<qqqd")
_descriptor: int | None = None


class Mark(NamedTuple):
    kind: int
    number: int  # the caller's number of the invocation
    value: int  # what the case wants to know: a process id, or nothing
    at: float  # wall clock, which all processes of one machine share


def mark(kind: int, number: int, value: int = 0) -> None:
    """Report from inside a handler that `number` has come this far."""
    global _descriptor
    if _descriptor is None:
        _descriptor = os.open(os.environ[ENVIRONMENT], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_descriptor, _LAYOUT.pack(kind, number, value, time.time()))


class Marks:
    """The harness' end of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.floor = 0
        self.clear()

    def clear(self) -> None:
        """Begin a measurement, whose numbers start at `floor`: what an earlier one left behind may still come in."""
        self.path.write_bytes(b"")
        self.floor += NUMBERS

    def count(self) -> int:
        return self.path.stat().st_size // _LAYOUT.size

    def read(self) -> list[Mark]:
        data = self.path.read_bytes()
        whole = len(data) - len(data) % _LAYOUT.size
        return [Mark(*fields) for fields in _LAYOUT.iter_unpack(data[:whole])]

    def first(self, kind: int) -> dict[int, Mark]:
        """The first mark of this kind of each number of this measurement."""
        found: dict[int, Mark] = {}
        for each in self.read():
            if each.kind == kind and each.number >= self.floor:
                found.setdefault(each.number, each)
        return found

    def wait(self, kind: int, numbers: int, patience: float) -> dict[int, Mark]:
        """Wait until so many numbers carry a mark of this kind; raises TimeoutError that says how many did."""
        deadline = time.monotonic() + patience
        while True:
            if self.count() >= numbers and len(found := self.first(kind)) >= numbers:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.first(kind)):,} of {numbers:,} after {patience:.0f} s")
            time.sleep(0.02)
