"""The aftermath of a flush: what is durable now may be known, and what was refused is begun anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from perdure.protocol.messages import Error
from runtime.core import lifecycle
from runtime.core.changes import Changes, Completed, Creation, Mail, Parked
from runtime.core.invocation import Invocation, Mode, Outcome, Status
from runtime.core.tally import Tally
from runtime.engine.drive import Drive, Surroundings
from runtime.engine.ears import Ears
from runtime.engine.memory import Memory
from runtime.engine.starts import Starts, missing_handler
from runtime.errors import DatabaseError
from runtime.store.claim import Loaded
from runtime.store.commit import Receipt
from runtime.store.verbs import SLOT, Verb
from runtime.store.writer import Writer, unit_of
from runtime.wakeups import Asker, Kind

VERBS = {slot: verb for verb, slot in SLOT.items()}


class Aftermath:
    def __init__(
        self,
        memory: Memory,
        starts: Starts,
        ears: Ears,
        surroundings: Surroundings,
        act: Callable[[bytes, Verb], None],
        tally: Tally,
    ) -> None:
        self._memory = memory
        self._starts = starts
        self._ears = ears
        self._surroundings = surroundings
        self._act = act
        """Carries out a verb that is in the mail of an invocation which nobody drives."""
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self.claimed = 0
        """Invocations and keys that came from the queue, for statistics."""
        self.finished = 0
        """Invocations that ended here."""

    def committed(self, batch: Sequence[Changes], receipt: Receipt) -> None:
        for changes in batch:
            drive = self._memory.drives.get(changes.invocation.id)
            ending = changes.ending
            if drive is not None:
                if ending is None:
                    drive.committed(changes)
                elif isinstance(ending, Completed):
                    self._completed(drive, ending)
                else:
                    self._parked(drive, ending, receipt)
            for creation in changes.creations:
                self._created(creation, receipt)
            for letter in changes.mails:
                self.sent(letter, receipt.told.get(letter.target))
        for letter, owner in receipt.answers:
            self.sent(letter, owner)
        claimed = receipt.claimed
        self.claimed += len(claimed.invocations) + len(claimed.keys)
        for id in claimed.invocations:
            self._starts.load(id)
        for key in claimed.keys:
            self._starts.look(key)

    def sent(self, letter: Mail, owner: bytes | None) -> None:
        """Mail is in the database: tell whoever drives its target."""
        if owner == self._ears.engine:
            self._ears.hear([(letter.target, letter.slot, letter.frame)])
        elif owner is not None:
            self._ears.hint(owner, Kind.MAIL, (letter.target, letter.slot, letter.frame))
        elif letter.slot in VERBS:
            self._act(letter.target, VERBS[letter.slot])
        else:  # it may have woken up, whatever it is
            self._ears.offer_to_all()

    def refused(self, writer: Writer, batch: Sequence[Changes], error: DatabaseError) -> None:
        """One unit was refused: all of it is forgotten, and goes on from what is committed."""
        unit = unit_of(batch[0])
        writer.discard(lambda changes: unit_of(changes) == unit)
        invocation = batch[0].invocation
        drives = {changes.invocation.id: self._memory.drives.get(changes.invocation.id) for changes in batch}
        for drive in drives.values():
            if drive is not None:
                drive.abort()
                self._memory.forget(drive)
        is_first_word = any(changes.is_first_word for changes in batch)
        if is_first_word and error.is_mismatch:  # the hint came late: what is ours is read
            for drive in drives.values():
                for asker in drive.watchers if drive is not None else ():
                    self._ears.watch(invocation.id, asker)
            self._starts.load(invocation.id)
            return
        key = (invocation.service, invocation.key or "")
        lease = self._memory.leases.get(key) if invocation.mode is Mode.EXCLUSIVE else None
        if lease is not None:
            self._starts.drop(lease)
            if len(drives) > 1:  # whose fault it is shows when they go one at a time
                self._memory.careful.add(key)
                self._starts.look(key)
                return
        drive = drives[invocation.id]
        if drive is not None:
            self._starts.hold(drive)
        failed = self._failed(invocation, drive, error)
        failed.is_first_word = is_first_word
        writer.add(failed)

    def _failed(self, invocation: Invocation, drive: Drive | None, error: DatabaseError) -> Changes:
        """The attempt failed for what the database did not take."""
        changes = Changes(invocation)
        handler = drive.handler if drive is not None else missing_handler(invocation, "")
        lifecycle.fail(
            invocation,
            changes,
            Error(500, f"The database refused what the handler did: {error}"),
            handler,
            now_ms=self._surroundings.now_ms(),
            stored_commands=False,
            position=None,
        )
        if isinstance(changes.ending, Completed):  # its end might be refused in turn: a person looks at it
            changes.ending = Parked(Status.PAUSED, failure=changes.ending.failure)
            changes.mails.clear()
        return changes

    def _completed(self, drive: Drive, ending: Completed) -> None:
        self._memory.forget(drive)
        self._memory.remember(drive.invocation.id)
        self.finished += 1
        counted = self._tally.handlers[drive.invocation.service, drive.invocation.handler]
        if ending.outcome is Outcome.SUCCEEDED:
            counted.succeeded += 1
        else:
            counted.other_ends[ending.outcome] += 1
        if drive.attempt is not None:
            counted.attempts.observe(self._loop.time() - drive.began)
        _answer(drive.watchers, drive.invocation.id, ending.result)
        lease = drive.lease
        if lease is not None and self._memory.leases.get(lease.key) is lease:
            lease.uncommitted -= 1
            if not lease.uncommitted and lease.running is not None and lease.running.attempt is not None:
                lease.running.attempt.open()
            self._starts.pump(lease)

    def _parked(self, drive: Drive, ending: Parked, receipt: Receipt) -> None:
        id, lease = drive.invocation.id, drive.lease
        self._memory.forget(drive)
        counted = self._tally.handlers[drive.invocation.service, drive.invocation.handler]
        if drive.attempt is not None:
            counted.attempts.observe(self._loop.time() - drive.began)
        if ending.failure is not None:
            counted.failed += 1
            counted.retried += ending.status is Status.BACKING_OFF
        if lease is not None:
            lease.running = None
            self._starts.drop(lease)
        for asker in drive.watchers:
            self._memory.watch(id, asker)
        if id in receipt.parked:
            if ending.due:
                self._surroundings.expect_timer(ending.due)
            if ending.status is Status.READY:
                self._ears.offer(drive.invocation, drive.handler.deployment)
        elif drive.output is not None:  # it had ended, by a verb, and that was refused: again at the next poll
            return
        elif lease is not None:  # there is mail that it must hear of first
            self._starts.look(lease.key)
        else:
            self._starts.load(id)

    def _created(self, creation: Creation, receipt: Receipt) -> None:
        new = creation.invocation
        if new.id not in receipt.created:  # a repetition of an idempotency key: the result may be there already
            self._ears.look_around()
            return
        self._tally.handlers[new.service, new.handler].accepted += 1
        if creation.due:
            self._surroundings.expect_timer(creation.due)
        elif new.mode is Mode.EXCLUSIVE:
            key = (new.service, new.key or "")
            owner = receipt.keys.get(key)
            if owner == self._ears.engine:
                self._starts.look(key)
            elif owner is not None:
                self._ears.hint(owner, Kind.KEYS, key)
            else:
                self._ears.offer(new)
        elif creation.owner is not None:
            self._starts.start(Loaded(new, Status.RUNNING))
        else:
            self._ears.offer(new)


def _answer(watchers: Sequence[Asker], id: bytes, result: bytes) -> None:
    for asker in watchers:
        asker.send(Kind.DONE, (id, result))
