"""The postbox: mail for what this engine drives, read from the database.

A verb stays in its slot until the flush that has heard it is through; after that, the slot may hold another one. So
a verb is heard here only: hints say no more than whose mail to read, and when verbs of an invocation were heard while
its mail was being read, what was read may be one of those, and is read anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from runtime.core.changes import Changes
from runtime.store import mail
from runtime.store.link import Link
from runtime.store.mail import Letter
from runtime.store.side import Side


class Postbox:
    def __init__(self, engine: bytes, side: Side) -> None:
        self._engine = engine
        self._side = side
        self._asked: asyncio.Queue[Sequence[bytes]] = asyncio.Queue()
        self._settled: set[bytes] = set()
        """Invocations whose verbs may have been heard since the reading under way began."""

    def look(self, targets: Sequence[bytes]) -> None:
        """There is, or may be, mail for these."""
        self._asked.put_nowait(targets)

    def committed(self, batch: Sequence[Changes]) -> None:
        """A flush is through, and the verbs that it has heard are out of the mail."""
        for changes in batch:
            if changes.ending is not None or (changes.read and min(changes.read) < 0):
                self._settled.add(changes.invocation.id)

    async def run(self, hear: Callable[[list[Letter]], None]) -> None:
        """Read what is asked for until cancelled."""
        while True:
            targets = [*await self._asked.get()]
            while not self._asked.empty():
                targets += self._asked.get_nowait()
            await self._read(lambda link: mail.unread_of(link, self._engine, targets), hear)  # noqa: B023 -- awaited

    async def read_all(self, hear: Callable[[list[Letter]], None]) -> None:
        await self._read(lambda link: mail.unread(link, self._engine), hear)

    async def _read(
        self, look: Callable[[Link], Awaitable[list[Letter]]], hear: Callable[[list[Letter]], None]
    ) -> None:
        async def read(link: Link) -> None:
            self._settled.clear()  # one reading at a time has the link
            letters = await look(link)
            stale = [target for target, slot, _ in letters if slot < 0 and target in self._settled]
            hear([letter for letter in letters if letter[1] > 0 or letter[0] not in self._settled])
            if stale:
                self.look(stale)

        await self._side.run(read)
