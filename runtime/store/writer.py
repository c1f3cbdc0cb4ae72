"""The writer: group commit. What came in during the last flush goes out with the next, one flush at a time.

A flush that fails is nobody's fault but one unit's: it is tried again when that may help, else halved until the bad
unit is alone. That one is refused, all others are committed. A unit is what must not be torn: the changes of one
exclusive key (a successor may have computed on its predecessor's uncommitted state), or of one invocation.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from runtime.core.changes import Changes
from runtime.core.invocation import Mode
from runtime.errors import DatabaseError
from runtime.store.claim import Claim, Key
from runtime.store.commit import Receipt, commit
from runtime.store.link import Link

log = logging.getLogger(__name__)

MAX_EFFECTS = 1_000
MAX_BYTES = 4_000_000
TRIES = 20
"""How often a flush that met a deadlock or a lock time-out is tried before its units go apart."""


class Extras:
    """What an engine's flush does besides its invocations' changes; this base wants nothing."""

    def take_release(self) -> list[Key]:
        """Leases at rest, to be given back."""
        return []

    def take_claim(self) -> Claim | None:
        """What to take from the queue now."""
        return None


class Writer:
    """Collects changes and makes them true; says what became of them by its callbacks, in order of commit."""

    def __init__(
        self,
        link: Link,
        *,
        engine: bytes | None,
        committed: Callable[[Sequence[Changes], Receipt], None],
        refused: Callable[[Sequence[Changes], DatabaseError], None],
        extras: Extras | None = None,
    ) -> None:
        self.link = link
        self.backend_pid = link.backend_pid
        self._engine = engine
        self._committed = committed
        self._refused = refused
        self._extras = extras or Extras()
        self.waiting: deque[Changes] = deque()
        self.in_flight: list[Changes] = []
        """Taken, and not known to be committed or refused."""
        self._wake = asyncio.Event()
        self.flushes = 0

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self.in_flight)

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, changes: Changes) -> None:
        """Into the next flush."""
        self.waiting.append(changes)
        self._wake.set()

    def discard(self, unwanted: Callable[[Changes], bool]) -> None:
        """Drop what waits for its flush and must not be committed any more."""
        self.waiting = deque(changes for changes in self.waiting if not unwanted(changes))

    def wake(self) -> None:
        """There may be something among the extras."""
        self._wake.set()

    async def run(self) -> None:
        """Flush until cancelled. Raises Disconnected, and DatabaseError when the engine is fenced."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while await self.flush():
                pass

    async def flush(self) -> bool:
        """One flush of what waits; False when there was nothing to do."""
        batch = self._take()
        release = self._extras.take_release()
        wanted = self._extras.take_claim()
        if not batch and not release and wanted is None:
            return False
        self.flushes += 1
        await self._write(batch, release, wanted)
        self.in_flight = []
        return True

    def _take(self) -> list[Changes]:
        batch: list[Changes] = []
        effects = size = 0
        waiting = self.waiting
        self.in_flight = batch
        while waiting and effects < MAX_EFFECTS and size < MAX_BYTES:
            changes = waiting.popleft()
            changes.sealed = True
            batch.append(changes)
            effects += changes.size
            for frame in changes.frames:
                size += len(frame)
            for creation in changes.creations:
                size += len(creation.invocation.input)
        return batch

    async def _write(self, batch: list[Changes], release: Sequence[Key] = (), wanted: Claim | None = None) -> None:
        error: DatabaseError | None = None
        for attempt in range(TRIES):
            try:
                receipt = await commit(self.link, batch, engine=self._engine, release=release, wanted=wanted)
            except DatabaseError as failure:
                if failure.is_fence or failure.sqlstate == "01000":
                    raise
                if failure.is_vouch:  # nothing is wrong with the work: it is given to somebody else
                    self._refused(batch, failure)
                    return
                error = failure
                log.debug("a flush of %d was refused: %s", len(batch), failure)
                if failure.is_transient and attempt < TRIES - 1:
                    continue
                break
            else:
                self._committed(batch, receipt)
                return
        assert error is not None
        if release or wanted is not None:
            if not error.is_transient and not error.is_lock_timeout:
                log.warning("a flush with a claim was refused: %s", error)
            await self._write(batch)  # claims and releases can wait for the next flush
        else:
            await self._halve(batch, error)

    async def _halve(self, batch: list[Changes], error: DatabaseError) -> None:
        units = _units(batch)
        if len(units) <= 1:
            log.warning("refused by the database, alone: %s", error)
            self._refused(batch, error)
            return
        middle = len(units) // 2
        for half in (units[:middle], units[middle:]):
            await self._write([changes for unit in half for changes in unit])


def unit_of(changes: Changes) -> object:
    """What these changes must not be torn from."""
    invocation = changes.invocation
    if invocation.mode is Mode.EXCLUSIVE:
        return invocation.service, invocation.key
    return invocation.id or id(changes)


def _units(batch: Sequence[Changes]) -> list[list[Changes]]:
    units: dict[object, list[Changes]] = {}
    for changes in batch:
        units.setdefault(unit_of(changes), []).append(changes)
    return list(units.values())
