"""The pulse: a thread that shows that its engine lives, also while a handler blocks the loop.

It holds the engine's advisory lock in a session of its own (free 3 ms after a kill -9) and counts up a beat (a frozen
process keeps its lock and stops counting). A session that was lost is opened and locked anew.

It also watches the loop. For a moment a handler may block it; one that does so for good would keep its engine alive,
and with it everything that the engine owns, for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import psycopg
from msgspec import Struct

log = logging.getLogger(__name__)

BEAT = """
UPDATE heartbeat SET beat = beat + 1, attached = %s, room = %s, in_flight = %s, leases = %s, lag_ms = %s,
    claimed_per_s = %s, finished_per_s = %s, beat_at = now()
WHERE engine = %s
"""
# The death of the engine counts against that one alone.
BLAME = "UPDATE engine SET culprit = %s WHERE id = %s AND alive"


class VitalSigns(Struct):
    """How it stands with an engine at a beat."""

    is_attached: bool
    """It takes new work."""
    room: int
    in_flight: int
    leases: int
    lag_ms: float
    claimed: int
    """Taken from the queue since it was born."""
    finished: int


class Rates:
    """What is done per second, over the last beats."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque(maxlen=10)

    def at(self, now: float, claimed: int, finished: int) -> tuple[float, float]:
        """Claimed and finished per second.

        >>> rates = Rates()
        >>> [rates.at(second, 10 * second, 5 * second) for second in (0, 1, 3)]
        [(0.0, 0.0), (10.0, 5.0), (10.0, 5.0)]
        """
        self._seen.append((now, claimed, finished))
        then, claimed_then, finished_then = self._seen[0]
        seconds = now - then
        return ((claimed - claimed_then) / seconds, (finished - finished_then) / seconds) if seconds else (0.0, 0.0)


class Pulse:
    INTERVAL = 0.5

    def __init__(
        self,
        conninfo: str,
        engine: bytes,
        vital_signs: Callable[[], VitalSigns],
        *,
        turns: Callable[[], int],
        stuck: Callable[[], bytes | None],
        stuck_after: float,
    ) -> None:
        self._conninfo = conninfo
        self._engine = engine.hex()
        self._vital_signs = vital_signs
        self._rates = Rates()
        self._turns = turns
        """How often the loop has turned."""
        self._stuck = stuck
        """Called when it has not for `stuck_after` seconds; answers whose fault it is, if that is known."""
        self._stuck_after = stuck_after
        self.lock_key = int.from_bytes(engine[:8], "big", signed=True)
        self._stop = threading.Event()
        self._now = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="perdure-pulse", daemon=True)
        self._connection: psycopg.Connection | None = None

    def start(self) -> None:
        """Take the lock, then begin to beat; when this returns, nobody can take the engine for dead."""
        self._connection = self._connect()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._now.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def beat_now(self) -> None:
        """Something changed that others look at: do not wait for the next beat."""
        self._now.set()

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(self._conninfo, autocommit=True)
        connection.execute("SELECT pg_advisory_lock(%s)", (self.lock_key,))
        return connection

    def _beat(self) -> None:
        turns, still = self._turns(), 0
        while not self._stop.is_set():
            try:
                if self._connection is None:
                    self._connection = self._connect()
                self._connection.execute(BEAT, self._told())
            except psycopg.Error as error:
                log.warning("the pulse's connection was lost: %s", str(error).strip())
                self._close()
            is_whole = not self._now.wait(self.INTERVAL)
            self._now.clear()
            if self._turns() != turns:
                turns, still = self._turns(), 0
            else:  # in beats of our own, not by the clock: a process that was frozen has not seen its loop stand still
                still += is_whole
            if still * self.INTERVAL >= self._stuck_after:
                self._end_process(self._stuck())
        self._close()

    def _end_process(self, culprit: bytes | None) -> None:
        """Nothing else ends what blocks the loop. The lock goes with the session, and others take over."""
        if culprit is not None and self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.execute("SET lock_timeout = '1s'")
                self._connection.execute(BLAME, (culprit.hex(), self._engine))
        os._exit(70)

    def _told(self) -> tuple[object, ...]:
        signs = self._vital_signs()
        rates = self._rates.at(time.monotonic(), signs.claimed, signs.finished)
        return (signs.is_attached, signs.room, signs.in_flight, signs.leases, signs.lag_ms, *rates, self._engine)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
