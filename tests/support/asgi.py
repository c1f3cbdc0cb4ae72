"""A caller of an ASGI application without a server: each request is one exchange of messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct

Message = dict[str, Any]
App = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class Answer(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Exchange:
    """One request under way: what the application may receive, and what it sent."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.sent: list[Message] = []
        self.unread = [
            {"type": "http.request", "body": chunk, "more_body": n < len(chunks)} for n, chunk in enumerate(chunks, 1)
        ]
        self.unread_when_answered = 0
        self.is_of_head = False
        self._has_left = asyncio.Event()

    def leave(self) -> None:
        """The client closes the connection."""
        self._has_left.set()

    async def receive(self) -> Message:
        if self.unread:
            return self.unread.pop(0)
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if not self.sent:
            self.unread_when_answered = len(self.unread)
        self.sent.append(message)

    @property
    def answer(self) -> Answer:
        start, *parts = self.sent
        assert start["type"] == "http.response.start"
        assert all(part["type"] == "http.response.body" for part in parts)
        assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        body = b"".join(part["body"] for part in parts)
        assert headers["content-length"] == str(len(body)) or self.is_of_head
        assert len(headers) == len(start["headers"]), "a header was sent twice"
        return Answer(start["status"], headers, body)


class Caller:
    """Sends requests to a started application."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def post(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        return await self.request("POST", path, body, **{"content_type": "application/json", **headers})

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, **headers)

    async def request(self, method: str, path: str, *chunks: bytes, **headers: str) -> Answer:
        """One request; in the names of headers, `_` stands for `-`."""
        exchange = Exchange(chunks or (b"",))
        await self.exchange(exchange, method, path, **headers)
        return exchange.answer

    async def exchange(self, exchange: Exchange, method: str, path: str, **headers: str) -> None:
        exchange.is_of_head = method == "HEAD"
        raw_path, _, query = path.encode("latin-1").partition(b"?")
        scope = {
            "type": "http",
            "method": method,
            "raw_path": raw_path,
            "query_string": query,
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        await self._app(scope, exchange.receive, exchange.send)


@asynccontextmanager
async def started(app: App) -> AsyncIterator[Caller]:
    """The application between its start and its stop."""
    sent: asyncio.Queue[Message] = asyncio.Queue()
    events: asyncio.Queue[Message] = asyncio.Queue()
    server = asyncio.ensure_future(app({"type": "lifespan"}, events.get, sent.put))
    events.put_nowait({"type": "lifespan.startup"})
    assert await sent.get() == {"type": "lifespan.startup.complete"}
    try:
        yield Caller(app)
    finally:
        events.put_nowait({"type": "lifespan.shutdown"})
        assert await sent.get() == {"type": "lifespan.shutdown.complete"}
        await server
