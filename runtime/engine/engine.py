"""An engine: one incarnation of the loop that drives invocations, from its registration to its end or its fencing.

All state in memory belongs to the loop's thread and may be forgotten at any moment: what counts is in the database.
Three connections: the writer's (every transaction behind the fence), the reader's (journals, inboxes, state) and a
side one (timers, rescue, polls); the pulse has its own, in its own thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from psycopg.conninfo import make_conninfo

from perdure.protocol.messages import Error
from runtime.core import changes as slots
from runtime.core import lifecycle
from runtime.core.changes import Changes, Completed, Parked
from runtime.core.identity import IdMaker
from runtime.core.invocation import Invocation, Mode, Outcome, Status
from runtime.core.registry import HandlerInfo, Registry
from runtime.engine.drive import Drive, Host
from runtime.engine.keys import Lease
from runtime.engine.pulse import Pulse
from runtime.errors import DatabaseError, Disconnected
from runtime.store import claim, deployments, mail, owners, timers
from runtime.store.claim import Claim, Inbox, Key, Loaded
from runtime.store.commit import Receipt
from runtime.store.link import Link, Pipeline, rows
from runtime.store.writer import Extras, Writer, unit_of
from runtime.wakeups import Kind, Lines, Wire, listen

log = logging.getLogger(__name__)

MAX_DRIVES = 5_000
CLAIM_ROOM = 500
LEASE_REST = 1.0  # seconds for which an idle key stays in memory
HOT_WAIT = 60.0  # seconds for which a waiting handler stays in memory
POLL = 0.5
LOOKS = 0.25


class Code(Struct):
    """One deployment that this process has loaded."""

    id: str
    host: Host
    handlers: Mapping[tuple[str, str], HandlerInfo]


class Engine(Extras):
    """See the module. `run` returns when it was asked to stop, and raises when it was fenced or lost its database."""

    def __init__(self, conninfo: str, *, queues: Sequence[str], code: Sequence[Code], sockets: str, token: bytes,
                 is_attached: Callable[[], bool]) -> None:  # fmt: skip
        self.id = secrets.token_bytes(16)
        self._conninfo = make_conninfo(conninfo, application_name=f"perdure engine {_uuid(self.id)}")
        self._queues = list(queues)
        self._code = {loaded.id: loaded for loaded in code}
        self._address = os.path.join(sockets, f"{self.id.hex()[:16]}.sock")
        self._token = token
        self._is_attached = is_attached
        ids = IdMaker(secrets.randbits)
        self.context = lifecycle.Context(Registry(), lambda: ids.next(int(time.time() * 1000)))
        self._drives: dict[bytes, Drive] = {}
        self._leases: dict[Key, Lease] = {}
        self._recent: dict[bytes, None] = {}
        self._unread: set[Key] = set()
        self._to_load: set[bytes] = set()
        self._to_share: list[Loaded] = []
        self._careful: set[Key] = set()
        self._suspect: set[bytes] = set()
        self._watchers: dict[bytes, list[Wire]] = {}
        self._engines: dict[bytes, str] = {}
        self._claimable: dict[str, str] = {}
        self._queue_may_have_work = True
        self._floor = 0
        self._releasing: list[Key] = []
        self._reading = asyncio.Event()
        self._timer = asyncio.Event()
        self._next_due: float | None = None
        self._stopping = asyncio.Event()
        self.finished = 0
        self.lag_ms = 0.0

    # Life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._link, self._reader, self._side = [await Link.connect(self._conninfo) for _ in range(3)]
        self._side_lock = asyncio.Lock()
        self._writer = Writer(
            self._link, engine=self.id, committed=self._committed, refused=self._refused, extras=self
        )
        self._lines = Lines(self._received, self._token)
        pulse = Pulse(self._conninfo, self.id, self._vital_signs)
        server = await listen(self._address, self._received, self._token, self._disconnected)
        work: list[asyncio.Task[Any]] = []
        try:
            await asyncio.to_thread(pulse.start)
            await self._refresh()
            await owners.register(
                self._side, id=self.id, host=socket.gethostname(), pid=os.getpid(), address=self._address,
                queues=self._queues, deployments=list(self._code), lock_key=pulse.lock_key,
                backends=[link.backend_pid for link in (self._link, self._reader, self._side)],
            )  # fmt: skip
            log.info("engine %s drives %s", _uuid(self.id), ", ".join(sorted(self._claimable)) or "nothing yet")
            loops = (self._writer.run, self._read, self._fire, self._poll, self._watch, self._tidy)
            work = [asyncio.create_task(loop()) for loop in loops]
            stopping = asyncio.create_task(self._stopping.wait())
            done, _ = await asyncio.wait([*work, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping not in done:
                stopping.cancel()
                for task in done:
                    task.result()
            await self._leave(work)
        finally:
            for task in work:
                task.cancel()
            for drive in list(self._drives.values()):
                drive.abort()
            server.close()
            self._lines.close()
            for link in (self._link, self._reader, self._side):
                link.close()
            await asyncio.to_thread(pulse.stop)
            if os.path.exists(self._address):
                os.unlink(self._address)

    def stop(self) -> None:
        """Ask it to take nothing new, let closures end, and give everything back."""
        self._stopping.set()

    def attach(self) -> None:
        """A drain is attached: look at the queue."""
        self._queue_may_have_work = True
        self._writer.wake()

    @property
    def is_busy(self) -> bool:
        return bool(self._drives or self._leases or self._to_load or self._unread)

    async def _leave(self, work: list[asyncio.Task[Any]]) -> None:
        """The end that was asked for: running steps finish, the rest is given back and goes on elsewhere."""
        deadline = self._loop.time() + 10
        while self._loop.time() < deadline and any(d.attempt and d.attempt.executing for d in self._drives.values()):
            await asyncio.sleep(0.02)
        for drive in list(self._drives.values()):
            drive.abort()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        # The writer's task may have been cancelled in the middle of a flush: its link is not to be used again.
        self._link.close()
        async with self._side_lock:
            await owners.bury(self._side, self.id, crashed=False)

    # What drives need (Surroundings) -------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def add(self, changes: Changes) -> None:
        self._writer.add(changes)

    def place(self, changes: Changes) -> None:
        """Give the newest creation to this engine when it has room and the code; else it is queued."""
        creation = changes.creations[-1]
        new = creation.invocation
        deployment = self._claimable.get(new.service)
        if creation.due or deployment is None or new.queue not in self._queues or not self._room():
            return
        if new.mode is not Mode.EXCLUSIVE:
            new.deployment = deployment
        creation.owner = self.id

    def expect_timer(self, due: int) -> None:
        at = due / 1000
        if self._next_due is None or at < self._next_due:
            self._next_due = at
            self._timer.set()

    def ended(self, drive: Drive) -> None:
        lease = drive.lease
        if lease is not None and isinstance(drive.changes and drive.changes.ending, Completed):
            lease.running = None
            lease.uncommitted += 1
            self._pump(lease)

    # Starting -------------------------------------------------------------------------------------------------------

    def _begin(self, loaded: Loaded, state: dict[str, bytes], lease: Lease | None = None) -> None:
        invocation = loaded.invocation
        deployment = invocation.deployment or self._claimable.get(invocation.service, "")
        code = self._code.get(deployment)
        handler = code.handlers.get((invocation.service, invocation.handler)) if code else None
        drive = Drive(
            invocation,
            handler or _missing(invocation, deployment),
            self,
            lease=lease,
            position=loaded.position,
            is_begun=lease is None or bool(loaded.frames),
        )
        drive.touched = self._loop.time()
        self._drives[invocation.id] = drive
        if invocation.id in self._watchers:
            drive.watchers = self._watchers.pop(invocation.id)
        if lease is not None:
            lease.running = drive
        if code is None or handler is None:
            drive.next_index = 1 + loaded.entries
            drive.refuse(f"{invocation.service}/{invocation.handler} is not in the deployment {deployment or 'loaded'}.")
            return
        drive.begin(
            code.host, loaded.frames, loaded.mail, state, gated=lease is not None and lease.uncommitted > 0
        )

    def _pump(self, lease: Lease) -> None:
        """Start what may start. A handler that ends at once comes back here from inside: the loop goes on with it."""
        if lease.is_releasing:
            return
        while (letter := lease.next()) is not None:
            if letter.status in (Status.SUSPENDED, Status.BACKING_OFF, Status.PAUSED):
                self._drop(lease)  # its holder sleeps: whoever wakes it brings the key along
                return
            lease.used_at = self._loop.time()
            self._begin(letter, lease.state, lease)

    def _look(self, key: Key) -> None:
        """There is, or may be, something new in the inbox of a key that is ours."""
        if key not in self._leases:
            self._leases[key] = Lease(key, is_careful=key in self._careful)
        self._unread.add(key)
        self._reading.set()

    def _drop(self, lease: Lease) -> None:
        if self._leases.get(lease.key) is lease:
            del self._leases[lease.key]
        if lease.running is not None:
            lease.running.abort()
            self._drives.pop(lease.running.invocation.id, None)

    async def _read(self) -> None:
        """Reads what starts need: inboxes, journals of claimed invocations, state for shared handlers."""
        while True:
            await self._reading.wait()
            self._reading.clear()
            while self._unread or self._to_load or self._to_share:
                if self._unread:
                    await self._read_inboxes()
                if self._to_load:
                    await self._load()
                if self._to_share:
                    await self._share()

    async def _read_inboxes(self) -> None:
        leases = {key: self._leases[key] for key in self._unread if key in self._leases}
        self._unread.clear()
        leases = {key: lease for key, lease in leases.items() if not lease.is_releasing}
        watermarks = {key: lease.watermark for key, lease in leases.items()}
        fresh = [key for key, lease in leases.items() if not lease.is_loaded]
        inboxes = await claim.load_inboxes(self._reader, self.id, watermarks, fresh)
        for key, lease in leases.items():
            if self._leases.get(key) is not lease:
                continue
            inbox = inboxes.get(key)
            if inbox is None:  # not ours, or no longer
                self._drop(lease)
                continue
            lease.take(inbox, self._loop.time())
            if len(inbox.letters) == claim.INBOX_WINDOW:
                self._unread.add(key)
            self._pump(lease)

    async def _load(self) -> None:
        ids = [id for id in self._to_load if id not in self._drives][:500]
        self._to_load.difference_update(ids or list(self._to_load))
        for loaded in await claim.load(self._reader, self.id, ids) if ids else ():
            self._start(loaded)

    def _start(self, loaded: Loaded) -> None:
        invocation = loaded.invocation
        if invocation.id in self._drives or invocation.id in self._recent:
            return
        if invocation.mode is Mode.SHARED:
            self._to_share.append(loaded)
            self._reading.set()
        else:
            self._begin(loaded, {})

    async def _share(self) -> None:
        """Shared handlers read committed state, beside whoever is writing it."""
        batch, self._to_share = self._to_share, []
        keys = {(loaded.invocation.service, loaded.invocation.key or "") for loaded in batch}
        states: dict[Key, dict[str, bytes]] = {key: {} for key in keys}

        def read(result: Any) -> None:
            for service, key, name, value in rows(result):
                states[service.decode(), key.decode()][name.decode()] = value  # type: ignore[union-attr, assignment]

        pipeline = Pipeline()
        claim.load_state(pipeline, list(keys), read)
        await self._reader.run(pipeline)
        for loaded in batch:
            if loaded.invocation.id not in self._drives:
                self._begin(loaded, states[loaded.invocation.service, loaded.invocation.key or ""])

    # After a flush ----------------------------------------------------------------------------------------------------

    def _committed(self, batch: Sequence[Changes], receipt: Receipt) -> None:
        for changes in batch:
            drive = self._drives.get(changes.invocation.id)
            ending = changes.ending
            if drive is not None and drive.changes is not None:
                if ending is None:
                    drive.committed(changes)
                elif isinstance(ending, Completed):
                    self._completed(drive, ending)
                else:
                    self._parked(drive, ending, receipt)
            elif isinstance(ending, Completed):
                self._answer(changes.invocation.id, ending.result, self._watchers.pop(changes.invocation.id, ()))
            for creation in changes.creations:
                self._created(creation, receipt)
            for letter in changes.mails:
                self._sent(letter, receipt.told.get(letter.target))
        for key in receipt.released:
            lease = self._leases.get(key)
            if lease is not None and lease.is_releasing:
                del self._leases[key]
                self._careful.discard(key)
        for key in self._releasing:
            lease = self._leases.get(key)
            if lease is not None and lease.is_releasing:  # somebody came meanwhile, or it is not ours
                lease.is_releasing = False
                self._look(key)
            elif lease is None and key in self._unread:
                self._look(key)
        self._releasing = []
        self._to_load.update(receipt.claimed.invocations)
        for key in receipt.claimed.keys:
            self._look(key)
        if receipt.claimed.invocations or receipt.claimed.keys:
            self._queue_may_have_work = True
            self._floor = receipt.claimed.last_position
            self._reading.set()

    def _completed(self, drive: Drive, ending: Completed) -> None:
        id = drive.invocation.id
        self._drives.pop(id, None)
        self._remember(id)
        self.finished += 1
        self._answer(id, ending.result, drive.watchers)
        lease = drive.lease
        if lease is not None:
            lease.uncommitted -= 1
            if not lease.uncommitted and lease.running is not None and lease.running.attempt is not None:
                lease.running.attempt.open()
            if lease.running is None:
                self._pump(lease)

    def _parked(self, drive: Drive, ending: Parked, receipt: Receipt) -> None:
        id = drive.invocation.id
        self._drives.pop(id, None)
        if drive.lease is not None:
            drive.lease.running = None
            self._drop(drive.lease)
        if id in receipt.parked:
            if ending.due:
                self.expect_timer(ending.due)
        elif drive.lease is not None:  # there is mail that it must hear of first
            self._look(drive.lease.key)
        else:
            self._to_load.add(id)
            self._reading.set()

    def _created(self, creation: Any, receipt: Receipt) -> None:
        new: Invocation = creation.invocation
        if new.id not in receipt.created:
            return  # a repetition of an idempotency key
        if creation.due:
            self.expect_timer(creation.due)
        elif new.mode is Mode.EXCLUSIVE:
            owner = receipt.keys.get((new.service, new.key or ""))
            if owner == self.id:
                self._look((new.service, new.key or ""))
            elif owner is not None:
                self._hint(owner, Kind.KEYS, (new.service, new.key))
            else:
                self._queued()
        elif creation.owner == self.id:
            self._start(Loaded(new, Status.RUNNING))
        else:
            self._queued()

    def _sent(self, letter: Any, owner: bytes | None) -> None:
        """Mail is in the database: tell whoever drives its target."""
        if owner == self.id:
            self._hear(letter.target, letter.slot, letter.frame)
        elif owner is not None:
            self._hint(owner, Kind.MAIL, (letter.target, letter.slot, letter.frame))
        else:
            self._queued()

    def _answer(self, id: bytes, result: bytes, watchers: Sequence[Wire]) -> None:
        for wire in watchers:
            wire.send(Kind.DONE, (id, result))

    def _refused(self, batch: Sequence[Changes], error: DatabaseError) -> None:
        """One unit was refused: all of it is forgotten, and begun anew from what is committed."""
        unit = unit_of(batch[0])
        self._writer.discard(lambda changes: unit_of(changes) == unit)
        invocations = {changes.invocation.id: changes.invocation for changes in batch}
        drives = [self._drives.pop(id, None) for id in invocations]
        for drive in drives:
            if drive is not None:
                drive.abort()
        invocation = batch[0].invocation
        lease = self._leases.pop((invocation.service, invocation.key or ""), None) if invocation.key else None
        if lease is not None and lease.running is not None:
            self._drives.pop(lease.running.invocation.id, None)
            lease.running.abort()
        if len(invocations) > 1 and lease is not None:
            self._careful.add(lease.key)
            self._look(lease.key)
            return
        handler = next((drive.handler for drive in drives if drive is not None), _missing(invocation, ""))
        changes = Changes(invocation)
        lifecycle.fail(
            invocation, changes, Error(500, f"The database refused what the handler did: {error}"), handler,
            now_ms=self.now_ms(), stored_commands=False, position=None,
        )  # fmt: skip
        if isinstance(changes.ending, Completed):  # its end cannot be stored by itself: a person looks at it
            changes.ending = Parked(Status.PAUSED, failure=changes.ending.failure)
            changes.mails.clear()
        self._writer.add(changes)

    # The queue and leases (Extras) -------------------------------------------------------------------------------------

    def take_claim(self) -> Claim | None:
        if not self._queue_may_have_work or not self._claimable or not self._is_attached():
            return None
        room = min(self._room(), CLAIM_ROOM)
        if room <= 0:
            return None
        self._queue_may_have_work = False
        return Claim(room, self._floor, self._queues, self._claimable, list(self._code))

    def take_release(self) -> list[Key]:
        rested = self._loop.time() - LEASE_REST
        self._releasing = [
            key
            for key, lease in self._leases.items()
            if lease.is_idle and lease.used_at < rested and key not in self._unread
        ][:500] if self._may_release() else []  # fmt: skip
        for key in self._releasing:
            self._leases[key].is_releasing = True
        return list(self._releasing)

    def _may_release(self) -> bool:
        now = self._loop.time()
        if now < self._release_at:
            return False
        self._release_at = now + 0.25
        return True

    _release_at = 0.0

    def _room(self) -> int:
        return MAX_DRIVES - len(self._drives) - len(self._to_load)

    def _queued(self) -> None:
        """Something went to the queue: take it, if there is room, and let others know."""
        self._queue_may_have_work = True
        self._writer.wake()

    # Hints --------------------------------------------------------------------------------------------------------------

    def _received(self, wire: Wire, kind: int, items: list[Any]) -> None:
        if kind == Kind.BORN:
            for id, service, handler, key, mode, queue, input, deployment in items:
                if id in self._drives or id in self._recent:
                    continue
                new = Invocation(id, service, handler, key, _MODES[mode], queue, input, deployment=deployment)
                self._watchers[id] = [wire]
                self._start(Loaded(new, Status.RUNNING))
        elif kind == Kind.KEYS:
            for service, key in items:
                self._look((service, key))
        elif kind == Kind.WATCH:
            for (id,) in items:
                drive = self._drives.get(id)
                (drive.watchers if drive is not None else self._watchers.setdefault(id, [])).append(wire)
        elif kind == Kind.MAIL:
            for target, slot, frame in items:
                self._hear(target, slot, frame)
        elif kind == Kind.READY:
            self._queued()

    def _disconnected(self, wire: Wire) -> None:
        self._watchers = {id: left for id, wires in self._watchers.items() if (left := [w for w in wires if w != wire])}

    def _hint(self, engine: bytes, kind: Kind, item: Any) -> None:
        address = self._engines.get(engine)
        if address is not None:
            self._lines.send(address, kind, item)

    def _hear(self, target: bytes, slot: int, frame: bytes) -> None:
        drive = self._drives.get(target)
        if drive is not None:
            drive.touched = self._loop.time()
            drive.hear(slot, frame)
        elif slot in (slots.CANCEL, slots.KILL):
            self._dismiss(target, slot)

    def _dismiss(self, id: bytes, slot: int) -> None:
        """Cancel or kill one that waits in an inbox of ours: it never starts."""
        for lease in self._leases.values():
            letter = lease.remove(id)
            if letter is None:
                continue
            if letter.frames:
                lease.letters.appendleft(letter)  # it was under way: its next attempt hears of it
                letter.mail.append((slot, b""))
                return
            letter.mail.append((slot, b""))
            invocation = letter.invocation
            handler = _missing(invocation, invocation.deployment or "")
            drive = Drive(invocation, handler, self, position=letter.position)
            outcome, word = (Outcome.KILLED, "killed") if slot == slots.KILL else (Outcome.CANCELLED, "cancelled")
            drive.dismiss(outcome, word)
            self._drives[id] = drive
            return

    # Loops --------------------------------------------------------------------------------------------------------------

    async def _fire(self) -> None:
        """Timers: at the time of the earliest that is known here, and once a second for those of others."""
        while True:
            wait = POLL if self._next_due is None else min(POLL, max(0.0, self._next_due - time.time()))
            try:
                async with asyncio.timeout(wait):
                    await self._timer.wait()
                self._timer.clear()
                continue
            except TimeoutError:
                pass
            self._next_due = None
            taken = timers.BATCH
            while taken == timers.BATCH:
                room = self._room() if self._is_attached() else 0
                async with self._side_lock:
                    fired = await timers.fire_due(self._side, self.id, room)
                taken = fired.taken
                self._fired(fired)
            async with self._side_lock:
                due = await timers.next_due(self._side)
            if due is not None:
                self.expect_timer(due)

    def _fired(self, fired: timers.Fired) -> None:
        if fired.owned:
            self._to_load.update(fired.owned)
            self._reading.set()
        for key, owner in fired.keys.items():
            if owner == self.id:
                self._look(key)
            elif owner is not None:
                self._hint(owner, Kind.KEYS, key)
        for letter in fired.mails:
            self._sent(letter, fired.told.get(letter.target))
        if fired.queued:
            self._queued()

    async def _poll(self) -> None:
        """Finds what a lost hint has not told: mail, invocations and keys that are ours, work in the queue."""
        while True:
            began = self._loop.time()
            await asyncio.sleep(POLL)
            self.lag_ms = (self._loop.time() - began - POLL) * 1000
            self._floor = 0
            self._queued()
            await self._refresh()
            letters: list[tuple[bytes, int, bytes]] = []
            pipeline = Pipeline()
            mail.for_engine(
                pipeline, self.id,
                lambda result: letters.extend((t, int.from_bytes(s, "big", signed=True), f) for t, s, f in rows(result)),  # type: ignore[arg-type, misc] # noqa: B023
            )  # fmt: skip
            async with self._side_lock:
                await self._side.run(pipeline)
                ours = await claim.owned(self._side, self.id)
            for target, slot, frame in letters:
                self._hear(target, slot, frame)
            unknown = {
                id for id in ours.invocations
                if id not in self._drives and id not in self._recent and id not in self._to_load
            }  # fmt: skip
            self._to_load |= unknown & self._suspect  # twice seen: its hint is not merely late
            self._suspect = unknown
            for key in ours.keys:
                if key not in self._leases:
                    self._look(key)
            self._reading.set()

    async def _watch(self) -> None:
        """Looks whether other engines live, and takes over what the dead leave."""
        seen: dict[bytes, tuple[int, int, int]] = {}  # engine -> (beat, looks at that beat, looks without its lock)
        rounds = 0
        while True:
            await asyncio.sleep(LOOKS)
            rounds += 1
            async with self._side_lock:
                looks = await owners.look(self._side, self.id)
                dead = await owners.unfinished(self._side) if rounds % 20 == 0 else []
            still: dict[bytes, tuple[int, int, int]] = {}
            for look in looks:
                beat, stood, unlocked = seen.get(look.engine, (-1, 0, 0))
                stood = stood + 1 if look.beat == beat else 0
                unlocked = unlocked + 1 if look.is_unlocked else 0
                still[look.engine] = (look.beat, stood, unlocked)
                if unlocked >= 2 or stood >= 10 * Pulse.INTERVAL / LOOKS:
                    dead.append(look.engine)
            seen = still
            for engine in dead:
                async with self._side_lock:
                    count = await owners.bury(self._side, engine)
                log.warning("engine %s is dead; %d invocations and keys go on elsewhere", _uuid(engine), count)
                self._queued()

    async def _tidy(self) -> None:
        """Leases at rest go back; handlers that have waited long leave memory."""
        while True:
            await asyncio.sleep(0.25)
            self._writer.wake()
            now = self._loop.time()
            crowded = len(self._drives) > MAX_DRIVES * 3 // 4
            long_ago = now - (0.5 if crowded else HOT_WAIT)
            for drive in [drive for drive in self._drives.values() if drive.touched < long_ago][:500]:
                drive.suspend()

    async def _refresh(self) -> None:
        """The registry, and where the other engines listen."""
        async with self._side_lock:
            self.context.registry = await deployments.load_registry(self._side, self.context.registry)
            self._engines = {seat.id: seat.address for seat in await owners.roster(self._side)}
        self._lines.forget(set(self._engines.values()))
        self._claimable = {
            name: service.deployment
            for name, service in self.context.registry.services.items()
            if service.deployment in self._code
        }

    def _vital_signs(self) -> tuple[bool, int, int, float]:
        """For the pulse, from its thread: attached, room, in flight, lag."""
        return self._is_attached() and not self._stopping.is_set(), self._room(), len(self._drives), self.lag_ms

    def _remember(self, id: bytes) -> None:
        recent = self._recent
        recent[id] = None
        if len(recent) > 50_000:
            for old in list(recent)[:25_000]:
                del recent[old]


_MODES = {mode.value: mode for mode in Mode}


def _missing(invocation: Invocation, deployment: str) -> HandlerInfo:
    """Stands in for a handler whose code is not here: the defaults decide how its attempts are tried again."""
    return HandlerInfo(invocation.service, invocation.handler, invocation.mode, deployment, queue=invocation.queue)


def _uuid(id: bytes) -> str:
    text = id.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
