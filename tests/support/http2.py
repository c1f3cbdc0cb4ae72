"""A server of HTTP/2 on the h2 library, for what asks one; it does what a test tells it to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings


class Asked:
    """One request, and its answer."""

    def __init__(self, server: _Connection, stream: int, headers: dict[str, str]) -> None:
        self.headers = headers
        self.stream = stream
        self.server = server
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def chunk(self) -> bytes | None:
        """More of the request's body; None: it has ended."""
        return await self._chunks.get()

    async def body(self) -> bytes:
        parts = []
        while (part := await self.chunk()) is not None:
            parts.append(part)
        return b"".join(parts)

    def head(self, status: int = 200, **headers: str) -> None:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.server.http.send_headers(self.stream, [(":status", str(status)), *named])
        self.server.flush()

    async def say(self, data: bytes) -> None:
        """Send some of the answer, as the client's window allows."""
        http = self.server.http
        while data:
            room = min(http.local_flow_control_window(self.stream), http.max_outbound_frame_size)
            if room == 0:
                self.server.news.clear()
                await self.server.news.wait()
                continue
            http.send_data(self.stream, data[:room])
            data = data[room:]
            self.server.flush()

    def end(self) -> None:
        self.server.http.end_stream(self.stream)
        self.server.flush()

    def break_off(self) -> None:
        self.server.http.reset_stream(self.stream)
        self.server.flush()


Answer = Callable[[Asked], Coroutine[Any, Any, None]]


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.news = asyncio.Event()
        self.asked: dict[int, Asked] = {}
        self.resets: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.server.connections.append(self)
        self.http.local_settings = h2.settings.Settings(client=False, initial_values=self.server.settings)
        self.http.initiate_connection()
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.server.connections.remove(self)
        self.server.news.set()

    def flush(self) -> None:
        self.transport.write(self.http.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.http.receive_data(data):
            self._hear(event)
        self.flush()
        self.news.set()
        self.server.news.set()

    def _hear(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers: dict[Any, Any] = dict(event.headers)
            asked = Asked(self, event.stream_id, {name.decode(): value.decode() for name, value in headers.items()})
            self.asked[event.stream_id] = asked
            self.server.start(asked)
        elif isinstance(event, h2.events.DataReceived):
            if self.server.opens_windows:
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.asked[event.stream_id]._chunks.put_nowait(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            self.asked[event.stream_id]._chunks.put_nowait(None)
        elif isinstance(event, h2.events.StreamReset):
            self.resets.append(event.stream_id)


class Server:
    """What it was asked, over which connections."""

    def __init__(self, answer: Answer, settings: dict[h2.settings.SettingCodes, int]) -> None:
        self.settings = settings
        self.connections: list[_Connection] = []
        self.opens_windows = True
        self.news = asyncio.Event()
        self.url = ""
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, asked: Asked) -> None:
        task = asyncio.create_task(self._answer(asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self.connections:
            connection.transport.abort()


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None, **settings: int) -> AsyncIterator[Server]:
    """A server that answers every request so, with these settings of HTTP/2 (by the names of h2's SettingCodes)."""
    codes = {h2.settings.SettingCodes[name.upper()]: value for name, value in settings.items()}
    server = Server(answer, codes)
    listening = await asyncio.get_running_loop().create_server(lambda: _Connection(server), "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    server.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        server.stop()
