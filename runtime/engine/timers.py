"""Timers: sleeps until the earliest one that is known here, and looks now and then for those that others armed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from runtime.engine.aftermath import Aftermath
from runtime.engine.ears import Ears
from runtime.engine.memory import Memory
from runtime.engine.starts import Starts
from runtime.errors import DatabaseError
from runtime.store import timers
from runtime.store.link import Link
from runtime.store.side import Side
from runtime.wakeups import Kind

log = logging.getLogger(__name__)

POLL = 0.5
BREATH = 0.005


class Timers:
    def __init__(
        self,
        memory: Memory,
        starts: Starts,
        ears: Ears,
        aftermath: Aftermath,
        side: Side,
        is_attached: Callable[[], bool],
    ) -> None:
        self._memory = memory
        self._starts = starts
        self._ears = ears
        self._aftermath = aftermath
        self._side = side
        self._is_attached = is_attached
        self._around_locks = False
        """Something that is due was locked by somebody for long, when last looked at."""
        self._earlier = asyncio.Event()
        self._next_due: float | None = None

    def expect(self, due: int) -> None:
        """A timer was armed, in milliseconds since the epoch."""
        at = due / 1000
        if self._next_due is None or at < self._next_due:
            self._next_due = at
            self._earlier.set()

    async def run(self) -> None:
        """Fire until cancelled. Raises Disconnected, and DatabaseError when this engine is dead."""
        while True:
            await self._until_due()
            self._next_due = None
            taken = timers.BATCH
            while taken == timers.BATCH:
                fired = await self._side.run(self._fire)
                taken = fired.taken
                self._fired(fired)
            if not taken:  # somebody else's batch may be under way: its timers still seem to be due
                await asyncio.sleep(BREATH)
            due = await self._side.run(timers.next_due)
            if due is not None:
                self.expect(due)

    async def _until_due(self) -> None:
        deadline = time.time() + POLL
        while (wait := min(deadline, self._next_due or deadline) - time.time()) > 0:
            try:
                async with asyncio.timeout(wait):
                    await self._earlier.wait()
            except TimeoutError:
                return
            self._earlier.clear()

    async def _fire(self, link: Link) -> timers.Fired:
        is_open = self._is_attached()
        takes = self._memory.takes if is_open else lambda *_: False
        engine, room = self._ears.engine, self._memory.newcomers
        try:
            fired = await timers.fire_due(link, engine, room, takes, around_locks=self._around_locks)
        except DatabaseError as error:
            if not error.is_lock_timeout or self._around_locks:
                raise
            log.warning("something that is due has been locked for long; it is tried again in a second")
            fired = await timers.fire_due(link, engine, room, takes, around_locks=True)
        self._around_locks = fired.postponed > 0
        return fired

    def _fired(self, fired: timers.Fired) -> None:
        for id in fired.owned:
            self._starts.load(id)
        for key, owner in fired.keys.items():
            if owner == self._ears.engine:
                self._starts.look(key)
            elif owner is not None:
                self._ears.hint(owner, Kind.KEYS, key)
            else:
                self._ears.offer_to_all()
        for letter in fired.mails:
            self._aftermath.sent(letter, fired.told.get(letter.target))
        if fired.queued:
            self._ears.offer_to_all()
