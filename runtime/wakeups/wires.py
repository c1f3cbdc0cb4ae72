"""Wires: hints over Unix sockets, between processes of one machine that share a secret key.

Only engines listen; ingresses and engines connect to them. Items of one tick leave in one write.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import socket
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from runtime.wakeups.kinds import Asker, Item

log = logging.getLogger(__name__)

LONGEST = 16_000_000  # bytes of one message: beyond it somebody does not speak our language

WELCOME = b""
"""What the listening side answers to the right token."""

PATIENCE = 1.0  # seconds for a socket to answer: a process that stands still has one too
RETRY = 5.0  # seconds after which a socket that led nowhere is tried again
BACKLOG = 100

Received = Callable[[Asker, int, list[Item]], None]


class Wire(asyncio.Protocol):
    """One connection, either end. The connecting side speaks first: a token that both sides know."""

    def __init__(self, received: Received, token: bytes, *, is_server: bool) -> None:
        self._received = received
        self._token = token
        self._is_trusted = False
        self._is_server = is_server
        self.accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether the other side trusts us, once that is known."""
        self._transport: asyncio.Transport | None = None
        self._is_hung_up = False
        self._buffer = bytearray()
        self._items: dict[int, list[Item]] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(tuple[int, list[Any]]).decode

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, kind: int, item: Item) -> None:
        """Leaves at the end of this tick, with everything else of its kind; lost when the other end is gone."""
        if not self._items:
            asyncio.get_running_loop().call_soon(self._flush)
        self._items.setdefault(kind, []).append(item)

    def close(self) -> None:
        """Hang up, now or as soon as there is a connection."""
        self._is_hung_up = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if self._is_hung_up:
            self._transport.close()
        elif not self._is_server:
            self._transport.write(_framed(self._token))

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        if not self.accepted.done():
            self.accepted.set_result(False)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if length > LONGEST:
                self.close()
                return
            if len(buffer) - start - 4 < length:
                break
            self._take(bytes(buffer[start + 4 : start + 4 + length]))
            start += 4 + length
        del buffer[:start]

    def _take(self, message: bytes) -> None:
        if not self._is_trusted:
            self._is_trusted = hmac.compare_digest(message, self._token if self._is_server else WELCOME)
            if not self._is_trusted:
                log.warning("a connection without the right token was closed")
                self.close()
                return
            if self._is_server and self._transport is not None:
                self._transport.write(_framed(WELCOME))
            if not self.accepted.done():
                self.accepted.set_result(True)
        elif self.is_open:
            try:
                kind, items = self._decode(message)
            except msgspec.DecodeError:
                self.close()
                return
            self._received(self, kind, items)

    def _flush(self) -> None:
        items, self._items = self._items, {}
        if self._transport is not None:
            self._transport.write(b"".join([_framed(self._encode((kind, batch))) for kind, batch in items.items()]))


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


class Listener:
    """Takes connections at a socket's path.

    By hand, for a server of asyncio that is closed in the midst of taking one forgets it, and leaves it open.
    """

    def __init__(self, received: Received, token: bytes) -> None:
        self._received = received
        self._token = token
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._wires: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._coming: set[asyncio.Task[Any]] = set()

    def open(self, address: str) -> None:
        """Only this user may connect."""
        Path(address).unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise
        finally:
            os.umask(mask)
        self._socket.listen(BACKLOG)
        self._listen()

    def close(self) -> None:
        """Take no more, and hang up on those that are there: nobody hears what they say."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        for wire in list(self._wires):
            wire.close()

    def _listen(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # too many open files, say
            log.warning("no connection can be taken at the moment: %s", error)
            self._loop.remove_reader(self._socket)
            self._loop.call_later(PATIENCE, self._listen)
            return
        connection.setblocking(False)
        wire = Wire(self._received, self._token, is_server=True)
        self._wires.add(wire)
        coming = self._loop.create_task(self._loop.connect_accepted_socket(lambda: wire, connection))
        self._coming.add(coming)
        coming.add_done_callback(self._coming.discard)


def listen(address: str, received: Received, token: bytes) -> Listener:
    """Take hints at a socket's path, until it is closed."""
    listener = Listener(received, token)
    listener.open(address)
    return listener


class Lines:
    """Connections to the engines that there are, opened when first used.

    What is for one that no socket reaches is handed to `unreached`; after a while the socket is tried again.
    """

    def __init__(self, received: Received, token: bytes, unreached: Callable[[str, int, Item], None]) -> None:
        self._received = received
        self._token = token
        self._unreached = unreached
        self._wires: dict[str, Wire] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False
        self._failed: dict[str, float] = {}
        """When an address was last tried in vain."""

    def send(self, address: str, kind: int, item: Item) -> None:
        wire = self._wires.get(address)
        if wire is not None and wire.is_open:
            wire.send(kind, item)
        elif self.is_unreached(address):
            self._unreached(address, kind, item)
        elif address:
            self._open(address, kind, item)

    def is_unreached(self, address: str) -> bool:
        """Whether its socket was tried not long ago, in vain."""
        failed = self._failed.get(address)
        return failed is not None and asyncio.get_running_loop().time() < failed + RETRY

    def _open(self, address: str, kind: int, item: Item) -> None:
        if address not in self._opening:
            self._opening[address] = asyncio.ensure_future(self._connect(address))
        self._opening[address].add_done_callback(lambda _: self._send_again(address, kind, item))

    def _send_again(self, address: str, kind: int, item: Item) -> None:
        if not self._is_closed:
            self.send(address, kind, item)

    async def _connect(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        wire = Wire(self._received, self._token, is_server=False)
        try:
            async with asyncio.timeout(PATIENCE):
                await loop.create_unix_connection(lambda: wire, address)
                if not await wire.accepted:
                    raise ConnectionRefusedError("it does not know our token")
            self._wires[address] = wire
            self._failed.pop(address, None)
        except OSError as error:
            log.debug("no socket leads to %s: %s", address, error)
            self._failed[address] = loop.time()
        finally:
            if self._wires.get(address) is not wire:  # refused, too late, or closed before there was an answer
                wire.close()
            del self._opening[address]

    async def flushed(self) -> None:
        """Return when what was sent so far is on its way, or cannot be."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        await asyncio.sleep(0)

    def forget(self, addresses: set[str]) -> None:
        """Close what leads to none of `addresses`."""
        for address in [known for known in self._wires if known not in addresses]:
            self._wires.pop(address).close()
        for address in [known for known in self._failed if known not in addresses]:
            del self._failed[address]

    def close(self) -> None:
        self._is_closed = True
        self.forget(set())
        for task in self._opening.values():
            task.cancel()
