"""The load generator: one process, one event loop, closed loop. Every system that speaks HTTP is driven by this one.

It costs 12 us per request against a server that answers at once; an own loop over epoll and raw sockets costs the same.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

import uvloop

from tests.benchmarks.http11 import Reader

PATIENCE = 60.0  # seconds without any answer, after which a run is given up


class LoadError(Exception):
    """The system under load refused, failed or forgot a request."""


@dataclass(slots=True)
class Outcome:
    """What a run of the generator saw."""

    seconds: float = 0.0  # from the first request to the end of the window
    completed: int = 0  # answers within the window
    latencies: array[float] = field(default_factory=lambda: array("d"))  # seconds, of every answer, late ones too
    cpu: float = 0.0  # processor seconds of the generator itself

    @property
    def per_s(self) -> float:
        return self.completed / self.seconds


def drive(host: str, port: int, requests: Iterable[bytes], connections: int, seconds: float | None = None) -> Outcome:
    """Send the requests in turn over so many keep-alive connections, each waiting for its answer before it sends again.

    Ends when the requests do, or after `seconds`; what is under way then is waited for, so that nothing is carried into
    the next measurement. Raises LoadError when an answer is not a 2xx, or does not come.
    """
    generator = _Generator(iter(requests), connections, seconds)
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(generator.run(host, port))
    finally:
        gc.enable()


class _Generator:
    def __init__(self, requests: Iterator[bytes], connections: int, seconds: float | None) -> None:
        self.requests = requests
        self.connections = connections
        self.seconds = seconds
        self.deadline = float("inf")
        self.outcome = Outcome()
        self.waiting = connections
        self.failure: str | None = None
        self.finished = asyncio.Event()

    async def run(self, host: str, port: int) -> Outcome:
        loop = asyncio.get_running_loop()
        opened = [await loop.create_connection(lambda: _Connection(self), host, port) for _ in range(self.connections)]
        start, cpu = time.perf_counter(), time.process_time()
        if self.seconds is not None:
            self.deadline = start + self.seconds
        for _, connection in opened:
            connection.send()
        await self._watch()
        window = time.perf_counter() if self.seconds is None else self.deadline
        self.outcome.seconds = window - start
        self.outcome.cpu = time.process_time() - cpu
        for transport, _ in opened:
            transport.close()
        if self.failure:
            raise LoadError(self.failure)
        return self.outcome

    async def _watch(self) -> None:
        """Wait for the end, or until nothing has been answered for too long."""
        answered = -1
        while answered < len(self.outcome.latencies):
            answered = len(self.outcome.latencies)
            try:
                await asyncio.wait_for(self.finished.wait(), PATIENCE)
            except TimeoutError:
                continue
            return
        self.fail(f"no answer for {PATIENCE:.0f} s, {self.waiting} requests outstanding")

    def retire(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.finished.set()

    def fail(self, why: str) -> None:
        self.failure = self.failure or why
        self.finished.set()


class _Connection(asyncio.Protocol):
    __slots__ = ("_generator", "_reader", "_sent", "_transport")

    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self._reader = Reader()
        self._sent: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        generator = self._generator
        now = time.perf_counter()
        request = next(generator.requests, None) if now < generator.deadline else None
        if request is None:
            self._sent = None
            generator.retire()
            return
        self._sent = now
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        generator = self._generator
        for answer in self._reader.feed(data):
            now = time.perf_counter()
            if not 200 <= answer.status < 300 or self._sent is None:
                generator.fail(f"answer {answer.status}: {answer.body[:300].decode(errors='replace')}")
                return
            generator.outcome.latencies.append(now - self._sent)
            if now <= generator.deadline:
                generator.outcome.completed += 1
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent is not None:
            self._generator.fail(f"the server closed a connection while it owed an answer: {exc or 'end of stream'}")
