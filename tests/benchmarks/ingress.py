"""What one call costs in the ingress, without server, database and engine: microseconds of Python.

python -m tests.benchmarks.ingress
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from perdure.protocol.messages import Value
from runtime.core.registry import Registry, read_service
from runtime.ingress.app import Ingress
from runtime.operations import Ended, Operations, Submission

ROUNDS = 7
CALLS = 20_000
BUDGET = 25.0
"""Microseconds."""

HEADERS = [
    (b"host", b"localhost:8080"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"user-agent", b"python-httpx/0.28.1"),
    (b"content-type", b"application/json"),
    (b"content-length", b"6"),
]
TEXT = {"required": True, "contentType": "application/json", "jsonSchema": {"type": "string"}}
MANIFESTS = [
    {"name": "Greeter", "ty": "SERVICE", "handlers": [{"name": "greet", "input": TEXT}]},
    {"name": "Mailbox", "ty": "VIRTUAL_OBJECT", "handlers": [{"name": "put", "input": TEXT}]},
]


class Immediate(Operations):
    """Every call has ended before it began."""

    def __init__(self) -> None:
        self.registry = Registry([read_service(manifest, "dp_1", 1) for manifest in MANIFESTS])

    async def start(self) -> None: ...

    async def call(self, submission: Submission) -> Ended:
        return Ended(bytes(range(16)), Value(submission.input))


async def measure(path: bytes, headers: list[tuple[bytes, bytes]]) -> float:
    """Microseconds per call: the best of some rounds, for the others were disturbed."""
    ingress = Ingress(Immediate)
    started = asyncio.Event()
    scope = {"type": "http", "method": "POST", "raw_path": path, "query_string": b"", "headers": headers}

    async def lifespan() -> dict[str, Any]:
        if started.is_set():
            await asyncio.Future()
        return {"type": "lifespan.startup"}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'"Mary"', "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        started.set()
        assert message.get("status", 200) == 200

    server = asyncio.create_task(ingress({"type": "lifespan"}, lifespan, send))
    await started.wait()
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(CALLS):
            await ingress(scope, receive, send)
        best = min(best, time.process_time() - begun)
    server.cancel()
    return best / CALLS * 1e6


CASES: dict[str, tuple[bytes, list[tuple[bytes, bytes]]]] = {
    "service": (b"/Greeter/greet", HEADERS),
    "object": (b"/Mailbox/Mary/put", HEADERS),
    "object, percent-encoded key": (b"/Mailbox/Mary%2FAnn/put", HEADERS),
    "service, idempotent": (b"/Greeter/greet", [*HEADERS, (b"idempotency-key", b"order-1")]),
}


def main(write: Callable[[str], object] = print) -> None:
    for name, (path, headers) in CASES.items():
        write(f"{name:30} {asyncio.run(measure(path, headers)):6.1f} us, of {BUDGET:.0f}")


if __name__ == "__main__":
    main()
