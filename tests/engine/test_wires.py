"""Wires: sockets lead to those who share our token, and what they do not carry is handed on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from runtime.wakeups import Kind, listen
from runtime.wakeups.wires import Lines

WITHIN = 15.0
HINT = (Kind.KEYS, ["Counter", "k"])


class Post:
    """What arrives over a socket, and what no socket has carried."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Any] = asyncio.Queue()
        self.unreached: asyncio.Queue[Any] = asyncio.Queue()

    def received(self, _: Any, kind: int, items: list[Any]) -> None:
        for item in items:
            self.arrived.put_nowait((kind, item))

    def lines(self, token: bytes) -> Lines:
        return Lines(
            self.received, token, lambda address, kind, item: self.unreached.put_nowait((address, (kind, item)))
        )


async def test_what_is_sent_before_the_socket_is_open_arrives(sockets: Path) -> None:
    post, address = Post(), str(sockets / "a.sock")
    server = listen(address, post.received, b"ours")
    lines = post.lines(b"ours")
    lines.send(address, *HINT)
    async with asyncio.timeout(WITHIN):
        assert await post.arrived.get() == HINT
    assert not lines.is_unreached(address)
    lines.close()
    server.close()


@pytest.mark.parametrize("is_there", [True, False], ids=["of strangers", "of nobody"])
async def test_what_is_for_a_socket_is_handed_on(sockets: Path, is_there: bool) -> None:
    post, address = Post(), str(sockets / "a.sock")
    server = listen(address, post.received, b"theirs") if is_there else None
    lines = post.lines(b"ours")
    lines.send(address, *HINT)
    async with asyncio.timeout(WITHIN):
        assert await post.unreached.get() == (address, HINT)
    assert lines.is_unreached(address)
    lines.send(address, *HINT)
    assert post.unreached.get_nowait() == (address, HINT)
    assert post.arrived.empty()
    lines.close()
    if server is not None:
        server.close()


async def test_a_connection_that_was_not_answered_yet_is_closed_with_the_others(sockets: Path) -> None:
    hung_up = asyncio.Event()
    asked = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        hung_up.set()
        writer.close()

    address = str(sockets / "a.sock")
    server = await asyncio.start_unix_server(keep_silent, address)
    lines = Post().lines(b"ours")
    lines.send(address, *HINT)
    async with asyncio.timeout(WITHIN):
        await asked.wait()
        lines.close()
        await hung_up.wait()
    server.close()


async def test_who_listens_no_more_hangs_up(sockets: Path) -> None:
    post = Post()
    address = str(sockets / "a.sock")
    server = listen(address, post.received, b"ours")
    reader, writer = await asyncio.open_unix_connection(address)
    writer.write(len(b"ours").to_bytes(4, "big") + b"ours")
    async with asyncio.timeout(WITHIN):
        await reader.readexactly(1)  # it is welcome
        server.close()
        await reader.read()
    writer.close()


@pytest.mark.parametrize("turns", range(6))
async def test_who_comes_as_nobody_listens_any_more_is_hung_up_on(sockets: Path, turns: int) -> None:
    """However far it has come by then."""
    post, address = Post(), str(sockets / "a.sock")
    server = listen(address, post.received, b"ours")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(address)
        caller.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        server.close()
        async with asyncio.timeout(WITHIN):
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(caller, 1) == b""
