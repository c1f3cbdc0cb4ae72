"""One HTTP/1.1 connection: an exchange at a time, the request whole before a word of it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

import h11

from runtime.outbound.connection import USE_HTTP_2, Connection, Owner, PeerLimits, speaks_tls
from runtime.outbound.exchange import Exchange
from runtime.outbound.faults import BrokenProtocol, ConnectionLost, OutboundError, Shut, WrongProtocol

NO_HTTP = "answers with what is no HTTP."
LARGEST_HEAD = 64 * 1024
MOST_UNREAD = 256 * 1024
"""Bytes of an answer that wait to be dealt with, before no more are read."""


class Http11Connection(Connection):
    """Kept for the next exchange when the server keeps it too."""

    def __init__(self, owner: Owner, name: str, limits: PeerLimits) -> None:
        super().__init__(owner, name, limits)
        self._exchange: Exchange | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        self._is_sent = False
        self._unread = 0
        self._has_heard = False
        self._idle: asyncio.TimerHandle | None = None
        self.uses = 0

    @property
    def room(self) -> int:
        return 1 if self._exchange is None and not self.is_gone else 0

    @property
    def load(self) -> int:
        return 0 if self._exchange is None else 1

    def start(self, exchange: Exchange) -> None:
        self._exchange = exchange
        exchange.carrier = self
        self._is_sent = self._has_heard = False
        self._unread = 0
        self.uses += 1
        if self._idle is not None:
            self._idle.cancel()
        self.wake(exchange)

    def close(self, error: OutboundError) -> None:
        self._fail(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _keep_alive(transport.get_extra_info("socket"))
        self._open()

    def connection_lost(self, error: Exception | None) -> None:
        if self.is_over:
            return
        reason = f": {error}" if error else ""
        # A body without a length ends with the connection: h11 knows.
        if error is None and self._exchange is not None and self._has_heard:
            with contextlib.suppress(h11.RemoteProtocolError):
                self._read(b"")
        elif self.uses > 1 and self._is_sent and not self._has_heard:
            # The server has closed what it kept for us, before it could know that we would use it again.
            exchange, self._exchange = self._exchange, None
            self._fail(ConnectionLost("It was closed."))
            if exchange is not None:
                self._owner.again(exchange)
            return
        self._fail(ConnectionLost(f"{self._name} closed the connection{reason}."))

    # What exchanges ask for. ----------------------------------------------------------------------------------------

    def wake(self, exchange: Exchange) -> None:
        if self._is_sent or not exchange.is_finished or self._transport is None:
            return
        self._is_sent = exchange.is_whole_sent = True
        body = exchange.whole()
        exchange.unsent = 0
        headers = [("host" if name == ":authority" else name, value) for name, value in exchange.headers]
        headers = [(name, value) for name, value in headers if name[0] != ":"]
        if body or exchange.method != "GET":
            headers.append(("content-length", str(len(body))))
        said = [self._http.send(h11.Request(method=exchange.method, target=exchange.path, headers=headers))]
        if body:
            said.append(self._http.send(h11.Data(data=body)))
        said.append(self._http.send(h11.EndOfMessage()))
        self._transport.write(b"".join(filter(None, said)))

    def drop(self, exchange: Exchange) -> None:
        if exchange is self._exchange:
            self._fail(Shut("The exchange was given up."))

    def consumed(self, exchange: Exchange, size: int) -> None:
        self._unread -= size
        if self._unread < MOST_UNREAD and self._transport is not None:
            self._transport.resume_reading()

    # Receiving. ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._has_heard:
            self._has_heard = True
            if data[3:6] == b"\x04\x00\x00" or data[3:6] == b"\x07\x00\x00":  # its settings, or its goodbye
                self._fail(WrongProtocol(f"{self._name} answers in HTTP/2 only.", hint=USE_HTTP_2))
                return
            if not data.startswith(b"HTTP/"[: len(data)]):
                self._fail(speaks_tls(data, self._name) or BrokenProtocol(f"{self._name} {NO_HTTP}"))
                return
        if self._exchange is None:
            self._fail(BrokenProtocol(f"{self._name} answers what it was not asked."))
            return
        try:
            self._read(data)
        except h11.RemoteProtocolError:
            self._fail(BrokenProtocol(f"{self._name} {NO_HTTP}"))

    def _read(self, data: bytes) -> None:
        assert self._exchange is not None
        exchange = self._exchange
        self._http.receive_data(data)
        while not exchange.is_over:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                self._take_head(exchange, event)
            elif isinstance(event, h11.Data):
                self._unread += len(event.data)
                exchange.data(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._end(exchange)
            elif not isinstance(event, h11.InformationalResponse):
                break
        if self._unread >= MOST_UNREAD and self._transport is not None and not self.is_over:
            self._transport.pause_reading()

    def _take_head(self, exchange: Exchange, response: h11.Response) -> None:
        headers: dict[str, str] = {}
        for raw, value in response.headers:
            name, text = raw.decode("latin-1"), value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        exchange.has_head = True
        exchange.head(response.status_code, headers)

    def _end(self, exchange: Exchange) -> None:
        self._exchange = None
        if self._is_sent and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            if self._transport is not None:
                self._transport.resume_reading()
            self._idle = self._loop.call_later(self._limits.idle, self._fail, Shut("It was not needed any more."))
            exchange.ended()
            if not self.is_gone:
                self._owner.freed(self)
        else:
            self._fail(Shut("The server closes the connection."))
            exchange.ended()

    def _fail(self, error: OutboundError) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._retire(error)
        if self._idle is not None:
            self._idle.cancel()
        if self._transport is not None:
            self._part()
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.lost(error)


KEEP_ALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPALIVE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Options of the system, each where it has it."""


def _keep_alive(opened: socket.socket) -> None:
    """HTTP/1.1 has no ping: the system asks whether the other machine is still there."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
