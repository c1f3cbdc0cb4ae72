"""An engine: one incarnation of the loop that drives invocations, from its registration to its end or its fencing.

All state in memory belongs to the loop's thread and may be forgotten at any moment: what counts is in the database.
Three connections: the writer's (every transaction behind the fence), the reader's (journals, inboxes, state) and a
side one (timers, rescue, polls); the pulse has its own, in its own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from uuid import UUID

from psycopg.conninfo import make_conninfo

from perdure.protocol.ids import format_id
from perdure.protocol.limits import DEFAULTS, Limits
from runtime.core import lifecycle
from runtime.core.changes import Changes, Completed
from runtime.core.identity import IdMaker
from runtime.core.invocation import Invocation, Mode
from runtime.core.registry import Registry
from runtime.core.tally import Tally
from runtime.engine import rescue, stuck
from runtime.engine.aftermath import Aftermath
from runtime.engine.drive import Drive
from runtime.engine.ears import Ears
from runtime.engine.keys import Lease
from runtime.engine.memory import Code, Memory
from runtime.engine.overdue import Overdue
from runtime.engine.postbox import Postbox
from runtime.engine.pulse import Pulse, VitalSigns
from runtime.engine.remotes import Remotes
from runtime.engine.starts import Starts
from runtime.engine.suspects import Suspects
from runtime.engine.timers import Timers
from runtime.errors import DatabaseError
from runtime.outbound import Guard
from runtime.outbound.identity import Identity
from runtime.store import claim, deployments, owners, tally, verbs
from runtime.store import drained as store_drained
from runtime.store.claim import Claim, Key
from runtime.store.commit import Receipt
from runtime.store.drained import Drained
from runtime.store.link import Link
from runtime.store.side import Side
from runtime.store.tally import Teller
from runtime.store.verbs import Verb
from runtime.store.writer import Extras, Writer
from runtime.threads import in_own_thread
from runtime.wakeups import listen

log = logging.getLogger(__name__)

CLAIM_ROOM = 500  # rows of the queue that one flush takes at most
LEASE_REST = 1.0  # seconds for which an idle key stays in memory
RELEASES = 500  # leases that one flush gives back at most
TIDY = 0.25  # seconds between two looks for what is idle
HOT_WAIT = 60.0  # seconds for which a waiting handler stays in memory; less when memory is crowded
CROWDED_WAIT = 0.5
TURN = 0.25  # seconds between two signs that the loop turns
POLL = 0.5  # seconds after which a lost hint is made up for
SECOND_LOOK = 0.1  # seconds after the first, for what may just be on its way
PATIENCE = 10.0  # seconds for which running closures are waited for at the end


class Engine(Extras):
    """See the module. `run` returns when it was asked to stop, and raises when it was fenced or lost its database."""

    def __init__(
        self,
        conninfo: str,
        *,
        queues: Sequence[str],
        code: Iterable[Code],
        sockets: str,
        token: bytes,
        is_attached: Callable[[], bool],
        stuck_after: float,
        most_bytes: int,
        limits: Limits = DEFAULTS,
        is_drained: bool = False,
        guard: Guard | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.id = secrets.token_bytes(16)
        self.memory = Memory(code, queues, most_bytes)
        self.memory.drain(Drained(is_drained))
        self._remotes = Remotes(self.memory, guard or Guard.read(["loopback"]), identity)
        ids = IdMaker(secrets.randbits)
        self.context = lifecycle.Context(Registry(), lambda: ids.next(self.now_ms()), limits)
        self._conninfo = make_conninfo(conninfo, application_name=f"perdure engine {UUID(bytes=self.id)}")
        self._address = Path(sockets) / f"{secrets.token_hex(8)}.sock"
        self._token = token
        self._tally = Tally("engine")
        self._teller = Teller(self._tally.counts, time.monotonic)
        self._is_attached = is_attached
        self._stuck_after = stuck_after
        self._turns = 0
        self._turned_at = 0.0
        self._next_turn: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._is_running = False
        self._queue_may_have_work = True
        self._floor = 0
        self._released: list[Lease] = []
        self._release_at = 0.0
        self._unclear: set[bytes] = set()
        self._lag_ms = 0.0
        self._look_around = asyncio.Event()
        self._verbs: asyncio.Queue[tuple[bytes, Verb]] = asyncio.Queue()

    # Life -------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live. Raises Disconnected, and DatabaseError when others have declared this engine dead."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._side = Side(self._conninfo)
        links = [await Link.connect(self._conninfo) for _ in range(2)]
        self._writer = Writer(
            links[0],
            engine=self.id,
            committed=self._committed,
            refused=self._refused,
            extras=self,
            tally=self._tally,
        )
        self._suspects = Suspects(self.memory, self._side, self.id)
        self._postbox = Postbox(self.id, self._side)
        self._starts = Starts(self.memory, self, self._suspects, self.id, links[1], self._tally)
        self._ears = Ears(
            self.id,
            self.memory,
            self._starts,
            self,
            self._conninfo,
            str(self._address),
            self._token,
            self.queued,
            self._look_twice,
            self._postbox.look,
        )
        self._aftermath = Aftermath(self.memory, self._starts, self._ears, self, self._act_on, self._tally)
        self._timers = Timers(self.memory, self._starts, self._ears, self._aftermath, self._side, self._takes_work)
        self._pulse = pulse = Pulse(
            self._conninfo,
            self.id,
            self._vital_signs,
            turns=lambda: self._turns,
            stuck=self._tell_culprit,
            stuck_after=self._stuck_after,
        )
        self._turn()
        server = listen(str(self._address), self._ears.received, self._token)
        work: list[asyncio.Task[None]] = []
        try:
            await in_own_thread(pulse.start)  # first the lock: whoever is registered without it is taken for dead
            await self._refresh()
            await self._register(pulse.lock_key, links)
            loops = (self._writer.run, self._starts.run, self._tidy)
            patient = (
                self._suspects.run,
                self._timers.run,
                self._rescue,
                self._poll,
                self._read_mail,
                self._act,
                self._tell,
            )
            work = [asyncio.create_task(loop()) for loop in loops]
            work += [asyncio.create_task(self._patiently(loop)) for loop in patient]
            self._ears.hints.listen()
            self._is_running = True
            stopping = asyncio.create_task(self._stopping.wait())
            done, _ = await asyncio.wait([*work, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for task in work:
                if task in done:
                    task.result()
            await self._give_back(work)
        finally:
            server.close()
            self._ears.hints.close()
            for task in work:
                task.cancel()
            for drive in list(self.memory.drives.values()):
                drive.abort()
            for link in links:
                link.close()
            self._side.close()
            await self._remotes.close()
            await in_own_thread(pulse.stop)
            if self._next_turn is not None:
                self._next_turn.cancel()
            self._address.unlink(missing_ok=True)

    def stop(self) -> None:
        """Take nothing new, let running closures end, give everything back."""
        self._stopping.set()

    def attached(self) -> None:
        """A drain came, or goes: look at the queue once more."""
        self._queue_may_have_work = True
        if self._is_running:
            self._writer.wake()

    @property
    def is_busy(self) -> bool:
        return bool(self.memory.drives or self.memory.leases)

    @property
    def is_drained(self) -> bool:
        """Whether it was told to take nothing new: its successor is to hear of it."""
        return self.memory.drained.is_engine

    async def _register(self, lock_key: int, links: Sequence[Link]) -> None:
        backends = [link.backend_pid for link in links]
        await self._side.run(
            lambda link: owners.register(
                link,
                id=self.id,
                host=socket.gethostname(),
                pid=os.getpid(),
                address=str(self._address),
                queues=sorted(self.memory.queues),
                deployments=list(self.memory.code),
                lock_key=lock_key,
                backends=[*backends, link.backend_pid],
                is_drained=self.is_drained,
            )
        )
        log.info("engine %s drives %s", UUID(bytes=self.id), ", ".join(sorted(self.memory.claimable)) or "nothing yet")

    async def _give_back(self, work: Sequence[asyncio.Task[None]]) -> None:
        """Results of running closures become durable; everything else goes on elsewhere from where it stands."""
        drives = self.memory.drives
        for drive in drives.values():
            drive.stop()
        deadline = self._loop.time() + PATIENCE
        while self._loop.time() < deadline and (
            self._writer.is_busy or any(drive.attempt and drive.attempt.executing for drive in drives.values())
        ):
            await asyncio.sleep(0.01)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self._side.close()  # a cancelled user may have left it in the middle of something
        await self._side.run(lambda link: owners.bury(link, self.id, crashed=False))
        await self._side.run(self._teller.tell)

    # What drives need (Surroundings) ----------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def add(self, changes: Changes) -> None:
        self._writer.add(changes)

    def place(self, changes: Changes) -> None:
        """Give the newest creation to this engine when it has room and the code; else it is queued."""
        creation = changes.creations[-1]
        new = creation.invocation
        if not creation.due and self.memory.newcomers and self.takes(new):
            creation.owner = self.id
            if new.mode is not Mode.EXCLUSIVE:
                new.deployment = self.memory.claimable[new.service]

    def takes(self, new: Invocation, deployment: str | None = None) -> bool:
        """Whether it would be begun here now, with the newest code or that of a deployment."""
        memory = self.memory
        return self._takes_work() and memory.room > 0 and memory.takes(new.service, new.queue, deployment)

    def expect_timer(self, due: int) -> None:
        self._timers.expect(due)

    def ended(self, drive: Drive) -> None:
        lease = drive.lease
        if lease is not None and drive.changes is not None and isinstance(drive.changes.ending, Completed):
            lease.running = None
            lease.uncommitted += 1
            self._starts.pump(lease)

    def queued(self) -> None:
        """Something may be in the queue."""
        self._queue_may_have_work = True
        self._writer.wake()

    # What flushes ask and answer (Extras) -----------------------------------------------------------------------------

    def take_claim(self) -> Claim | None:
        room = min(self.memory.room, CLAIM_ROOM)
        if not (self._queue_may_have_work and room and self._takes_work()):
            return None
        self._queue_may_have_work = False
        memory = self.memory
        return Claim(room, self._floor, sorted(memory.open_queues), memory.claimable, list(memory.code))

    def take_release(self) -> list[Key]:
        now = self._loop.time()
        if now < self._release_at:
            return []
        self._release_at = now + TIDY
        memory = self.memory
        since = now - (0 if memory.drained.is_engine else LEASE_REST)
        rested = [
            lease
            for lease in memory.leases.values()
            if lease.is_at_rest(since)
            or (memory.is_draining and lease.is_idle and lease.is_held_back(memory.holds_back))
        ]
        self._released = rested[:RELEASES]
        for lease in self._released:
            lease.is_releasing = True
        return [lease.key for lease in self._released]

    def _committed(self, batch: Sequence[Changes], receipt: Receipt) -> None:
        self._postbox.committed(batch)
        self._aftermath.committed(batch, receipt)
        released, self._released = self._released, []
        for lease in released:
            key = lease.key
            if self.memory.leases.get(key) is not lease:  # an inbox was read meanwhile, and is ours no more
                continue
            lease.is_releasing = False
            if key in receipt.released:
                self._starts.drop(lease)
                self.memory.careful.discard(key)
            elif lease.is_parked:  # its holder woke up meanwhile: read it anew
                self._starts.drop(lease)
            if lease.is_wanted or key not in receipt.released:
                lease.is_wanted = False
                self._starts.look(key)
        if self.memory.is_draining and receipt.released:  # some may be in the queue now
            self._ears.offer_to_all()
        if receipt.claimed.last_position:
            self._floor = receipt.claimed.last_position
            self.queued()

    def _refused(self, batch: Sequence[Changes], error: DatabaseError) -> None:
        self._aftermath.refused(self._writer, batch, error)

    # Loops ------------------------------------------------------------------------------------------------------------

    async def _patiently(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Begin a loop anew after a statement of it was refused: what it does can be done at its next round."""
        while True:
            try:
                await loop()
            except DatabaseError as error:
                if error.is_fence or error.is_vouch:
                    raise
                log.warning("tried again in a moment: %s", error)
                await asyncio.sleep(POLL)

    async def _poll(self) -> None:
        """Finds what a lost hint has not told: mail, invocations and keys that are ours, work in the queue."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._look_around.wait()
            self._look_around.clear()
            self._floor = 0
            if await self._side.run(lambda link: claim.is_waiting(link, sorted(self.memory.open_queues))):
                self.queued()
            await self._refresh()
            ours = await self._side.run(lambda link: claim.owned(link, self.id))
            await self._postbox.read_all(self._ears.deliver)
            unknown = {id for id in ours.invocations if not self.memory.knows(id)}
            for id in unknown & self._unclear:  # seen twice: its hint is not merely late
                self._starts.load(id)
            self._unclear = unknown
            for key in ours.keys:  # also of those at work: something may have come that is to be cancelled
                self._starts.look(key)

    def _look_twice(self) -> None:
        """What was never hinted at, is believed to be so at the second look."""
        self._look_around.set()
        self._loop.call_later(SECOND_LOOK, self._look_around.set)

    async def _read_mail(self) -> None:
        await self._postbox.run(self._ears.deliver)

    def _act_on(self, id: bytes, verb: Verb) -> None:
        self._verbs.put_nowait((id, verb))

    async def _act(self) -> None:
        """Cancels and kills what nobody drives; when this dies first, it finds its mail when it next runs."""
        while True:
            id, verb = await self._verbs.get()
            told = await self._side.run(lambda link: verbs.tell(link, [id], verb))  # noqa: B023 -- awaited here
            for engine, letter in told.hints:
                self._aftermath.sent(letter, engine)
            if told.queued:
                self._ears.offer_to_all()

    async def _rescue(self) -> None:
        await rescue.watch(self._side, self.id, self._fenced)

    def _fenced(self) -> None:
        """Another engine was declared dead: what it had is in the queue."""
        self._tally.fenced += 1
        self._ears.offer_to_all()

    async def _tell(self) -> None:
        """What was counted."""
        while True:
            await asyncio.sleep(tally.INTERVAL)
            await self._side.run(self._teller.tell)

    async def _tidy(self) -> None:
        """Leases at rest go back; handlers that waited long, are to go on elsewhere or are overdue leave memory."""
        overdue = Overdue()
        while True:
            await asyncio.sleep(TIDY)
            self._writer.wake()
            memory = self.memory
            now, most = self._loop.time(), CROWDED_WAIT if memory.is_crowded else None
            waited = [drive for drive in memory.drives.values() if now - drive.touched > _patience(drive, most)]
            for drive in waited[:CLAIM_ROOM]:
                drive.suspend()
            for drive, silent in overdue.look(memory.drives.values(), now, HOT_WAIT):
                drive.refuse(f"It has not got on for {silent:.1f} s, longer than its abort_timeout allows.")
            if memory.is_draining:
                for drive in [drive for drive in memory.drives.values() if memory.holds_back(drive.invocation)]:
                    drive.suspend()

    async def _refresh(self) -> None:
        """The registry, and where the other engines listen."""
        registry = await self._side.run(lambda link: deployments.load_registry(link, self.context.registry))
        if registry is not self.context.registry:
            is_news = self._remotes.take(await self._side.run(deployments.http_deployments))
            self.context.registry = registry
            for code in self.memory.code.values():
                code.configure(registry)
            if is_news and self._is_running:
                await self._side.run(lambda link: owners.tell_code(link, self.id, list(self.memory.code)))
                self.queued()
        await self._look_at_what_is_drained()
        seats = await self._side.run(owners.roster)
        self._ears.others = {seat.id: seat for seat in seats if seat.id != self.id}
        self._ears.hints.forget({seat.address for seat in seats})
        self.memory.claimable = {
            name: service.deployment
            for name, service in registry.services.items()
            if service.deployment in self.memory.code
        }

    async def _look_at_what_is_drained(self) -> None:
        drained = await self._side.run(lambda link: store_drained.look(link, self.id))
        if not self._is_running:  # not registered yet: what its predecessor was told holds
            drained.is_engine = self.is_drained
        if drained != self.memory.drained:
            self.memory.drain(drained)
            self._pulse.beat_now()
            for lease in list(self.memory.leases.values()):  # what was held back may begin now
                self._starts.pump(lease)

    def _takes_work(self) -> bool:
        return not self._stopping.is_set() and self._is_attached() and bool(self.memory.open_queues)

    def _turn(self) -> None:
        now = self._loop.time()
        if self._turns:
            lag = max(0.0, now - self._turned_at - TURN)
            self._lag_ms = lag * 1000
            self._tally.lag.observe(lag)
        self._turned_at = now
        self._turns += 1
        self._next_turn = self._loop.call_later(TURN, self._turn)

    def _tell_culprit(self) -> bytes | None:
        """From the pulse's thread: a handler blocks the loop. Answers which, when that alone is to blame."""
        drive, stack = stuck.look(self._thread, list(self.memory.drives.values()))
        culprit = None if drive is None else drive.invocation
        name = "unknown code" if culprit is None else f"{culprit.service}/{culprit.handler} {format_id(culprit.id)}"
        log.critical(
            "%s has blocked the loop of engine %s for %g s: this process ends, other engines go on with its work. "
            "Await what takes long, or do it in a function that is not async and given to ctx.run. It is here:\n%s",
            name, UUID(bytes=self.id), self._stuck_after, stack,
        )  # fmt: skip
        if drive is None or (drive.lease is not None and drive.lease.uncommitted):  # then its key's head is another
            return None
        return drive.invocation.id

    def _vital_signs(self) -> VitalSigns:
        """For the pulse, from its thread."""
        return VitalSigns(
            is_attached=self._takes_work(),
            room=self.memory.newcomers,
            in_flight=len(self.memory.drives),
            leases=len(self.memory.leases),
            lag_ms=self._lag_ms,
            claimed=self._aftermath.claimed,
            finished=self._aftermath.finished,
        )


def _patience(drive: Drive, most: float | None) -> float:
    """Seconds for which it may wait in memory."""
    said = drive.handler.inactivity_ms
    patience = HOT_WAIT if said is None else said / 1000
    return patience if most is None else min(most, patience)
