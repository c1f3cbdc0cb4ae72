"""Suspects: what was being driven in three engines as they died may be what kills them.

They are tried one at a time, each noted in the engine's row before it starts. Should that die then, it counts against
the noted one, and not against the other suspects, of which there may be many. (What is none yet is blamed too: it may
be another that kills, and would never be found among suspects.) One that gets on is none any more: it has committed a
step, it has ended, or it waits (and is suspended at once, for to wait kills nobody).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from runtime.core import slots
from runtime.engine.memory import Memory
from runtime.store import owners
from runtime.store.claim import Loaded
from runtime.store.side import Side

LOOK = 0.05  # seconds between two looks at the one that is tried, at most
GRACE = 2.0  # seconds within which it begins, unless it is gone meanwhile


class Suspects:
    def __init__(self, memory: Memory, side: Side, engine: bytes) -> None:
        self._memory = memory
        self._side = side
        self._engine = engine
        self._waiting: dict[bytes, Callable[[], None]] = {}
        self._tried: bytes | None = None
        self._came = asyncio.Event()
        self._begun = asyncio.Event()

    def holds(self, loaded: Loaded, begin: Callable[[], None]) -> bool:
        """Whether it must wait for its turn, which `begin` is called at. To be killed or paused it needs none."""
        id = loaded.invocation.id
        if loaded.invocation.crashes < owners.SUSPICIOUS or id == self._tried:
            return False
        told = {slot for slot, _ in loaded.mail}
        if slots.KILL in told or (slots.PAUSE in told and slots.CANCEL not in told):
            return False
        self._waiting[id] = begin
        self._came.set()
        return True

    def begun(self, id: bytes) -> None:
        """It is driven now."""
        if id == self._tried:
            self._begun.set()

    async def run(self) -> None:
        """Try them until cancelled. What is forgotten when the database refuses something, is found by the poll."""
        while True:
            await self._came.wait()
            self._came.clear()
            while self._waiting:
                id, begin = next(iter(self._waiting.items()))
                del self._waiting[id]
                await self._note(id)
                self._tried = id
                self._begun.clear()
                begin()
                await self._until_it_gets_on(id)
            self._tried = None
            await self._note(None)

    async def _note(self, id: bytes | None) -> None:
        await self._side.run(lambda link: owners.suspect(link, self._engine, id))

    async def _until_it_gets_on(self, id: bytes) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._begun.wait()
        pause = 0.001
        while (drive := self._memory.drives.get(id)) is not None and drive.invocation.crashes and not drive.suspend():
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK)
