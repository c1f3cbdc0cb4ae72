"""A proxy between links and their server: told to, it passes a request on, keeps the answer, and hangs up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg.conninfo import conninfo_to_dict, make_conninfo

END = b"Z\x00\x00\x00\x05I"
"""ReadyForQuery, outside of a transaction: what was asked is done, and committed where that was to be."""
KEY = b"K\x00\x00\x00\x0c"
"""BackendKeyData, in what the server says first: the process id of the session follows."""


class Proxy:
    def __init__(self, host: str, port: str) -> None:
        self.lost = 0
        """Answers kept back."""
        self.server_hears_of_it = True
        """Whether the server's end of the connection is closed, too, when an answer is lost."""
        self._server = host, port
        self._spared: dict[int, int] = {}
        """By the process id of a session: answers that still get through, before one is lost."""
        self._tasks: set[asyncio.Task[None]] = set()

    def lose(self, backend_pid: int, answer: int = 1) -> None:
        """Let the nth answer from now on be lost, of the link to that session."""
        self._spared[backend_pid] = answer - 1

    def lose_none(self) -> None:
        self._spared.clear()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await self._connect()
        there = asyncio.create_task(_pass_on(reader, requests))
        try:
            await self._answer(answers, writer)
            if not self.server_hears_of_it:
                there.cancel()
                writer.close()
                await asyncio.Event().wait()  # until the proxy closes
        finally:
            there.cancel()
            for end in (writer, requests):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._server
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    async def _answer(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass answers on until one of them is to be lost, or no more come."""
        pid, answer = 0, b""
        while chunk := await answers.read(65536):
            answer += chunk
            is_whole = answer.endswith(END)
            if not pid and KEY in answer:
                at = answer.index(KEY) + len(KEY)
                pid = int.from_bytes(answer[at : at + 4], "big")
            if self._spared.get(pid) == 0:
                if is_whole:
                    del self._spared[pid]
                    self.lost += 1
                    return
                continue
            if is_whole:
                answer = b""
                if pid in self._spared:
                    self._spared[pid] -= 1
            writer.write(chunk)
            with contextlib.suppress(ConnectionError):
                await writer.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def between(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server that a database's address names, and the address by way of it."""
    there = conninfo_to_dict(url)
    proxy = Proxy(str(there.get("host") or "127.0.0.1"), str(there.get("port") or 5432))
    listener = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        # Without encryption: the proxy must see where an answer ends.
        yield proxy, make_conninfo(url, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
    finally:
        listener.close()
        await proxy.close()
