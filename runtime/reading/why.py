"""Why an invocation is where it is: what keeps it from going on, as data and as a sentence.

Read in several looks without a lock: what changes in between makes the answer old, not wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.utils import timezone
from msgspec import Struct, structs

from perdure.protocol.ids import format_id
from perdure.protocol.messages import CANCEL_SIGNAL, Message, Signal
from runtime.core.invocation import Mode, Status
from runtime.core.lifecycle import JOURNAL_MISMATCH
from runtime.models import Done, DrainedQueue, Inbox, Invocation, Journal, ObjectKey, Ready
from runtime.reading import calls, workers
from runtime.reading.calls import Awaited
from runtime.reading.services import is_unregistered_code_loaded, missing_code
from runtime.reading.words import counted, enumerated, moment, span
from runtime.reading.workers import Standing
from runtime.store.owners import CRASH_LIMIT

MOST_COUNTED = 10_000
MOST_AWAITED = 100
LONGEST_CHAIN = 10
"""How many invocations that wait for one another are looked at."""


class Reason(StrEnum):
    """What keeps an invocation."""

    RUNNING = "running"  # nothing: an engine executes it
    AWAITS = "awaits"  # a result, or a time
    SCHEDULED = "scheduled"  # its time has not come
    KEY = "key"  # another one has its key
    QUEUE = "queue"  # no engine has taken it yet
    NOT_SERVED = "not-served"  # no engine has loaded its code
    NO_ENGINE = "no-engine"  # none that lives serves its queue
    DRAINED = "drained"  # nothing is taken from its queue, or by the engines that serve it
    SILENT = "silent"  # the engine that drives it gives no sign of life
    BACKING_OFF = "backing-off"  # its last attempt failed
    PAUSED = "paused"  # until somebody resumes it
    ENDED = "ended"


class Waiting(Struct, frozen=True, kw_only=True):
    """Something that it awaits."""

    index: int | None
    """Of its entry in the journal; None: of a signal there is none before it comes."""
    what: str
    """As in `Sleep`, `Call`, `Run` or `Signal`."""
    name: str
    invocation_id: str | None
    until: datetime | None


class Why(Struct, frozen=True, kw_only=True):
    """What keeps one invocation; what does not apply is None."""

    reason: Reason
    sentence: str
    since: datetime | None = None
    until: datetime | None = None
    """When it goes on by itself."""
    awaits: tuple[Waiting, ...] = ()
    ahead: int | None = None
    """How many come before it in its key's inbox, counted up to 10,000."""
    queue: str | None = None
    engine: str | None = None
    """Which drives it, or has its key."""
    missing_code: str | None = None
    """As in `hello:app (dp_…)`."""
    invocation_id: str | None = None
    """The one invocation that it waits for: who has its key, or whose result it awaits."""
    because: Why | None = None
    """What keeps that one in turn."""
    is_circle: bool = False
    """That one is among those that wait for this one: a deadlock, by all that one look shows."""

    @property
    def sentences(self) -> list[str]:
        """What keeps it, and then what keeps those that it waits for."""
        if self.because is None:
            return [self.sentence]
        first, *others = self.because.sentences
        return [self.sentence, f"{self.invocation_id}: {first}", *others]


async def why(id: bytes, services: Collection[str] | None = None) -> Why | None:
    """What keeps an invocation; None: there is none, or none any more.

    Of an invocation that it waits for, the same is said in turn, if that is of one of `services` (None: of any).
    """
    return await _why(UUID(bytes=id), services, [])


async def _why(id: UUID, services: Collection[str] | None, asked: list[UUID]) -> Why | None:
    row = await Invocation.objects.filter(id=id).values(*LOOKED_AT).afirst()
    if row is None:
        return await _ended(id)
    found, other = await _look(row)
    if other is None:
        return found
    found = structs.replace(found, invocation_id=format_id(other.bytes))
    asked.append(id)
    if other in asked:
        return structs.replace(found, is_circle=True, sentence=f"{found.sentence} {CIRCLE}")
    if len(asked) > LONGEST_CHAIN or not await _is_within(services, other):
        return found
    return structs.replace(found, because=await _why(other, services, asked))


UNHEARD = "It was asked to end, and hears of that where it next awaits something; if it fails before, a kill ends it."
CHANGED_IN_PLACE = (
    "Engines have loaded code that is not registered: if it is this one, changed where it stands, "
    "`./dev manage register MODULE:APP` makes it known."
)
CIRCLE = "That one waits for this: they are a circle, and none goes on until one of them is cancelled."
LOOKED_AT = (
    *("id", "service", "handler", "key", "mode", "status", "owner", "queue", "deployment", "waits"),
    *("modified_at", "begun_at", "due_at", "failed_attempts", "crashes", "failure"),
)
Row = dict[str, Any]
Found = tuple[Why, UUID | None]
"""With the one invocation that it waits for."""


async def _look(row: Row) -> Found:
    match row["status"]:
        case Status.SCHEDULED:
            sentence = f"It is a send that begins {_at(row['due_at'])}."
            return Why(reason=Reason.SCHEDULED, sentence=sentence, until=row["due_at"]), None
        case Status.BACKING_OFF:
            return await _backing_off(row), None
        case Status.PAUSED:
            return _paused(row), None
        case Status.SUSPENDED:
            entries, waits = await _journal(row["id"]), row["waits"] or ()
            found = [*calls.awaited(entries, waits), *calls.signals(row["id"].bytes, waits)]
            return _awaiting(found, row["modified_at"])
    engine: UUID | None = row["owner"]
    if row["mode"] == Mode.EXCLUSIVE:
        of_its_key = {"service": row["service"], "key": row["key"]}
        first = (
            await Inbox.objects.filter(**of_its_key).order_by("position").values_list("invocation", flat=True).afirst()
        )
        if first is not None and first != row["id"]:
            return await _behind(row, first)
        engine = await ObjectKey.objects.filter(**of_its_key).values_list("owner", flat=True).afirst()
    return (await _queued(row), None) if engine is None else await _driven(row, engine)


async def _ended(id: UUID) -> Why | None:
    ended = Done.objects.filter(id=id).values_list("outcome", "completed_at", "failure")
    row = await ended.afirst()
    if row is None:
        return None
    outcome, at, failure = row
    how = outcome if outcome in ("succeeded", "failed") else f"been {outcome}"
    message = f": {_message(failure)}" if outcome == "failed" else "."
    return Why(reason=Reason.ENDED, sentence=f"It has {how}, at {moment(at)}{message}", since=at)


async def _backing_off(row: Row) -> Why:
    sentence = f"It is tried again {_at(row['due_at'])}: {_failed(row)}"
    if any(isinstance(one, Signal) and one.signal == CANCEL_SIGNAL for one in await _journal(row["id"])):
        sentence = f"{sentence} {UNHEARD}"
    return Why(reason=Reason.BACKING_OFF, sentence=sentence, since=row["modified_at"], until=row["due_at"])


def _paused(row: Row) -> Why:
    failure = row["failure"] or {}
    if row["crashes"] >= CRASH_LIMIT:
        cause = f"{counted(row['crashes'], 'engine')} died while driving it, and it may be what kills them"
    elif failure.get("code") == JOURNAL_MISMATCH:
        cause = f"its code asks for something else than its journal has: {_message(failure)}"
    else:
        cause = _failed(row) if failure else "somebody has paused it"
    sentence = f"It is paused since {moment(row['modified_at'])}, until somebody resumes it; {cause}"
    return Why(reason=Reason.PAUSED, sentence=_with_stop(sentence), since=row["modified_at"])


async def _behind(row: Row, first: UUID) -> Found:
    """The key is somebody else's."""
    inbox = Inbox.objects.filter(service=row["service"], key=row["key"])
    place = await inbox.filter(invocation=row["id"]).values_list("position", flat=True).afirst()
    ahead = 1 if place is None else await inbox.filter(position__lt=place)[:MOST_COUNTED].acount()
    holder = await Invocation.objects.filter(id=first).values_list("handler", "begun_at").afirst()
    handler, begun_at = holder or ("ended", None)
    has_it = "is to have first" if begun_at is None else f"has since {moment(begun_at)}"
    others = f"; {ahead - 1} more {'comes' if ahead == 2 else 'come'} before it" if ahead > 1 else ""
    key = f"the key {row['key']!r} of {row['service']}"
    sentence = f"It waits for {key}, which {format_id(first.bytes)} ({handler}) {has_it}{others}."
    return Why(reason=Reason.KEY, sentence=sentence, since=row["modified_at"], ahead=ahead), first


async def _driven(row: Row, id: UUID) -> Found:
    """An engine has it in memory, or is about to."""
    engine = await workers.engine(id)
    if engine is None or engine.status is Standing.SILENT:
        silent = f"Engine {str(id)[:8]}, which drives it, gives no sign of life: another takes over within seconds."
        return Why(reason=Reason.SILENT, sentence=silent, engine=str(id)), None
    place = f"engine {str(id)[:8]} on {engine.host}"
    since = row["begun_at"] or row["modified_at"]
    awaited = calls.awaited(await _journal(row["id"]))
    if not awaited or any(one.what == "Run" for one in awaited):
        steps = [f"ctx.run {one.name!r}" for one in awaited if one.what == "Run"]
        step = f", in {enumerated(steps)}" if steps else ""
        sentence = f"Nothing keeps it: {place} executes it{step}, since {moment(since)}."
        return Why(reason=Reason.RUNNING, sentence=sentence, since=since, engine=str(id)), None
    found, other = _awaiting(awaited, since)
    sentence = f"{found.sentence.removesuffix('.')}, in the memory of {place}."
    return structs.replace(found, sentence=sentence, engine=str(id)), other


async def _queued(row: Row) -> Why:
    """No engine has it, nor its key."""
    queue, since = row["queue"], row["modified_at"]
    waits = f"for {span(max(timezone.now() - since, timedelta()))}"
    missing = await missing_code(row["service"], row["deployment"])
    drained_at = await DrainedQueue.objects.filter(queue=queue).values_list("drained_at", flat=True).afirst()
    serving = [
        engine for engine in await workers.engines() if queue in engine.queues and engine.status is not Standing.SILENT
    ]
    if missing is not None:
        reason, words = Reason.NOT_SERVED, f"It waits {waits} for an engine that has loaded its code, {missing}."
        if await is_unregistered_code_loaded():
            words = f"{words} {CHANGED_IN_PLACE}"
    elif drained_at is not None:
        words = f"Its queue {queue!r} is drained since {moment(drained_at)}, until somebody resumes that."
        reason = Reason.DRAINED
    elif not serving:
        reason, words = Reason.NO_ENGINE, f"It waits {waits}: no engine that lives serves its queue {queue!r}."
    elif all(engine.drained_at is not None for engine in serving):
        reason, words = Reason.DRAINED, f"It waits {waits}: all engines that serve its queue {queue!r} are drained."
    else:
        there = await Ready.objects.filter(queue=queue)[:MOST_COUNTED].acount()
        room = "" if any(engine.room for engine in serving) else "; all that serve it are full"
        words = f"It waits in the queue {queue!r} for an engine, {waits}, as one of {there}{room}."
        reason = Reason.QUEUE
    return Why(reason=reason, sentence=words, since=since, queue=queue, missing_code=missing)


def _awaiting(awaited: Sequence[Awaited], since: datetime) -> Found:
    """Something that its handler has asked for and that has not come."""
    times = [one.until for one in awaited if one.until is not None]
    found = Why(
        reason=Reason.AWAITS,
        sentence=_awaits(awaited),
        since=since,
        until=min(times, default=None),
        awaits=tuple(_waiting(one) for one in awaited[:MOST_AWAITED]),
    )
    callee = awaited[0].invocation if len(awaited) == 1 else None
    return found, None if callee is None else UUID(bytes=callee)


def _awaits(awaited: Sequence[Awaited]) -> str:
    match awaited:
        case []:
            return "It awaits a signal."
        case [Awaited(until=datetime() as until)]:
            return f"It sleeps until {moment(until)}{_in(until)}."
    return f"It awaits {enumerated([_thing(one) for one in awaited])}."


def _thing(one: Awaited) -> str:
    if one.until is not None:
        return f"the end of a sleep at {moment(one.until)}"
    match one.what:
        case "Signal":
            return f"the awakeable {one.name}" if one.name else "a signal by name"
        case "GetPromise":
            return f"the promise {one.name!r}"
        case "AttachInvocation" if one.invocation is not None:
            return f"the end of {format_id(one.invocation)}"
    if one.invocation is not None:
        return f"the result of {one.name} ({format_id(one.invocation)})"
    return f"the {one.what} of entry {one.index}" + (f", {one.name!r}" if one.name else "")


def _waiting(one: Awaited) -> Waiting:
    return Waiting(
        index=one.index,
        what=one.what,
        name=one.name,
        invocation_id=None if one.invocation is None else format_id(one.invocation),
        until=one.until,
    )


async def _journal(id: UUID) -> list[Message]:
    """All but its input."""
    rows = Journal.objects.filter(invocation=id).order_by("first").values_list("frames", flat=True)
    return calls.read([frames async for frames in rows])


async def _is_within(services: Collection[str] | None, id: UUID) -> bool:
    if services is None:
        return True
    service = await Invocation.objects.filter(id=id).values_list("service", flat=True).afirst()
    return service in services


def _failed(row: Row) -> str:
    return f"{counted(max(1, row['failed_attempts']), 'attempt')} failed, the last with: {_message(row['failure'])}"


def _message(failure: Mapping[str, Any] | None) -> str:
    """The first line of a failure's message, as the end of a sentence."""
    text = str((failure or {}).get("message", "")).strip().partition("\n")[0]
    return _with_stop(text or "no message")


def _with_stop(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _at(time: datetime | None) -> str:
    return "at once" if time is None else f"at {moment(time)}{_in(time)}"


def _in(time: datetime) -> str:
    left = time - timezone.now()
    return f", in {span(left)}" if left > timedelta() else ", which is now"
