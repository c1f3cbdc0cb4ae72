"""Kept-alive HTTP/1.1 connections to one server: what the client needs of HTTP, on asyncio's streams."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from msgspec import Struct

from perdure.errors import UsageError

LONGEST_LINE = 1 << 16


class Response(Struct, frozen=True):
    """A whole answer; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connections:
    """Opens connections as they are needed, and uses them again."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is not the address of a server, as http://127.0.0.1:8080 is.")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """One request and its answer; raises OSError when the connection fails. It is never sent twice."""
        reader, writer = await self._connection()
        try:
            writer.write(self._head(method, path, headers, len(body)) + body)
            await writer.drain()
            response = await _read_response(reader)
        except asyncio.IncompleteReadError as error:
            writer.close()
            raise ConnectionError("The server closed the connection in the middle of its answer.") from error
        except BaseException:
            writer.close()
            raise
        if response.headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return response

    async def close(self) -> None:
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls or None, limit=LONGEST_LINE)

    def _head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", f"host: {self._host}:{self._port}"]
        for name, value in headers.items():
            if not (name + value).isprintable() or not (name + value).isascii():
                raise UsageError(f"The header {name!r} cannot be {value!r}: headers are printable ASCII.")
            lines.append(f"{name}: {value}")
        return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


async def _read_response(reader: asyncio.StreamReader) -> Response:
    status = 100
    headers: dict[str, str] = {}
    while status < 200:  # 100 Continue and its like announce the answer
        line = await _line(reader)
        version, _, rest = line.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ConnectionError(f"This is no HTTP answer: {line!r}.")
        status = int(rest[:3])
        headers = {}
        while line := await _line(reader):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
    return Response(status, headers, await _read_body(reader, status, headers))


async def _read_body(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> bytes:
    if status in (204, 304):
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    headers["connection"] = "close"  # a body without a length ends with its connection
    return await reader.read()


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks: list[bytes] = []
    while size := int((await _line(reader)).partition(";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while await _line(reader):
        pass  # trailers
    return b"".join(chunks)


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ConnectionError("The server closed the connection before it had answered.")
    return line.decode("latin-1").rstrip("\r\n")
