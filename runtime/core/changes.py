"""Changes: what one invocation, caller or operator makes true at once.

Gathered in memory by pure functions, made true by one transaction of the store, together with everybody else's.
All or nothing per Changes, also when a flush must be halved to find a poisonous one.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field

from runtime.core.history import History
from runtime.core.invocation import Invocation, Mode, Outcome, Status


class Creation(Struct):
    """A new invocation, and where it begins."""

    invocation: Invocation
    owner: bytes | None = None
    """The engine it is born to (for an exclusive one: to which its key goes, if nobody has it); None: the queue."""
    due: int = 0
    """Milliseconds since the epoch; 0: now."""
    token: bytes | None = None
    """With an idempotency key: fresh per submission, tells the first from its repetitions."""
    is_run: bool = False
    """It is a workflow's run, with its key for an idempotency key: a call that comes second is refused."""


class Mail(Struct):
    """A message to an invocation that somebody else may be driving."""

    target: bytes
    slot: int
    """See `runtime.core.slots`."""
    frame: bytes = b""
    """Of a completion its Output, framed: the slot says under which id it is delivered. Of a signal the message."""
    caller: bytes | None = None
    """Who passes its own end on: it reaches only what that one has called into being, not what was there already."""


class Attachment(Struct):
    """What an invocation wants to know of another: its end, now or later, or only whether it has come."""

    target: bytes
    slot: int
    """The completion id under which it is answered, by mail."""
    is_patient: bool
    """It waits for the end."""


class Question(StrEnum):
    """What is asked of a promise."""

    GET = "get"  # its result, now or later
    PEEK = "peek"  # its result, if it has one
    COMPLETE = "complete"  # that this be its result


class PromiseAsk(Struct):
    """What a handler of a workflow asks of one of its key's promises."""

    question: Question
    name: str
    slot: int
    """The completion id under which it is answered, by mail."""
    result: bytes | None = None
    """Of COMPLETE: the Output, framed."""


class Timer(Struct):
    due: int
    slot: int


class Completed(Struct):
    """The end: the invocation moves to history."""

    outcome: Outcome
    result: bytes
    """The Output, framed."""
    retention: int
    """Seconds that history keeps it."""
    position: int | None = None
    """Its place in the key's inbox, when it has one."""
    failure: str | None = None
    """JSON: code and message, for people; None: it succeeded."""
    gave_up: bool = False
    """An attempt failed, and none is to follow it."""


class Stillborn(Struct):
    """An invocation that was asked for and cannot begin; it is history at once, so that whoever looks finds why."""

    creation: Creation
    end: Completed


class Parked(Struct):
    """Out of memory for now: suspended, backing off, paused; or ready, for an engine that has its code.

    Undone when there is mail that it must hear of first.
    """

    status: Status
    waits: tuple[int, ...] = ()
    due: int = 0
    retries: int = 0
    stuck: int = 0
    crashes: int = 0
    """Engines that died while driving it: kept only where no attempt was made, for one that ends has killed nobody."""
    failure: str | None = None
    """JSON: code, message, stacktrace, related command."""
    awaited: bytes | None = None
    """See Invocation."""


NOBODY = Invocation(id=b"", service="", handler="", key=None, mode=Mode.SERVICE, queue="", input=b"")


class Changes(Struct):
    """See the module."""

    invocation: Invocation = field(default_factory=lambda: NOBODY)
    """Whose changes these are; NOBODY for those of a caller outside."""
    begun: str | None = None
    """The deployment it runs on, when this is the first that the database hears of its start."""
    first: int = 0
    """The journal index of the first of `frames`."""
    frames: list[bytes] = field(default_factory=list)
    creations: list[Creation] = field(default_factory=list)
    stillborn: list[Stillborn] = field(default_factory=list)
    state: dict[str, bytes | None] = field(default_factory=dict)
    cleared: bool = False
    """All state was cleared before `state` was set."""
    history: History | None = None
    """What became of single values, where that is kept."""
    history_retention: int = 0
    """Seconds for which it is."""
    by: str | None = None
    """The person who did it."""
    timers: list[Timer] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    promises: list[PromiseAsk] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    """Slots of the mail that is in the journal now."""
    ending: Completed | Parked | None = None
    is_first_word: bool = False
    """The first of what is driven on a hint's word alone: made true only of a row that is as it was born."""
    sealed: bool = False
    """Taken into a flush: what follows goes into new Changes."""

    def forget_what_was_done(self) -> None:
        """But for how it ends."""
        self.frames.clear()
        self.state.clear()
        self.cleared = False
        self.history = None

    @property
    def size(self) -> int:
        """About how many rows this becomes."""
        asked = len(self.mails) + len(self.attachments) + len(self.promises)
        return 1 + len(self.creations) + len(self.stillborn) + asked + len(self.timers) + len(self.state)
