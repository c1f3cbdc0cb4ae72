"""The side link: for everything that is not on the hot path, one user at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runtime.store.link import Link

T = TypeVar("T")


class Side:
    """A link that is opened anew when it was lost: a cold read does not care."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._link: Link | None = None
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[Link], Awaitable[T]]) -> T:
        """Do `work` with the link to itself; raises what it raises, and Disconnected."""
        async with self._turn:
            return await work(await self._open())

    @property
    def backend_pid(self) -> int | None:
        return None if self._link is None else self._link.backend_pid

    async def connect(self) -> None:
        """Open it now; raises Disconnected."""
        async with self._turn:
            await self._open()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    async def _open(self) -> Link:
        if self._link is None or self._link.closed:
            self._link = await Link.connect(self._conninfo)
        return self._link
