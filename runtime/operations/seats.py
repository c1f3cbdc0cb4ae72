"""The engines that new work is given to, so that nothing must be claimed before it starts."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence

from runtime.core.changes import Creation
from runtime.core.invocation import Mode
from runtime.core.registry import HandlerInfo
from runtime.operations.submissions import NotServed
from runtime.store.owners import Seat

NOT_SERVED_AFTER = 30.0  # seconds without an engine that has the code: as long as adoption waits, and a restart takes


class Seats:
    """The engines that live, as their last beats say, and the room that is left in them since."""

    def __init__(self) -> None:
        self.all: Sequence[Seat] = ()
        self.addresses: dict[bytes, str] = {}
        """Of each engine that lives, by its id."""
        self._choices: dict[tuple[str, str], list[Seat]] = {}
        self._taken: dict[bytes, Seat] = {}
        """Which seat each call of the last moments took: its end makes room again."""
        self._turn = 0
        self._unserved: dict[str, float] = {}
        """Deployments that take calls and that no engine has, and since when we see it."""

    def refresh(self, roster: Sequence[Seat], wanted: Collection[str], now: float) -> None:
        """The engines there are, and the deployments that somebody should have; `now` in seconds."""
        self.all = sorted(roster, key=lambda seat: seat.id)
        self.addresses = {seat.id: seat.address for seat in self.all}
        loaded = {deployment for seat in self.all for deployment in seat.deployments}
        self._unserved = {
            deployment: self._unserved.get(deployment, now) for deployment in wanted if deployment not in loaded
        }
        self._choices.clear()
        self._taken.clear()  # the seats' rooms are as their last beats say

    def forget(self) -> None:
        """One of the engines is dead: until it is known which, the queue takes everything."""
        self.all = ()
        self._choices.clear()

    def want_served(self, handler: HandlerInfo, now: float) -> None:
        """Raises NotServed."""
        since = self._unserved.get(handler.deployment)
        if since is not None and now - since >= NOT_SERVED_AFTER:
            raise NotServed(handler.service, NOT_SERVED_AFTER)

    def place(self, creation: Creation, handler: HandlerInfo) -> None:
        """Give it to an engine that has the code and room: in turn, or always the same for a key."""
        seats = self._choices.get((handler.deployment, handler.queue))
        if seats is None:
            seats = self._choices[handler.deployment, handler.queue] = [
                seat for seat in self.all if seat.is_attached and seat.serves(handler.deployment, handler.queue)
            ]
        if not seats:
            return
        new = creation.invocation
        if new.mode is Mode.EXCLUSIVE:
            creation.owner = seats[zlib.crc32(f"{new.service}/{new.key}".encode()) % len(seats)].id
            return
        for _ in seats:
            self._turn += 1
            seat = seats[self._turn % len(seats)]
            if seat.room > 0:
                seat.room -= 1
                creation.owner = seat.id
                self._taken[new.id] = seat
                new.deployment = handler.deployment
                return

    def make_room(self, id: bytes) -> None:
        """It has ended, and leaves the seat that it took, if it took one."""
        seat = self._taken.pop(id, None)
        if seat is not None:
            seat.room += 1
