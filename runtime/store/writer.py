"""The writer: group commit. What came in during the last flush goes out with the next, one flush at a time.

A flush that fails is tried again when that may help. Where one unit is to blame, it is halved until that is alone: it
is refused, all others are committed. One that meets a locked key waits aside, so that it delays only itself. Anything
else (a full disk, a server that shuts down) is no unit's fault, and ends the writer. A unit is what must not be torn:
the changes of one exclusive key (a successor may have computed on its predecessor's uncommitted state), or of one
invocation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from runtime.core.changes import Changes
from runtime.core.invocation import Mode
from runtime.core.tally import Tally
from runtime.errors import DatabaseError, Disconnected
from runtime.store.claim import Claim, Key
from runtime.store.commit import Receipt, commit
from runtime.store.link import Link

log = logging.getLogger(__name__)

MAX_EFFECTS = 1_000
MAX_BYTES = 4_000_000
TRIES = 20
"""How often a flush that met a deadlock is tried before its units go apart."""
PATIENCE = 1.0
"""Seconds after which a unit that met a locked key is tried again."""


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
        tally: Tally,
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
        self._aside: dict[object, None] = {}
        """Units that met a locked key; what is theirs stays among the waiting until they are tried again."""
        self._wake = asyncio.Event()
        self._tally = tally
        link.ended = self.wake  # with nothing to flush nobody would notice

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
        """One flush of what waits; False when there was nothing to do. Raises as `run` does."""
        if self.link.closed:
            raise Disconnected("the writer's link was closed")
        batch = self._take()
        release = self._extras.take_release()
        wanted = self._extras.take_claim()
        if not batch and not release and wanted is None:
            return False
        began = time.perf_counter()
        await self._write(batch, release, wanted)
        self.in_flight = []
        self._tally.flush_seconds.observe(time.perf_counter() - began)
        self._tally.flush_sizes.observe(len(batch))
        return True

    def _take(self) -> list[Changes]:
        batch: list[Changes] = []
        effects = size = 0
        waiting = self.waiting
        aside = self._aside
        stays: list[Changes] = []
        self.in_flight = batch
        while waiting and effects < MAX_EFFECTS and size < MAX_BYTES:
            changes = waiting.popleft()
            if aside and unit_of(changes) in aside:
                stays.append(changes)
                continue
            changes.sealed = True
            batch.append(changes)
            effects += changes.size
            for frame in changes.frames:
                size += len(frame)
            for creation in changes.creations:
                size += len(creation.invocation.input)
        waiting.extendleft(reversed(stays))
        return batch

    async def _write(self, batch: list[Changes], release: Sequence[Key] = (), wanted: Claim | None = None) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                receipt = await commit(self.link, batch, engine=self._engine, release=release, wanted=wanted)
            except DatabaseError as error:
                log.debug("a flush of %d was refused: %s", len(batch), error)
                if error.is_transient and attempt < TRIES:
                    continue
                if error.is_vouch:  # nothing is wrong with the work: it is given to somebody else
                    self._settle(batch)
                    self._refused(batch, error)
                elif not (error.is_poison or error.is_lock_timeout or error.is_transient):
                    raise
                elif release or wanted is not None:  # they can wait for the next flush
                    await self._write(batch)
                else:
                    await self._part(batch, error)
            else:
                self._settle(batch)
                self._committed(batch, receipt)
            return

    async def _part(self, batch: list[Changes], error: DatabaseError) -> None:
        """Find the units that are to blame; the others are committed."""
        units = _units(batch)
        if len(units) > 1:
            for part in _apart(units) if error.is_lock_timeout else _halves(units):
                await self._write([changes for unit in part for changes in unit])
        elif error.is_lock_timeout:
            self._set_aside(batch)
        else:
            log.warning("refused by the database, alone: %s", error)
            self._settle(batch)
            self._refused(batch, error)

    def _set_aside(self, batch: list[Changes]) -> None:
        unit = unit_of(batch[0])
        log.warning("%s/%s waits for a lock", batch[0].invocation.service, batch[0].invocation.key)
        self._settle(batch)
        self.waiting.extendleft(reversed(batch))
        self._aside[unit] = None
        asyncio.get_running_loop().call_later(PATIENCE, self._take_up, unit)

    def _take_up(self, unit: object) -> None:
        self._aside.pop(unit, None)
        self._wake.set()

    def _settle(self, batch: Sequence[Changes]) -> None:
        """No longer in flight."""
        if len(batch) == len(self.in_flight):
            self.in_flight = []
        else:
            settled = set(map(id, batch))
            self.in_flight = [changes for changes in self.in_flight if id(changes) not in settled]


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


def _halves(units: Sequence[list[Changes]]) -> Iterator[Sequence[list[Changes]]]:
    middle = len(units) // 2
    yield units[:middle]
    yield units[middle:]


def _apart(units: Sequence[list[Changes]]) -> Iterator[Sequence[list[Changes]]]:
    """All that touch no key at once, then the others one by one."""
    free = [unit for unit in units if not any(map(_touches_key, unit))]
    if free and len(free) < len(units):
        yield free
        yield [unit for unit in units if any(map(_touches_key, unit))]
    else:
        for unit in units:
            yield [unit]


def _touches_key(changes: Changes) -> bool:
    return (
        changes.invocation.mode is Mode.EXCLUSIVE
        or bool(changes.promises)
        or any(creation.invocation.mode is Mode.EXCLUSIVE for creation in changes.creations)
    )
