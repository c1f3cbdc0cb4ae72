"""What connections of both kinds have in common, and what their keeper is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from runtime.outbound.exchange import Exchange
from runtime.outbound.faults import OutboundError, WrongProtocol

LINGER = 2.0
"""Seconds that the last words to a server may take; one that reads nothing would keep them for ever."""
USE_HTTP_11 = 'Register it with "use_http_11": true, or --http11: then it is driven over HTTP/1.1.'
USE_HTTP_2 = "Register it without use_http_11: then it is driven over HTTP/2."


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """How long things with one server may take, in seconds, and how many there may be."""

    connect: float = 5.0
    wait: float = 30.0  # of an exchange for a connection that takes it
    silence: float = 20.0  # before it is asked whether it is there; after as long again it is not
    idle: float = 60.0  # before a connection that nobody needs is closed
    streams: int = 128  # on one connection, if the server allows as many
    connections: int = 128  # of HTTP/2
    connections_11: int = 1000  # of HTTP/1.1, each for one exchange
    exchanges: int = 900  # on one connection in its life: many a server ends it at 1000, with what is on it
    spread: int = 16  # exchanges on each connection, before there is another for them: up to `spread_over`
    spread_over: int = 4  # so that the server's processes, and what balances before them, all have a share


class Owner(Protocol):
    """Who keeps a connection."""

    def freed(self, connection: Connection) -> None:
        """It takes one more than before."""

    def gone(self, connection: Connection) -> None:
        """It takes no more exchanges."""

    def again(self, exchange: Exchange) -> None:
        """It had to let go of an exchange that the server knows nothing of."""


class Connection(asyncio.Protocol):
    """One connection, and what is on it."""

    def __init__(self, owner: Owner, name: str, limits: PeerLimits) -> None:
        self._owner = owner
        self._name = name
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Done when it takes exchanges, or when it is known that it never will."""
        self.is_ready = False
        self.is_gone = False  # it takes no more; what is on it may go on
        self.ending: OutboundError | None = None  # why
        self.is_over = False

    @property
    def room(self) -> int:
        """How many more exchanges it takes now."""
        raise NotImplementedError

    @property
    def load(self) -> int:
        """How many exchanges are on it."""
        raise NotImplementedError

    def start(self, exchange: Exchange) -> None:
        """Put an exchange on it, for which there must be room."""
        raise NotImplementedError

    def close(self, error: OutboundError) -> None:
        """End it, with what is on it."""
        raise NotImplementedError

    def abort(self) -> None:
        """Do not wait for the server to take the last words."""
        if self._transport is not None:
            self._transport.abort()

    def _open(self) -> None:
        self.is_ready = True
        if not self.opened.done():
            self.opened.set_result(None)

    def _retire(self, error: OutboundError) -> None:
        """It takes no more exchanges; those on it go on."""
        if not self.is_gone:
            self.is_gone, self.ending = True, error
            if not self.opened.done():
                self.opened.set_exception(error)
            self._owner.gone(self)

    def _part(self, words: bytes = b"") -> None:
        """Close it, saying so."""
        assert self._transport is not None
        if not self._transport.is_closing():
            if words:
                self._transport.write(words)
            self._transport.close()
            self._loop.call_later(LINGER, self._transport.abort)


def wrong_tongue(data: bytes, name: str) -> WrongProtocol | None:
    """What is wrong with a server whose first words are not those of HTTP/2, when that can be told."""
    if data.startswith(b"HTTP/"):
        return WrongProtocol(f"{name} answers in HTTP/1.1 only.", hint=USE_HTTP_11)
    return speaks_tls(data, name)


def speaks_tls(data: bytes, name: str) -> WrongProtocol | None:
    if data.startswith((b"\x15\x03", b"\x16\x03")):
        return WrongProtocol(f"{name} speaks TLS.", hint="Begin its URL with https://.")
    return None
