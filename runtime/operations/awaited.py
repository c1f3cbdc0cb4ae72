"""Invocations whose end somebody awaits, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator


class Awaited:
    """By invocation, the future of each caller; it gets the frame of the result."""

    def __init__(self) -> None:
        self._callers: dict[bytes, list[asyncio.Future[bytes]]] = {}
        self._seen: list[bytes] = []

    def __contains__(self, id: bytes) -> bool:
        return id in self._callers

    def __len__(self) -> int:
        return len(self._callers)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._callers)

    def begin(self, id: bytes) -> asyncio.Future[bytes]:
        """One caller more, until it stops."""
        ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._callers.setdefault(id, []).append(ended)
        return ended

    def stop(self, id: bytes, ended: asyncio.Future[bytes]) -> None:
        """One caller less, whether it got its answer or went away."""
        callers = self._callers[id]
        callers.remove(ended)
        if not callers:
            del self._callers[id]

    def settle(self, id: bytes, result: bytes) -> None:
        """It has ended: tell all who wait. May come more than once."""
        for ended in self._callers.get(id, ()):
            if not ended.done():
                ended.set_result(result)

    def since_last_look(self) -> list[bytes]:
        """Those that were awaited at the last look already."""
        overdue = [id for id in self._seen if id in self._callers]
        self._seen = list(self._callers)
        return overdue
