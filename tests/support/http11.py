"""A server of HTTP/1.1 whose every answer is written out by the test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import h11


class Talk:
    """One connection, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._http = h11.Connection(h11.SERVER)

    async def request(self) -> tuple[str, dict[str, str], bytes] | None:
        """The next request: its target, headers and body; None: the client has gone."""
        target, headers, body = "", dict[str, str](), b""
        if self._http.our_state is not h11.IDLE:
            self._http = h11.Connection(h11.SERVER)
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.Request):
                target = event.target.decode()
                headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._http = h11.Connection(h11.SERVER)
                return target, headers, body
            else:
                return None

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        said = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.say(f"HTTP/1.1 {status} X\r\n{said}content-length: {len(body)}\r\n\r\n".encode() + body)


class Line:
    """Where it listens, and how often somebody came."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.is_open = True
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@asynccontextmanager
async def talking(talk: Callable[[Talk], Awaitable[None]], tls: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    """A server that does this with each connection, and then closes it."""
    line = Line()
    line.scheme = "https" if tls else "http"
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(Talk(reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            if line.is_open:
                writer.close()
            else:
                writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        line.is_open = False
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
