"""The hall, where callers come to.

One Operations per process. Submissions are group-committed; each goes to a living engine that has room for it, so that
nothing must be claimed before it starts. Results come back as hints, and a poll finds those that do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import astuple
from psycopg.conninfo import make_conninfo

from perdure.protocol.codec import decode
from perdure.protocol.limits import DEFAULTS, Limits, excess
from perdure.protocol.messages import Input, Output, Signal, Value
from runtime.core.changes import Changes, Creation, Mail
from runtime.core.identity import IdMaker
from runtime.core.invocation import Invocation, Mode
from runtime.core.lifecycle import RUN_BEFORE, CommandRefused, TooLarge, bounded, id_at_birth, new_invocation, signal
from runtime.core.registry import Registry
from runtime.core.tally import Tally
from runtime.errors import DatabaseError, Disconnected, Overloaded, RuntimeFault
from runtime.operations.awaited import Awaited
from runtime.operations.seats import Seats
from runtime.operations.submissions import Accepted, Ended, Submission, UnknownInvocation
from runtime.store import deployments, lookup, mail, owners, tally
from runtime.store.commit import Receipt
from runtime.store.link import Link
from runtime.store.owners import Seat
from runtime.store.side import Side
from runtime.store.tally import Teller
from runtime.store.verbs import tried
from runtime.store.writer import Writer
from runtime.wakeups import Asker, Hints, Kind, Notice

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL = 1.0
ROSTER_POLL = 0.5
MOST_WAITING = 20_000
RECONNECT = 0.2
MOURNING = 5.0  # seconds after an engine has gone, in which others take over what it had
NEAR = 1_000  # milliseconds: what is due later is found in time by the engines' own looks at their timers


class Operations:
    """See the module.

    `wake_workers` is asked when there is work and no engine is attached to take it.
    """

    limits: Limits = DEFAULTS

    def __init__(
        self,
        database_url: str,
        token: bytes,
        *,
        limits: Limits = DEFAULTS,
        wake_workers: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.limits = limits
        self._conninfo = make_conninfo(database_url, application_name="perdure ingress")
        self._side = Side(self._conninfo)
        self._wake_workers = wake_workers
        self._woken_at = 0.0
        self.registry = Registry()
        self.tally = Tally("ingress")
        self._teller = Teller(self.tally.counts, time.monotonic)
        self._hints = Hints(
            self._conninfo,
            token,
            secrets.token_hex(8),
            received=self._received,
            noticed=self._noticed,
            look=self._look_for_results,
        )
        self._accepting: dict[int, asyncio.Future[Accepted]] = {}
        self._awaited = Awaited()
        self.seats = Seats()
        self._mourned_until = 0.0
        self._asked: dict[bytes, bytes] = {}
        """Whom we have asked, since an engine has gone, to tell of the end of each invocation."""
        self._ids = IdMaker(secrets.randbits)
        self._tasks: list[asyncio.Task[Any]] = []
        self._errands: set[asyncio.Task[None]] = set()
        self._registry_asked_at = 0.0

    # Life -------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and look around; raises Disconnected."""
        self._loop = asyncio.get_running_loop()
        await self._side.connect()
        self._writer = await self._new_writer()
        await self._refresh()
        loops = (self._write, self._poll, self._look_around, self._tell)
        self._tasks = [asyncio.create_task(task()) for task in loops]
        for task in self._tasks:
            task.add_done_callback(_complain)

    async def stop(self) -> None:
        """Let what was accepted become durable, then close."""
        with contextlib.suppress(Disconnected, TimeoutError):
            async with asyncio.timeout(5):
                while self._accepting or len(self._writer):
                    await asyncio.sleep(0.01)
        with contextlib.suppress(TimeoutError):  # hints on their way
            async with asyncio.timeout(1):
                await asyncio.gather(*self._errands)
                await self._hints.flushed()
        with contextlib.suppress(Disconnected, DatabaseError, TimeoutError):
            async with asyncio.timeout(1):
                await self._side.run(self._teller.tell)
        for task in (*self._tasks, *self._errands):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._errands, return_exceptions=True)
        self._hints.close()
        self._writer.link.close()
        self._side.close()

    # Callers ----------------------------------------------------------------------------------------------------------

    async def call(self, submission: Submission) -> Ended:
        """Submit, and await the end however long it takes. A cancelled caller stops waiting, nothing else.

        Raises CommandRefused, TooLarge, Overloaded, NotServed, Disconnected, DatabaseError.
        """
        if submission.idempotency_key is None:  # else it may have ended long ago, and only wait for its answer
            self.seats.want_served(submission.handler, self._loop.time())
        began = time.perf_counter()
        new = self._new(submission)
        ended = self._awaited.begin(new.id)
        try:
            accepted = self._submit(new, submission, awaited=True)
            if not submission.handler.runs_once:
                accepted.add_done_callback(lambda future: _pass_failure(future, ended))
            elif not (await accepted).is_new:
                return _ended(new.id, RUN_BEFORE)
            result = await ended
            self.tally.handlers[new.service, new.handler].calls.observe(time.perf_counter() - began)
            if new.idempotency_key is not None and accepted.done() and not accepted.result().is_new:
                return await self._stored(new.id, result)
            return _ended(new.id, result)
        finally:
            self._awaited.stop(new.id, ended)

    async def send(self, submission: Submission) -> Accepted:
        """Submit; durable when it returns, and as patient as it must be. Raises as `call`, but for NotServed."""
        new = self._new(submission)
        return await self._submit(new, submission, awaited=False)

    async def attach(self, id: bytes) -> Ended:
        """Await the end of an invocation; raises UnknownInvocation, Disconnected."""
        ended = self._awaited.begin(id)
        try:
            await self._watch(id)
            return await self._stored(id, await ended)
        finally:
            self._awaited.stop(id, ended)

    async def output(self, id: bytes) -> Ended | None:
        """The result of an invocation; None while it is under way. Raises UnknownInvocation, Disconnected."""
        under_way, ended = await self._side.run(lambda link: lookup.find(link, [id]))
        if id in ended:
            return await self._stored(id, ended[id])
        if id not in under_way:
            raise UnknownInvocation(id)
        return None

    async def signal(self, id: bytes, message: Signal) -> None:
        """Bring an invocation a signal, of which an awakeable is one. To nobody it is brought without a word.

        Durable when it returns. Raises CommandRefused, TooLarge, Disconnected, DatabaseError.
        """
        if isinstance(message.result, Value) and len(message.result.content) > self.limits.payload:
            raise TooLarge(excess("What a signal brings", len(message.result.content), "payload", self.limits))
        try:
            letter = signal(id, message)
        except UnicodeEncodeError:
            raise CommandRefused("What a signal brings holds a lone surrogate, which is no Unicode.") from None
        owners = await self._side.run(lambda link: tried(lambda: mail.send(link, [letter])))
        driven = [(owner, letter) for owner in owners.values() if owner is not None]
        self.pass_on(driven, queued=bool(owners) and not driven)

    async def service_of(self, id: bytes) -> str | None:
        """The service of an invocation; None: it is not known. Raises Disconnected."""
        return await self._side.run(lambda link: lookup.service(link, id))

    async def refresh_registry(self) -> Registry:
        """The registry as the database has it: for a name that is not known here. At most five times a second."""
        if self._loop.time() - self._registry_asked_at > 0.2:
            self._registry_asked_at = self._loop.time()
            self.registry = await self._side.run(lambda link: deployments.load_registry(link, self.registry))
        return self.registry

    # For operators (runtime.steering) ---------------------------------------------------------------------------------

    def new_id(self) -> bytes:
        """For an invocation that is about to be made."""
        return self._ids.next(int(time.time() * 1000))

    async def run(self, work: Callable[[Link], Awaitable[T]]) -> T:
        """Do something that is not on the hot path, with a link to itself; raises what it raises, and Disconnected."""
        return await self._side.run(work)

    def pass_on(self, letters: Sequence[tuple[bytes, Mail]], *, queued: bool) -> None:
        """Tell engines, after the commit, of mail for what they drive, and that something is in the queue."""
        for engine, letter in letters:
            self._hint(engine, Kind.MAIL, (letter.target, letter.slot, letter.frame))
        if queued:
            self._queued()

    def in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something that nobody waits for; what becomes of it is in the log."""
        self._spawn(work)

    def call_attention(self) -> None:
        """Tell all engines, after the commit, that something has changed which concerns them."""
        for address in self.seats.addresses.values():
            self._hints.send(address, Kind.LOOK, ())

    def pass_on_due(self, due: int) -> None:
        """Tell engines, after the commit, of a timer that may be due before all that they know of."""
        for seat in self._near(self.seats.all):
            self._hints.send(seat.address, Kind.DUE, (due,))

    # Submitting -------------------------------------------------------------------------------------------------------

    def _new(self, submission: Submission) -> Invocation:
        handler, once = submission.handler, submission.idempotency_key
        if len(submission.input) > self.limits.payload:
            what = f"The argument of {handler.service}/{handler.name}"
            raise TooLarge(excess(what, len(submission.input), "payload", self.limits))
        id = id_at_birth(handler, submission.key, once, self.new_id)
        return new_invocation(
            handler, submission.key, id, Input(Value(submission.input), submission.headers), idempotency_key=once
        )

    def _submit(self, new: Invocation, submission: Submission, *, awaited: bool) -> asyncio.Future[Accepted]:
        if len(self._writer) >= MOST_WAITING:
            raise Overloaded("Too many calls are waiting to be stored.")
        creation = Creation(new, due=bounded(submission.due), is_run=submission.handler.runs_once)
        if new.idempotency_key is not None:
            creation.token = secrets.token_bytes(16)
        if not submission.due:
            self.seats.place(creation, submission.handler)
        changes = Changes(creations=[creation])
        accepted: asyncio.Future[Accepted] = self._loop.create_future()
        self._accepting[id(changes)] = accepted
        self._writer.add(changes)
        return accepted

    def _committed(self, batch: Sequence[Changes], receipt: Receipt) -> None:
        for changes in batch:
            for creation in changes.creations:
                new = creation.invocation
                is_new = new.id in receipt.created
                if is_new:
                    self.tally.handlers[new.service, new.handler].accepted += 1
                    self.announce(creation, receipt)
                elif new.id in self._awaited:
                    self._spawn(functools.partial(self._watch, new.id))
                accepted = self._accepting.pop(id(changes), None)
                if accepted is not None and not accepted.done():
                    accepted.set_result(Accepted(new.id, is_new))

    def announce(self, creation: Creation, receipt: Receipt) -> None:
        """Tell the engine that was given a new invocation, or those that may take it."""
        if creation.due:
            if creation.due < time.time() * 1000 + NEAR:
                self.pass_on_due(creation.due)
            return
        new = creation.invocation
        if new.mode is Mode.EXCLUSIVE:
            owner = receipt.keys.get((new.service, new.key or ""))
            if owner is None:
                self._queued()
                return
            if new.id in self._awaited:
                self._hint(owner, Kind.WATCH, (new.id,))
            self._hint(owner, Kind.KEYS, (new.service, new.key))
        elif creation.owner is None:
            self._queued()
        else:
            self._hint(creation.owner, Kind.BORN, astuple(new))

    def _refused(self, batch: Sequence[Changes], error: DatabaseError) -> None:
        for changes in batch:
            if error.is_vouch:  # the engine it was given to has died: the queue takes it
                for creation in changes.creations:
                    creation.owner = None
                changes.sealed = False
                self.seats.forget()
                self._writer.add(changes)
            else:
                accepted = self._accepting.pop(id(changes), None)
                if accepted is not None and not accepted.done():
                    accepted.set_exception(error)

    async def _new_writer(self) -> Writer:
        link = await Link.connect(self._conninfo)
        return Writer(link, engine=None, committed=self._committed, refused=self._refused, tally=self.tally)

    async def _write(self) -> None:
        """Flush for ever; after a lost connection find out what became of the flush that was under way."""
        while True:
            try:
                await self._writer.run()
            except (Disconnected, DatabaseError) as error:
                log.warning("the ingress lost its connection: %s", error)
                if isinstance(error, DatabaseError):  # a full disk stays full for longer than a moment
                    await asyncio.sleep(RECONNECT)
                await self._recover(self._writer)

    async def _recover(self, old: Writer) -> None:
        """Its ids tell: a transaction is committed as a whole or not at all, once its session has ended."""
        old.link.close()
        uncertain = old.in_flight
        births = [creation for changes in uncertain for creation in changes.creations]
        ids = [birth.invocation.id for birth in births]
        while True:
            try:
                while not await self._side.run(lambda link: lookup.end_session(link, old.backend_pid)):
                    await asyncio.sleep(RECONNECT)
                under_way, ended = await self._side.run(lambda link: lookup.find(link, ids))
                first = await self._side.run(
                    lambda link: lookup.tokens(link, ids, [birth.token for birth in births if birth.token])
                )
                writer = await self._new_writer()
                break
            except (Disconnected, DatabaseError):
                await asyncio.sleep(RECONNECT)
        # With an idempotency key the id may be an earlier submission's: only its token tells.
        found = {
            birth.invocation.id
            for birth in births
            if (
                birth.token in first
                if birth.token
                else birth.invocation.id in under_way or birth.invocation.id in ended
            )
        }
        news = [birth.invocation for birth in births]
        keys = {(new.service, new.key or ""): under_way[new.id] for new in news if new.id in under_way}
        self._writer = writer
        for id in found & ended.keys():
            self._settle(id, ended[id])
        for changes in uncertain:
            if any(creation.invocation.id in found for creation in changes.creations):
                self._committed([changes], Receipt(created=found, keys=keys))
            else:
                changes.sealed = False
                writer.add(changes)
        while old.waiting:
            writer.add(old.waiting.popleft())

    # Results ----------------------------------------------------------------------------------------------------------

    def _received(self, _: Asker, kind: int, items: list[Any]) -> None:
        if kind == Kind.DONE:
            for id, result in items:
                if result:
                    self._settle(id, result)
            self._have_ended([id for id, result in items if not result])

    def _noticed(self, _: Asker, notice: Notice) -> None:
        self._have_ended(notice.done)
        if notice.look:
            self._look_for_results()

    def _have_ended(self, ids: Sequence[bytes]) -> None:
        """Somebody says so; history has the results."""
        for id in ids:
            self.seats.make_room(id)
        awaited = [id for id in ids if id in self._awaited]
        if awaited:
            self._spawn(functools.partial(self._fetch, awaited))

    def _look_for_results(self) -> None:
        self._have_ended(list(self._awaited))

    def _settle(self, id: bytes, result: bytes) -> None:
        self.seats.make_room(id)
        self._awaited.settle(id, result)

    async def _watch(self, id: bytes) -> None:
        """Settle what waits for an invocation that was there before, now or when it ends."""
        under_way, ended = await self._side.run(lambda link: lookup.find(link, [id]))
        if id in ended:
            self._settle(id, ended[id])
        elif id not in under_way:
            raise UnknownInvocation(id)
        elif (owner := under_way[id]) is not None:
            self._hint(owner, Kind.WATCH, (id,))

    async def _stored(self, id: bytes, frame: bytes) -> Ended:
        """The end of what was there before, with how long it is kept for whoever asks once more."""
        end = _ended(id, frame)
        with contextlib.suppress(Disconnected, DatabaseError):  # the result is there
            end.expires = await self._side.run(lambda link: lookup.expiry(link, id))
        return end

    async def _fetch(self, ids: Sequence[bytes]) -> None:
        """Settle those that have ended. Raises Disconnected, DatabaseError."""
        for id, result in (await self._side.run(lambda link: lookup.results(link, ids))).items():
            self._settle(id, result)

    async def _poll(self) -> None:
        """Results of which no hint came: of invocations awaited since the last look."""
        while True:
            await asyncio.sleep(POLL)
            overdue = self._awaited.since_last_look()
            if overdue:
                with contextlib.suppress(Disconnected, DatabaseError):
                    await self._fetch(overdue)

    # Around -----------------------------------------------------------------------------------------------------------

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(ROSTER_POLL)
            with contextlib.suppress(Disconnected, DatabaseError):
                await self._refresh()

    async def _tell(self) -> None:
        """What was counted, and how late this loop comes."""
        while True:
            due = self._loop.time() + tally.INTERVAL
            await asyncio.sleep(tally.INTERVAL)
            self.tally.lag.observe(max(0.0, self._loop.time() - due))
            with contextlib.suppress(Disconnected, DatabaseError):
                await self._side.run(self._teller.tell)

    async def _refresh(self) -> None:
        self.registry = await self._side.run(lambda link: deployments.load_registry(link, self.registry))
        roster = await self._side.run(owners.roster)
        wanted = {service.deployment for service in self.registry.services.values()}
        lived = self.seats.addresses.keys()
        self.seats.refresh(roster, wanted, self._loop.time())
        self._hints.forget(set(self.seats.addresses.values()))
        if lived - self.seats.addresses.keys():
            self._mourned_until = self._loop.time() + MOURNING
            self._asked.clear()
        if self._loop.time() >= self._mourned_until:
            self._asked.clear()
        elif self._awaited:
            await self._ask_heirs()

    async def _ask_heirs(self) -> None:
        """Who has taken over what is awaited does not know by whom: tell them; and look what has ended meanwhile.

        After a kill ten calls with keys are answered within 0.8 s, and by the poll alone it was 1.7 s.
        """
        under_way, ended = await self._side.run(lambda link: lookup.find(link, list(self._awaited)))
        for id, result in ended.items():
            self._settle(id, result)
        for id, owner in under_way.items():
            if owner is not None and self._asked.get(id) != owner:
                self._asked[id] = owner
                self._hint(owner, Kind.WATCH, (id,))

    def _hint(self, engine: bytes, kind: Kind, item: Any) -> None:
        address = self.seats.addresses.get(engine)
        if address is not None:
            self._hints.send(address, kind, item)

    def _queued(self) -> None:
        """Something is in the queue: any attached engine may take it; without one, a worker is asked for."""
        attached = [seat for seat in self.seats.all if seat.is_attached]
        for seat in self._near(attached):
            self._hints.send(seat.address, Kind.READY, ())
        if not attached and self._wake_workers is not None and self._loop.time() - self._woken_at > 0.5:
            self._woken_at = self._loop.time()
            self._spawn(self._wake_workers)

    def _near(self, seats: Sequence[Seat]) -> Sequence[Seat]:
        """Those that a socket reaches; all, where none is."""
        return [seat for seat in seats if self._hints.is_near(seat.address)] or seats

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        errand = asyncio.ensure_future(_quietly(work))
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)


def _complain(task: asyncio.Task[Any]) -> None:
    """What was meant to go on for ever has ended: it must at least be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("%s ended", task.get_coro(), exc_info=error)


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except RuntimeFault as error:
        log.debug("%s", error)
    except Exception:
        log.exception("in the background")


def _pass_failure(accepted: asyncio.Future[Accepted], ended: asyncio.Future[bytes]) -> None:
    if accepted.cancelled() or ended.done():
        return
    error = accepted.exception()
    if error is not None:
        ended.set_exception(error)


def _ended(id: bytes, frame: bytes) -> Ended:
    output = decode(frame)[0]
    assert isinstance(output, Output)
    return Ended(id, output.result)
