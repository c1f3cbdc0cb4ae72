"""Verbs on an invocation from anyone but its owner: cancel and kill.

The rows are locked, then looked at. What a living engine drives is told by mail; anything else is acted on here, in
every status and without its code. An owner that died is a matter for its rescuer, who keeps the mail.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from perdure.protocol.codec import decode
from perdure.protocol.ids import parse_id
from perdure.protocol.messages import Call, CallInvocationIdCompletion, Completion, Failure, InvocationRef, Output
from runtime.core import changes as slots
from runtime.core.audit import Act
from runtime.core.changes import Changes, Completed, Mail
from runtime.core.invocation import Outcome, Status
from runtime.core.lifecycle import complete
from runtime.core.registry import DAY
from runtime.errors import DatabaseError
from runtime.store import audit, claim, finish, mail, pack
from runtime.store.link import Link, Pipeline, Statement, rows, whole


class Verdict(StrEnum):
    """What came of a verb."""

    DONE = "done"  # it has ended
    ASKED = "asked"  # whoever drives it, or will drive it next, has been told
    ALREADY_ENDED = "already_ended"
    UNKNOWN = "unknown"


class Verb(StrEnum):
    CANCEL = "cancel"
    KILL = "kill"


SLOT = {Verb.CANCEL: slots.CANCEL, Verb.KILL: slots.KILL}

TRIES = 5
"""How often a verb that met a deadlock is tried."""

LOCK_ONCE = Statement("SELECT FROM idempotency WHERE invocation = $1::uuid FOR NO KEY UPDATE", pack.UUID)
LOCK_KEY = Statement(
    """
SELECT object_key.owner FROM object_key JOIN invocation ON invocation.id = $1::uuid AND invocation.mode = 'exclusive'
    AND object_key.service = invocation.service AND object_key.key = invocation.key
FOR UPDATE OF object_key
""",
    pack.UUID,
)
LOCK_INVOCATION = Statement(
    f"SELECT {claim.COLUMNS}, invocation.owner FROM invocation WHERE id = $1::uuid FOR NO KEY UPDATE", pack.UUID
)
# Looked for when the key is locked, in a snapshot of its own: it may have come meanwhile.
PLACE = Statement(
    """
SELECT inbox.position FROM invocation JOIN inbox ON inbox.service = invocation.service AND inbox.key = invocation.key
    AND inbox.invocation = invocation.id
WHERE invocation.id = $1::uuid AND invocation.mode = 'exclusive'
""",
    pack.UUID,
)
JOURNAL = Statement("SELECT frames FROM journal WHERE invocation = $1::uuid ORDER BY first", pack.UUID)
IS_DONE = Statement("SELECT FROM done WHERE id = $1::uuid", pack.UUID)

# A timer that would find nobody: a delayed send's, or that of a next attempt. One that is locked is being fired, by
# somebody who then waits for the invocation's row.
DISARM = Statement(
    """
DELETE FROM timer WHERE (due, invocation, slot) IN (
    SELECT timer.due, timer.invocation, timer.slot
    FROM invocation JOIN timer ON timer.due = invocation.due_at AND timer.invocation = invocation.id AND timer.slot < 0
    WHERE invocation.id = $1::uuid FOR UPDATE OF timer SKIP LOCKED
)
""",
    pack.UUID,
)

# A key without a living holder goes on with the next in its inbox, or to rest.
PASS_ON_KEY = Statement(
    """
WITH next AS (
    SELECT invocation.queue, invocation.deployment FROM inbox JOIN invocation ON invocation.id = inbox.invocation
    WHERE inbox.service = $1::text AND inbox.key = $2::text ORDER BY position LIMIT 1
), rests AS (
    DELETE FROM object_key WHERE service = $1::text AND key = $2::text AND NOT EXISTS (SELECT FROM next)
)
INSERT INTO ready (queue, service, key, deployment) SELECT queue, $1::text, $2::text, deployment FROM next
""",
    pack.TEXT,
    pack.TEXT,
)


class Told(Struct):
    """What came of a verb, and whom to hint at: (engine, mail) for every invocation that somebody drives."""

    verdict: Verdict
    hints: list[tuple[bytes, Mail]] = []
    queued: bool = False
    """Something was put in the queue."""


async def tell(link: Link, id: bytes, verb: Verb, act: Act | None = None) -> Told:
    """Cancel or kill an invocation; killed, its unfinished calls go the same way.

    `act` says who asked for it; None: the handler of a parent did.
    """
    told = Told(Verdict.UNKNOWN)
    verdict, children = await _tell(link, id, verb, told, act)
    told.verdict = verdict
    while children:
        _, grandchildren = await _tell(link, children.pop(), Verb.KILL, told, None)
        children += grandchildren
    return told


async def _tell(link: Link, id: bytes, verb: Verb, told: Told, act: Act | None) -> tuple[Verdict, list[bytes]]:
    """The verdict, and the calls that are to be killed next."""
    for attempt in range(1, TRIES + 1):
        try:
            return await _try_to_tell(link, id, verb, told, act)
        except DatabaseError as error:
            if not (error.is_transient or error.is_lock_timeout) or attempt == TRIES:
                raise
    raise AssertionError("unreachable")


async def _try_to_tell(link: Link, id: bytes, verb: Verb, told: Told, act: Act | None) -> tuple[Verdict, list[bytes]]:
    """One transaction."""
    found: dict[str, Any] = {}
    looking = Pipeline()
    looking.begin()
    looking.call(LOCK_ONCE, id)
    looking.call(LOCK_KEY, id, read=lambda result: found.update(key=rows(result)))
    looking.call(LOCK_INVOCATION, id, read=lambda result: found.update(row=rows(result)))
    looking.call(PLACE, id, read=lambda result: found.update(place=rows(result)))
    looking.call(JOURNAL, id, read=lambda result: found.update(frames=b"".join(row[0] for row in rows(result))))
    looking.call(IS_DONE, id, read=lambda result: found.update(is_done=result.ntuples > 0))
    acting = Pipeline()
    calls: list[bytes] = []
    hints: list[tuple[bytes, Mail]] = []
    queued = False
    async with whole(link):
        await link.run(looking)
        if not found["row"]:
            verdict = Verdict.ALREADY_ENDED if found["is_done"] else Verdict.UNKNOWN
        else:
            *columns, owner = found["row"][0]
            loaded = claim.from_row(columns, pack.integer(found["place"][0][0]) if found["place"] else None)
            loaded.frames = found["frames"]
            if loaded.position is not None:  # one that is not yet due has no part in its key
                if not found["key"]:
                    raise DatabaseError("40001", "the invocation came to its key meanwhile")
                owner = found["key"][0][0]
            if owner is None and _acts_here(loaded, verb):
                verdict = Verdict.DONE
                calls = _end(acting, loaded, verb, is_head=loaded.status is not Status.PENDING)
                queued = True
            else:
                verdict = Verdict.ASKED
                letter = Mail(id, SLOT[verb])
                mail.tell(acting, [letter])
                if owner is None:
                    queued = True
                else:
                    hints.append((owner, letter))
        audit.note(acting, act, verdict)
        acting.commit()
        await link.run(acting)
    told.hints += hints
    told.queued |= queued
    return verdict, calls


def _acts_here(loaded: claim.Loaded, verb: Verb) -> bool:
    """Kill needs no handler; cancel asks one that has started, so that it may compensate."""
    return verb is Verb.KILL or (
        not loaded.frames and loaded.status in (Status.SCHEDULED, Status.PENDING, Status.READY)
    )


def _end(pipeline: Pipeline, loaded: claim.Loaded, verb: Verb, *, is_head: bool) -> list[bytes]:
    """End it here: to history, out of the inbox, its caller told. Returns its unfinished calls, told by mail to end.

    The mail is for the case that this process dies before it comes to them.
    """
    invocation = loaded.invocation
    changes = Changes(invocation, first=1)
    calls: list[bytes] = []
    if loaded.frames:
        entries = decode(loaded.frames)
        changes.first = 1 + len(entries)
        calls = unfinished_calls(entries) if verb is Verb.KILL else []
        changes.mails += [Mail(callee, slots.KILL) for callee in calls]
    killed = verb is Verb.KILL
    outcome = Outcome.KILLED if killed else Outcome.CANCELLED
    failure = Failure(409, "killed" if killed else "cancelled")
    complete(invocation, changes, outcome, Output(failure), DAY, loaded.position)
    assert isinstance(changes.ending, Completed)
    ended = [(changes, changes.ending)]
    finish.expire_idempotency(pipeline, ended)
    mail.lock(pipeline, sorted(letter.target for letter in changes.mails))
    mail.tell(pipeline, changes.mails)
    pipeline.call(DISARM, invocation.id)
    finish.finish(pipeline, ended, None)
    if loaded.position is not None and is_head:
        pipeline.call(PASS_ON_KEY, invocation.service.encode(), (invocation.key or "").encode())
    return calls


def unfinished_calls(entries: list[Any]) -> list[bytes]:
    """The callees whose results a journal still awaits."""
    ids: dict[int, bytes] = {}
    settled: set[int] = set()
    for entry in entries:
        if isinstance(entry, CallInvocationIdCompletion) and isinstance(entry.result, InvocationRef):
            ids[entry.completion_id] = parse_id(entry.result.invocation_id)
        elif isinstance(entry, Completion):
            settled.add(entry.completion_id)
    return [
        ids[entry.invocation_id_notification_idx]
        for entry in entries
        if isinstance(entry, Call) and entry.result_completion_id not in settled
    ]
