"""An invocation: what is known of it from its birth, where it stands and how it may end."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Status(StrEnum):
    """Where an invocation stands."""

    SCHEDULED = "scheduled"  # a delayed send, not yet due
    PENDING = "pending"  # in a key's inbox
    READY = "ready"  # waiting for an engine
    RUNNING = "running"
    SUSPENDED = "suspended"  # waiting, out of memory
    BACKING_OFF = "backing-off"  # its attempt failed, the next one has a due time
    PAUSED = "paused"  # until a person resumes or cancels it
    COMPLETED = "completed"


# The docs' diagram, the database's CHECK and the dashboard's colours are taken from here.
ALLOWED: dict[Status, frozenset[Status]] = {
    Status.SCHEDULED: frozenset({Status.PENDING, Status.READY, Status.RUNNING, Status.COMPLETED}),
    Status.PENDING: frozenset({Status.RUNNING, Status.PAUSED, Status.COMPLETED}),  # paused: it may kill engines
    Status.READY: frozenset({Status.RUNNING, Status.PAUSED, Status.COMPLETED}),
    Status.RUNNING: frozenset(  # ready: rescued, or handed back by an engine that stops
        {Status.READY, Status.SUSPENDED, Status.BACKING_OFF, Status.PAUSED, Status.COMPLETED}
    ),
    Status.SUSPENDED: frozenset({Status.READY, Status.PAUSED, Status.COMPLETED}),
    Status.BACKING_OFF: frozenset({Status.READY, Status.PAUSED, Status.COMPLETED}),
    Status.PAUSED: frozenset({Status.READY, Status.COMPLETED}),
    Status.COMPLETED: frozenset(),
}


class Outcome(StrEnum):
    """How an invocation ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    KILLED = "killed"


class Mode(StrEnum):
    """How an invocation shares its key."""

    SERVICE = "service"  # no key
    EXCLUSIVE = "exclusive"  # one at a time per key, in the inbox's order; reads and writes state
    SHARED = "shared"  # beside the exclusive one; reads committed state


class Invocation(Struct):
    """What does not change from birth to end, and what a new attempt must know.

    Built on every hot path, so a plain Struct; nobody changes one after its birth, but for `crashes`.
    """

    id: bytes
    service: str
    handler: str
    key: str | None
    mode: Mode
    queue: str
    input: bytes
    """Entry 0 of the journal, framed."""
    caller: bytes | None = None
    caller_completion: int = 0
    idempotency_key: str | None = None
    deployment: str | None = None
    """The code of its first attempt, on which it stays."""
    retries: int = 0
    """Failed attempts of this stretch of trying: counted against the policy's maximum."""
    stuck: int = 0
    """Failed attempts since the last stored command: what the policy of a `ctx.run` counts."""
    stuck_ms: int = 0
    """Milliseconds since the first of those."""
    crashes: int = 0
    """Engines that died while driving it, since it last got on."""
    awaited: bytes = b""
    """A Suspension, framed, where what it waits for is more than the first thing that comes."""
