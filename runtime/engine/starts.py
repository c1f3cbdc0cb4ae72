"""Starts: from what is ours in the database to running attempts.

Reads inboxes, journals and state on a connection of its own, in batches of whatever was asked for meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from runtime.core import edits
from runtime.core.changes import Parked
from runtime.core.invocation import Invocation, Mode, Status
from runtime.core.registry import HandlerInfo
from runtime.core.tally import Tally
from runtime.engine.drive import Drive, Surroundings
from runtime.engine.keys import Lease
from runtime.engine.memory import Memory
from runtime.engine.remote_drive import RemoteDrive
from runtime.engine.suspects import Suspects
from runtime.store import claim
from runtime.store.claim import Key, Loaded
from runtime.store.link import Link, Pipeline, rows

BATCH = 500


class Starts:
    def __init__(
        self,
        memory: Memory,
        surroundings: Surroundings,
        suspects: Suspects,
        engine: bytes,
        reader: Link,
        tally: Tally,
    ) -> None:
        self._suspects = suspects
        self._memory = memory
        self._tally = tally
        self._surroundings = surroundings
        self._engine = engine
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._unread: set[Key] = set()
        self._to_load: set[bytes] = set()
        self._to_share: list[Loaded] = []

    @property
    def is_busy(self) -> bool:
        return bool(self._unread or self._to_load or self._to_share)

    def look(self, key: Key) -> None:
        """There is, or may be, something new in the inbox of a key that is ours."""
        lease = self._memory.leases.get(key)
        if lease is None:
            self._new_lease(key)
        elif lease.is_releasing:
            lease.is_wanted = True  # looked at again when that is through
            return
        self._unread.add(key)
        self._asked.set()

    def load(self, id: bytes) -> None:
        """An invocation is ours, and its journal is in the database."""
        if id not in self._memory.drives:
            self._to_load.add(id)
            self._asked.set()

    def start(self, loaded: Loaded) -> None:
        """Drive an invocation that is ours and wholly known; a shared handler needs its object's state first."""
        id = loaded.invocation.id
        if self._memory.knows(id) or self._suspects.holds(loaded, functools.partial(self.load, id)):
            return
        if loaded.invocation.mode is Mode.SHARED:
            self._to_share.append(loaded)
            self._asked.set()
        else:
            self._begin(loaded, {})

    def pump(self, lease: Lease) -> None:
        """Start what may start. A handler that ends at once comes back here from inside: the loop goes on with it."""
        if lease.is_releasing or lease.is_pumping or lease.is_parked:
            return
        lease.is_pumping = True
        memory = self._memory
        while not (memory.is_draining and lease.is_held_back(memory.holds_back)):
            letter = lease.next(self._speculates)
            if letter is None:
                break
            if letter.status in (Status.SUSPENDED, Status.BACKING_OFF, Status.PAUSED):
                lease.is_parked = True
                break
            if self._suspects.holds(letter, functools.partial(self.look, lease.key)):
                lease.put_back(letter)
                break
            lease.used_at = self._loop.time()
            self._begin(letter, lease.state, lease)
        lease.is_pumping = False

    def drop(self, lease: Lease) -> None:
        """Forget a lease and what runs under it; the database is not told."""
        if self._memory.leases.get(lease.key) is lease:
            del self._memory.leases[lease.key]
        if lease.running is not None:
            lease.running.abort()
            self._memory.forget(lease.running)

    def hold(self, drive: Drive) -> None:
        """Keep one that is over in its place, and its key, until what became of it is committed: whoever looked at
        the database before that would begin it once more."""
        invocation = drive.invocation
        self._memory.drives[invocation.id] = drive
        if invocation.mode is Mode.EXCLUSIVE:
            lease = drive.lease = self._new_lease(_key(invocation))
            lease.running = drive

    def _new_lease(self, key: Key) -> Lease:
        lease = self._memory.leases[key] = Lease(key, is_careful=key in self._memory.careful)
        return lease

    async def run(self) -> None:
        """Read until cancelled; raises Disconnected."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self.is_busy:
                if self._unread:
                    await self._read_inboxes()
                if self._to_load:
                    await self._load()
                if self._to_share:
                    await self._share()

    async def _read_inboxes(self) -> None:
        leases = {key: lease for key in self._unread if (lease := self._memory.leases.get(key)) is not None}
        self._unread.clear()
        if not leases:
            return
        watermarks = {key: lease.watermark for key, lease in leases.items()}
        fresh = [key for key, lease in leases.items() if not lease.is_loaded]
        inboxes = await claim.load_inboxes(self._reader, self._engine, watermarks, fresh)
        for key, lease in leases.items():
            if self._memory.leases.get(key) is not lease:
                continue
            inbox = inboxes.get(key)
            if inbox is None:  # not ours, or no longer
                self.drop(lease)
                continue
            lease.take(inbox, self._loop.time())
            if len(inbox.letters) == claim.INBOX_WINDOW:
                self._unread.add(key)
            self.pump(lease)

    async def _load(self) -> None:
        ids = list(self._to_load)[:BATCH]
        self._to_load.difference_update(ids)
        for loaded in await claim.load(self._reader, self._engine, ids):
            self.start(loaded)

    async def _share(self) -> None:
        """Shared handlers read committed state, beside whoever is writing it."""
        batch, self._to_share = self._to_share, []
        states: dict[Key, dict[str, bytes]] = {_key(loaded.invocation): {} for loaded in batch}

        def read(result: Any) -> None:
            for service, key, name, value in rows(result):
                states[service.decode(), key.decode()][name.decode()] = value

        pipeline = Pipeline()
        claim.load_state(pipeline, list(states), read)
        await self._reader.run(pipeline)
        for loaded in batch:
            if not self._memory.knows(loaded.invocation.id):
                self._begin(loaded, states[_key(loaded.invocation)])

    def _speculates(self, invocation: Invocation) -> bool:
        handler = self._handler(invocation, self._deployment(invocation))
        return handler is not None and handler.speculate

    def _deployment(self, invocation: Invocation) -> str:
        return invocation.deployment or self._memory.claimable.get(invocation.service, "")

    def _handler(self, invocation: Invocation, deployment: str) -> HandlerInfo | None:
        if invocation.handler == edits.HANDLER:
            service = self._surroundings.context.registry.services.get(invocation.service)
            return None if service is None else edits.handler(service)
        code = self._memory.code.get(deployment)
        return code.handlers.get((invocation.service, invocation.handler)) if code is not None else None

    def _begin(self, loaded: Loaded, state: dict[str, bytes], lease: Lease | None = None) -> None:
        invocation = loaded.invocation
        deployment = self._deployment(invocation)
        code = self._memory.code.get(deployment)
        handler = self._handler(invocation, deployment)
        kind = RemoteDrive if code is not None and code.is_remote else Drive
        drive = kind(
            invocation,
            handler or missing_handler(invocation, deployment),
            self._surroundings,
            lease=lease,
            position=loaded.position,
            is_begun=lease is None or loaded.status is Status.RUNNING,
            is_hearsay=loaded.is_hearsay,
        )
        drive.touched = drive.began = self._loop.time()
        drive.watchers = self._memory.watchers_of(invocation.id)
        self._memory.drives[invocation.id] = drive
        if lease is not None:
            lease.running = drive
        if invocation.crashes:
            self._suspects.begun(invocation.id)
        if invocation.handler == edits.HANDLER:
            drive.edit(loaded.mail, state)
        elif code is None:  # it stays on its deployment: whoever has that takes it from the queue
            drive.park(
                Parked(Status.READY, retries=invocation.retries, stuck=invocation.stuck, crashes=invocation.crashes)
            )
        elif handler is None:
            drive.next_index = 1 + loaded.entries
            drive.refuse(f"{invocation.service} has no handler {invocation.handler!r} in the deployment {deployment}.")
        else:
            if not (loaded.frames or invocation.retries or invocation.stuck or invocation.crashes):
                self._tally.handlers[invocation.service, invocation.handler].started += 1
            if handler.runs_once and not loaded.frames:
                drive.start_clean(state)
            gated = lease is not None and lease.uncommitted > 0
            host: Any = code.host  # each kind of drive has its kind of host
            drive.begin(host, loaded.frames, loaded.mail, state, gated=gated)


def missing_handler(invocation: Invocation, deployment: str) -> HandlerInfo:
    """Stands in for a handler whose code is not here: the defaults decide how its attempts are tried again."""
    return HandlerInfo(invocation.service, invocation.handler, invocation.mode, deployment, queue=invocation.queue)


def _key(invocation: Invocation) -> Key:
    return invocation.service, invocation.key or ""
