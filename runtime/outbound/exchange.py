"""An exchange: one request under way, and who hears of its answer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from runtime.outbound.faults import OutboundError

logger = logging.getLogger(__name__)

STUMBLED = "Who asked %s %s could not take the answer"
Header = tuple[str, str]


class Listener(Protocol):
    """Who made a request. Called on the loop's thread; after `ended` or `lost` there is nothing more."""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The answer begins. Names are in lower case."""

    def data(self, chunk: bytes) -> None:
        """More of the body. The peer may send so much more once it is acknowledged."""

    def ended(self) -> None:
        """The answer is whole."""

    def lost(self, error: OutboundError) -> None:
        """There will be no answer, or no more of it."""


class Carrier(Protocol):
    """The connection that an exchange is on, or the queue in which it waits for one."""

    def wake(self, exchange: Exchange) -> None:
        """There is more of it to send."""

    def drop(self, exchange: Exchange) -> None:
        """Nobody wants it any more."""

    def consumed(self, exchange: Exchange, size: int) -> None:
        """So many bytes of the answer were dealt with."""


class Exchange:
    """One request and its answer. `send` and `finish` never wait: `unsent` says how much is piled up."""

    __slots__ = (
        "_chunks",
        "_listener",
        "carrier",
        "credit",
        "has_head",
        "headers",
        "is_finished",
        "is_over",
        "is_whole_sent",
        "method",
        "path",
        "stream",
        "unopened",
        "unsent",
        "window",
    )

    def __init__(self, method: str, path: str, headers: Sequence[Header], listener: Listener, carrier: Carrier) -> None:
        self.method, self.path, self.headers = method, path, headers
        self._listener = listener
        self.carrier = carrier
        self._chunks: deque[bytes | memoryview] = deque()
        self.unsent = 0
        """Bytes of the body that still wait for the peer's window."""
        self.is_finished = False  # by us: nothing comes after what is in the chunks
        self.is_whole_sent = False
        self.is_over = False
        self.has_head = False
        self.credit = 0  # bytes of the answer that may still come before some are acknowledged
        # Of HTTP/2:
        self.stream = 0
        self.window = 0  # what the peer still takes of this one
        self.unopened = 0  # acknowledged, and not yet told to the peer

    def send(self, data: bytes) -> None:
        """Add to the request's body."""
        if self.is_over or self.is_finished or not data:
            return
        self._chunks.append(data)
        self.unsent += len(data)
        self.carrier.wake(self)

    def finish(self) -> None:
        """The request is whole."""
        if not (self.is_over or self.is_finished):
            self.is_finished = True
            self.carrier.wake(self)

    def reset(self) -> None:
        """Forget it: the listener hears nothing more."""
        if not self.is_over:
            self._settle()
            self.carrier.drop(self)

    def acknowledge(self, size: int) -> None:
        """So many bytes of what `data` brought are dealt with, and the peer may send as many more."""
        if not self.is_over:
            self.carrier.consumed(self, size)

    # For the connection that it is on. -----------------------------------------------------------------------------

    def take(self, most: int) -> bytes:
        """The next bytes of the body, at most so many."""
        chunks = self._chunks
        if len(chunks) == 1 and len(chunks[0]) <= most:
            taken = bytes(chunks.popleft())
        else:
            parts, room = [], most
            while chunks and room:
                part = chunks.popleft()
                if len(part) > room:  # a view: to cut a large one again and again copies nothing twice
                    view = memoryview(part)
                    part, rest = view[:room], view[room:]
                    chunks.appendleft(rest)
                parts.append(part)
                room -= len(part)
            taken = b"".join(parts)
        self.unsent -= len(taken)
        return taken

    def whole(self) -> bytes:
        """The body as far as it was sent; it stays."""
        if len(self._chunks) > 1:
            self._chunks = deque([b"".join(self._chunks)])
        return bytes(self._chunks[0]) if self._chunks else b""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        if not self.is_over:
            try:
                self._listener.head(status, headers)
            except Exception:
                self._stumbled()

    def data(self, chunk: bytes) -> None:
        if not self.is_over:
            try:
                self._listener.data(chunk)
            except Exception:
                self._stumbled()

    def ended(self) -> None:
        if not self.is_over:
            self._settle()
            try:
                self._listener.ended()
            except Exception:
                self._stumbled()

    def lost(self, error: OutboundError) -> None:
        if not self.is_over:
            self._settle()
            try:
                self._listener.lost(error)
            except Exception:
                self._stumbled()

    def _settle(self) -> None:
        self.is_over = True
        self._chunks.clear()
        self.unsent = 0

    def _stumbled(self) -> None:
        """A listener's mistake is its own: the connection has other exchanges to carry."""
        logger.exception(STUMBLED, self.method, self.path)  # noqa: LOG004 -- called where one is handled
        self.reset()
