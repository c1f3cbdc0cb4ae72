"""Ears and mouth: hints from and to other processes, and the mail that they are about.

A hint saves a poll, no more: what it says is in the database, and the order in which hints come means nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from runtime.core import slots
from runtime.core.invocation import Invocation, Mode, Outcome, Status
from runtime.engine.drive import Drive, Surroundings
from runtime.engine.memory import Memory
from runtime.engine.starts import Starts, missing_handler
from runtime.store.claim import Loaded
from runtime.store.mail import Letter
from runtime.store.owners import Seat
from runtime.wakeups import Asker, Hints, Kind, Notice

MODES = {mode.value: mode for mode in Mode}


class Ears:
    def __init__(
        self,
        engine: bytes,
        memory: Memory,
        starts: Starts,
        surroundings: Surroundings,
        conninfo: str,
        address: str,
        token: bytes,
        queued: Callable[[], None],
        look_around: Callable[[], None],
        read_mail: Callable[[Sequence[bytes]], None],
    ) -> None:
        self.engine = engine
        self._memory = memory
        self._starts = starts
        self._surroundings = surroundings
        self._loop = asyncio.get_running_loop()
        self.hints = Hints(conninfo, token, address, received=self.received, noticed=self.noticed, look=look_around)
        self.others: dict[bytes, Seat] = {}
        """The other engines."""
        self._queued = queued
        """To be called when there is something in the queue for this engine."""
        self.look_around = look_around
        """To be called when there may be something that nobody hints at."""
        self._read_mail = read_mail
        """To be called with those invocations of ours for which there is mail."""

    def received(self, asker: Asker, kind: int, items: list[Any]) -> None:
        """What one of our own says over a socket."""
        if kind == Kind.BORN:
            for item in items:
                new = Invocation(*item)
                new.mode = MODES[new.mode]  # on the wire it is a plain string
                if not self._memory.knows(new.id):
                    self._memory.watch(new.id, asker)
                    self._starts.start(Loaded(new, Status.RUNNING, is_hearsay=True))
        elif kind == Kind.KEYS:
            for service, key in items:
                self._starts.look((service, key))
        elif kind == Kind.WATCH:
            for (id,) in items:
                self.watch(id, asker)
        elif kind == Kind.MAIL:
            self.hear(items)
        elif kind == Kind.READY:
            self._queued()
        elif kind == Kind.LOOK:
            self.look_around()
        elif kind == Kind.DUE:
            for (due,) in items:
                self._surroundings.expect_timer(due)

    def noticed(self, asker: Asker, notice: Notice) -> None:
        """What anyone may say by NOTIFY: where to look."""
        for id in (*notice.born, *notice.watch):
            self.watch(id, asker)
        for id in notice.born:
            self._starts.load(id)
        for key in notice.keys:
            self._starts.look(key)
        if notice.mail:
            self._read_mail(notice.mail)
        if notice.ready:
            self._queued()
        for due in notice.due:
            self._surroundings.expect_timer(due)
        if notice.look:
            self.look_around()

    def watch(self, id: bytes, asker: Asker) -> None:
        """Tell `asker` when it ends, or at once that it has."""
        if self._memory.has_ended(id):
            asker.send(Kind.DONE, (id, b""))
        else:
            self._memory.watch(id, asker)

    def hear(self, letters: Sequence[Letter]) -> None:
        """There is mail for invocations of ours; a verb or a signal is looked for: it may have been heard already."""
        told = [letter for letter in letters if letter[1] > 0]
        others = [target for target, slot, _ in letters if slot < 0]
        if told:
            self.deliver(told)
        if others:
            self._read_mail(others)

    def deliver(self, letters: Iterable[Letter]) -> None:
        """This was in the mail of invocations of ours."""
        waiting: dict[bytes, list[tuple[int, bytes]]] = {}
        for target, slot, frame in letters:
            drive = self._memory.drives.get(target)
            if drive is not None:
                drive.touched = self._loop.time()
                drive.hear(slot, frame)
            elif slot < 0:
                waiting.setdefault(target, []).append((slot, frame))
        if waiting:
            self._tell_waiting(waiting)

    def hint(self, engine: bytes, kind: Kind, item: Any) -> None:
        seat = self.others.get(engine)
        if seat is not None:
            self.hints.send(seat.address, kind, item)

    def offer(self, new: Invocation, deployment: str | None = None) -> None:
        """It is in the queue, for those who have its code: this engine, or another."""
        if self._surroundings.takes(new, deployment):
            self._queued()
            return
        service = self._surroundings.context.registry.services.get(new.service)
        if service is not None:
            wanted = deployment or service.deployment
            self._tell(seat for seat in self.others.values() if seat.serves(wanted, new.queue))

    def offer_to_all(self) -> None:
        """There may be something in the queue for anyone."""
        self._queued()
        self._tell(self.others.values())

    def _tell(self, seats: Iterable[Seat]) -> None:
        """Those further away only when nobody is near."""
        able = [seat for seat in seats if seat.is_attached]
        for seat in [seat for seat in able if self.hints.is_near(seat.address)] or able:
            self.hints.send(seat.address, Kind.READY, ())

    def _tell_waiting(self, told: dict[bytes, list[tuple[int, bytes]]]) -> None:
        """Tell those of them that wait in inboxes of ours: cancelled or killed before it began, one never starts."""
        for lease in self._memory.leases.values():
            for id in lease.letters.keys() & told.keys():
                letter = lease.letters[id]
                ends = {slots.CANCEL, slots.KILL}.intersection(slot for slot, _ in told[id])
                if letter.frames or letter.invocation.crashes or not ends:  # its next attempt hears of it
                    letter.mail += [one for one in told[id] if one not in letter.mail]
                    continue
                del lease.letters[id]
                self._dismiss(letter, slots.KILL in ends)

    def _dismiss(self, letter: Loaded, is_killed: bool) -> None:
        invocation = letter.invocation
        handler = missing_handler(invocation, invocation.deployment or "")
        drive = Drive(invocation, handler, self._surroundings, position=letter.position)
        drive.watchers = self._memory.watchers_of(invocation.id)
        self._memory.drives[invocation.id] = drive
        drive.dismiss(*((Outcome.KILLED, "killed") if is_killed else (Outcome.CANCELLED, "cancelled")))
