"""A service behind HTTP without the HTTP: the runtime's requests are given to an ASGI app in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.engine.remote import Listener
from tests.support.asgi import App, Message


class Request:
    """One request under way; the body's pieces and the answer's pass as they come."""

    def __init__(self, app: App, scope: dict[str, Any], listener: Listener) -> None:
        self._pieces: asyncio.Queue[Message] = asyncio.Queue()
        self._listener = listener
        self._task = asyncio.create_task(self._run(app, scope))

    def send(self, data: bytes) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": data, "more_body": True})

    def finish(self) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def reset(self) -> None:
        self._listener = _Deaf()
        self._pieces.put_nowait({"type": "http.disconnect"})

    def acknowledge(self, size: int) -> None:
        """Memory is the only window there is."""

    async def _run(self, app: App, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._pieces.get, self._answer)
        except Exception as error:
            self._listener.lost(error)
            raise

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self._listener.head(message["status"], headers)
            return
        if message.get("body"):
            self._listener.data(message["body"])
        if not message.get("more_body", False):
            self._listener.ended()


class ASGIPeer:
    """The server of an app."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.paths: list[str] = []
        """What was asked for."""

    def open(self, method: str, path: str, headers: Sequence[tuple[str, str]], listener: Listener) -> Request:
        self.paths.append(path)
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        scope = {"type": "http", "method": method, "path": path, "headers": encoded, "http_version": "2"}
        return Request(self._app, scope, listener)


class _Deaf:
    def head(self, status: int, headers: Mapping[str, str]) -> None: ...
    def data(self, chunk: bytes) -> None: ...
    def ended(self) -> None: ...
    def lost(self, error: Exception) -> None: ...
