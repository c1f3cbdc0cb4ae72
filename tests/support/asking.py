"""Who asks a peer, and writes down what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from runtime.core.deployments import HttpVersion
from runtime.outbound import Exchange, Guard, OutboundError, Peer, PeerLimits
from runtime.outbound.identity import Identity

HERE = Guard.read(["loopback"])


class Ear:
    """A listener."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.body = b""
        self.is_ended = False
        self.error: OutboundError | None = None
        self.acknowledges = True
        self.exchange: Exchange
        self._news = asyncio.Event()

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        assert not self.status, "there is one head"
        self.status, self.headers = status, headers
        self._news.set()

    def data(self, chunk: bytes) -> None:
        assert self.status, "the head comes first"
        self.body += chunk
        if self.acknowledges:
            self.exchange.acknowledge(len(chunk))
        self._news.set()

    def ended(self) -> None:
        assert not self.is_over, "it ends once"
        self.is_ended = True
        self._news.set()

    def lost(self, error: OutboundError) -> None:
        assert not self.is_over, "it ends once"
        self.error = error
        self._news.set()

    @property
    def is_over(self) -> bool:
        return self.is_ended or self.error is not None

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def over(self) -> Ear:
        await self.until(lambda: self.is_over)
        return self


def ask(
    peer: Peer,
    path: str = "/x",
    body: bytes | None = b"",
    *,
    method: str = "POST",
    headers: Sequence[tuple[str, str]] = (),
) -> Ear:
    """Begin an exchange; with a body the request is whole."""
    ear = Ear()
    ear.exchange = peer.open(method, path, headers, ear)
    if body is not None:
        ear.exchange.send(body)
        ear.exchange.finish()
    return ear


@asynccontextmanager
async def peer(
    url: str,
    http: HttpVersion = HttpVersion.HTTP_2,
    *,
    guard: Guard = HERE,
    headers: Mapping[str, str] | None = None,
    identity: Identity | None = None,
    **limits: Any,
) -> AsyncIterator[Peer]:
    made = Peer(url, http=http, guard=guard, headers=headers, identity=identity, limits=PeerLimits(**limits))
    try:
        yield made
    finally:
        await made.close()
