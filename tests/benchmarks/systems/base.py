"""A measured system: started, called in one neutral language, watched by classes of processes, killed and revived."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

from tests.benchmarks import http11, load
from tests.benchmarks.foundation import Foundation
from tests.benchmarks.machine import Process

ALL_CASES = frozenset(
    {
        "call",
        "keys-1000",
        "hot-key",
        "five-steps",
        "nested-call",
        "sdk-py-call",
        "sdk-py-five",
        "send",
        "delayed-10k",
        "recovery",
        "sleepers-10k",
    }
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call or send of a handler, whatever the system."""

    service: str
    handler: str
    payload: Any
    key: str | None = None
    send: bool = False
    delay_ms: int = 0  # sends only


@dataclass(frozen=True, slots=True)
class Room:
    """What a system is given to live in."""

    directory: Path  # its own, empty
    foundation: Foundation
    environment: Mapping[str, str]


class System(Protocol):
    name: ClassVar[str]
    cases: ClassVar[frozenset[str]]  # what it can do
    version: str

    def missing(self) -> str | None:
        """Why it cannot be measured here, or None. May install what it needs."""

    def start(self, room: Room) -> None:
        """Start on empty data and answer only when it can be called."""

    def stop(self) -> None:
        """Leave no process behind, however far `start` came."""

    def processes(self, among: Mapping[int, Process]) -> Mapping[str, Sequence[int]]:
        """The ids of all its processes, by class, its part of the foundation included."""

    def drive(self, calls: Iterable[Call], concurrency: int, seconds: float | None = None) -> load.Outcome:
        """Make these calls in a closed loop, `concurrency` at a time, for so long or until they end."""

    def kill(self, pid: int) -> None:
        """Kill -9 the process `pid`, which runs handlers; start it again where the system does not do so itself."""


class HttpSystem:
    """Those parts of a system that all with an HTTP face share."""

    port: int

    def drive(self, calls: Iterable[Call], concurrency: int, seconds: float | None = None) -> load.Outcome:
        return load.drive("127.0.0.1", self.port, map(as_request, calls), concurrency, seconds)


@lru_cache(maxsize=4096)
def as_request(call: Call) -> bytes:
    """The HTTP request for this call, with the paths that Perdure and Restate share."""
    path = "/".join(["", call.service, *([quote(call.key, safe="")] if call.key is not None else []), call.handler])
    if call.send:
        path += "/send" + (f"?delay={call.delay_ms}ms" if call.delay_ms else "")
    return http11.request(path, json.dumps(call.payload).encode())
