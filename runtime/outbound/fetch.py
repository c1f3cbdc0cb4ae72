"""Fetching: one small answer, whole, within limits of time and size. No redirect is followed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct

from runtime.outbound.exchange import Exchange, Header
from runtime.outbound.faults import BrokenProtocol, OutboundError, Silent
from runtime.outbound.peer import Peer


class Answer(Struct, frozen=True):
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def fetch(
    peer: Peer, path: str, headers: Sequence[Header], *, within: float, most: int, method: str = "GET"
) -> Answer:
    """Ask without a body; raises OutboundError for what does not come, comes late, or is more than `most` bytes."""
    collector = _Collector(peer.address.url, most)
    collector.exchange = exchange = peer.open(method, path, headers, collector)
    exchange.finish()
    try:
        async with asyncio.timeout(within):
            return await collector.done
    except TimeoutError:
        raise Silent(f"{peer.address.url} has not sent its whole answer within {within:g} s.") from None
    finally:
        exchange.reset()


class _Collector:
    """The listener of one fetch."""

    exchange: Exchange

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._room = most
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._chunks: list[bytes] = []
        self.done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status, self._headers = status, headers

    def data(self, chunk: bytes) -> None:
        self._room -= len(chunk)
        if self._room < 0:
            self.exchange.reset()
            self.lost(BrokenProtocol(f"{self._name} sends a larger answer than is taken here."))
            return
        self._chunks.append(chunk)
        self.exchange.acknowledge(len(chunk))

    def ended(self) -> None:
        if not self.done.done():
            self.done.set_result(Answer(self._status, self._headers, b"".join(self._chunks)))

    def lost(self, error: OutboundError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
