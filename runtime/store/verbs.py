"""Verbs on invocations from anyone but their owner: cancel, kill and pause.

The rows are locked, then looked at. What a living engine drives is told by mail; anything else is acted on here, in
every status and without its code. An owner that died is a matter for its rescuer, who keeps the mail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from msgspec import Struct, field

from perdure.protocol.codec import decode
from perdure.protocol.ids import parse_id
from perdure.protocol.messages import Call, CallInvocationIdCompletion, Completion, Failure, InvocationRef, Output
from runtime.core import slots
from runtime.core.changes import Changes, Completed, Mail
from runtime.core.invocation import Outcome, Status
from runtime.core.lifecycle import complete
from runtime.core.registry import DAY
from runtime.errors import DatabaseError
from runtime.store import claim, finish, mail, pack
from runtime.store.audit import Note
from runtime.store.claim import Loaded
from runtime.store.link import Link, Pipeline, Statement, rows, whole

T = TypeVar("T")


class Verdict(StrEnum):
    """What came of a verb."""

    DONE = "done"  # it has ended
    PAUSED = "paused"
    ASKED = "asked"  # whoever drives it, or will drive it next, has been told
    ALREADY_PAUSED = "already_paused"
    NOT_STARTED = "not_started"  # there is nothing yet that could be paused
    ALREADY_ENDED = "already_ended"
    UNKNOWN = "unknown"


class Verb(StrEnum):
    CANCEL = "cancel"
    KILL = "kill"
    PAUSE = "pause"


SLOT = {Verb.CANCEL: slots.CANCEL, Verb.KILL: slots.KILL, Verb.PAUSE: slots.PAUSE}

TRIES = 5
"""How often a verb that met a deadlock is tried."""

LOCK_ONCE = Statement(
    "SELECT FROM idempotency WHERE invocation = ANY ($1::uuid[]) ORDER BY invocation FOR NO KEY UPDATE", pack.UUIDS
)
LOCK_KEYS = Statement(
    """
SELECT invocation.id, object_key.owner FROM object_key JOIN invocation ON invocation.id = ANY ($1::uuid[])
    AND invocation.mode = 'exclusive' AND object_key.service = invocation.service AND object_key.key = invocation.key
ORDER BY object_key.service, object_key.key FOR UPDATE OF object_key
""",
    pack.UUIDS,
)
# With those who await their results, all in one order.
LOCK_INVOCATIONS = Statement(
    """
SELECT FROM invocation WHERE id = ANY (ARRAY(
    SELECT unnest($1::uuid[]) UNION ALL SELECT caller FROM invocation WHERE id = ANY ($1::uuid[])
)) ORDER BY id FOR NO KEY UPDATE
""",
    pack.UUIDS,
)
FOUND = Statement(f"SELECT {claim.COLUMNS}, invocation.owner FROM invocation WHERE id = ANY ($1::uuid[])", pack.UUIDS)
# Looked for when the keys are locked, in a snapshot of its own: they may have come meanwhile. Each inbox is read once,
# however many of it are asked for.
PLACES = Statement(
    """
WITH keys AS (
    SELECT DISTINCT service, key FROM invocation WHERE id = ANY ($1::uuid[]) AND mode = 'exclusive'
), inboxes AS (
    SELECT letter.invocation, letter.position, row_number() OVER in_order = 1 AS is_head
    FROM keys, LATERAL (
        SELECT * FROM inbox WHERE inbox.service = keys.service AND inbox.key = keys.key OFFSET 0
    ) AS letter
    WINDOW in_order AS (PARTITION BY letter.service, letter.key ORDER BY letter.position)
)
SELECT inboxes.* FROM inboxes JOIN unnest($1::uuid[]) AS wanted (id) ON wanted.id = inboxes.invocation
""",
    pack.UUIDS,
)
HAVE_JOURNALS = Statement(
    """
SELECT wanted.id FROM unnest($1::uuid[]) AS wanted (id)
WHERE EXISTS (SELECT FROM journal WHERE journal.invocation = wanted.id)
""",
    pack.UUIDS,
)
JOURNALS = Statement(
    "SELECT invocation, frames FROM journal WHERE invocation = ANY ($1::uuid[]) ORDER BY invocation, first", pack.UUIDS
)
HAVE_MAIL = Statement(
    "SELECT target FROM mail WHERE target = ANY ($1::uuid[]) AND slot = $2::int", pack.UUIDS, pack.INT4
)
ARE_DONE = Statement("SELECT id FROM done WHERE id = ANY ($1::uuid[])", pack.UUIDS)

# Timers that would find nobody: a delayed send's, or that of a next attempt. One that is locked is being fired, by
# somebody who then waits for the invocation's row.
DISARM = Statement(
    """
DELETE FROM timer WHERE (due, invocation, slot) IN (
    SELECT timer.due, timer.invocation, timer.slot
    FROM invocation JOIN timer ON timer.due = invocation.due_at AND timer.invocation = invocation.id AND timer.slot < 0
    WHERE invocation.id = ANY ($1::uuid[]) FOR UPDATE OF timer SKIP LOCKED
)
""",
    pack.UUIDS,
)

# What comes for it meanwhile stays in the mail, and does not wake it. A row of the queue that still names it finds it
# asleep, and is gone.
PAUSE = Statement(
    """
UPDATE invocation SET status = 'paused', waits = NULL, due_at = NULL, modified_at = now()
WHERE id = ANY ($1::uuid[]) AND status IN ('ready', 'suspended', 'backing-off')
""",
    pack.UUIDS,
)

# Keys without a living holder go on with the next in their inboxes, or to rest.
PASS_ON_KEYS = Statement(
    """
WITH freed AS (
    SELECT * FROM unnest($1::text[], $2::text[]) AS freed (service, key)
), next AS (
    SELECT freed.service, freed.key, head.queue, head.deployment
    FROM freed, LATERAL (
        SELECT invocation.queue, invocation.deployment FROM inbox JOIN invocation ON invocation.id = inbox.invocation
        WHERE inbox.service = freed.service AND inbox.key = freed.key ORDER BY inbox.position LIMIT 1
    ) AS head
), rest AS (
    DELETE FROM object_key USING freed
    WHERE object_key.service = freed.service AND object_key.key = freed.key
        AND NOT EXISTS (SELECT FROM next WHERE next.service = freed.service AND next.key = freed.key)
)
INSERT INTO ready (queue, service, key, deployment) SELECT queue, service, key, deployment FROM next
""",
    pack.TEXTS,
    pack.TEXTS,
)


class Told(Struct):
    """What came of a verb, and whom to hint at: (engine, mail) for every invocation that somebody drives."""

    verdicts: dict[bytes, Verdict] = field(default_factory=dict)
    hints: list[tuple[bytes, Mail]] = field(default_factory=list)
    queued: bool = False
    """Something was put in the queue."""


class Standing(Struct):
    """How it stands with an invocation, behind its locks."""

    loaded: Loaded
    owner: bytes | None
    """The engine that drives it, or leases its key."""
    has_journal: bool = False
    is_head: bool = False
    """Nobody is before it in its key's inbox."""


async def tell(link: Link, ids: Collection[bytes], verb: Verb, note: Note | None = None) -> Told:
    """Cancel, kill or pause invocations, all in one transaction; the unfinished calls of those killed go with them.

    Without a note nobody asks for it now: it is in their mail, for a handler asked, or their caller was killed. It is
    not sent once more: who has none there has heard it meanwhile, or is not meant, having been there before the caller.
    """
    told = Told()
    children = await _tell(link, sorted({*ids}), verb, told, note)
    verdicts = told.verdicts
    while children:
        told.verdicts = {}
        children = await _tell(link, sorted({*children}), Verb.KILL, told, None)
    told.verdicts = verdicts
    return told


async def _tell(link: Link, ids: Sequence[bytes], verb: Verb, told: Told, note: Note | None) -> list[bytes]:
    """Answers the calls that are to be killed next."""
    return await tried(lambda: _try_to_tell(link, ids, verb, told, note))


async def tried(work: Callable[[], Awaitable[T]]) -> T:
    """Do it, and once more when it met somebody else's locks."""
    for attempt in range(1, TRIES + 1):
        try:
            return await work()
        except DatabaseError as error:
            if not (error.is_transient or error.is_lock_timeout) or attempt == TRIES:
                raise
    raise AssertionError("unreachable")


async def _try_to_tell(link: Link, ids: Sequence[bytes], verb: Verb, told: Told, note: Note | None) -> list[bytes]:
    """One transaction."""
    packed = pack.uuids(ids)
    looking = Pipeline()
    looking.begin()
    standings, ended = _look(looking, packed)
    acting = Pipeline()
    journals: dict[bytes, bytes] = {}
    async with whole(link):
        await link.run(looking)
        if note is None:
            standings = await _keep_those_with_mail(link, standings, SLOT[verb])
        verdicts = {id: Verdict.ALREADY_ENDED if id in ended else Verdict.UNKNOWN for id in ids}
        verdicts |= {id: judge(verb, standing) for id, standing in standings.items()}
        concerned = {
            verdict: [one for id, one in standings.items() if verdicts[id] is verdict]
            for verdict in (Verdict.DONE, Verdict.PAUSED, Verdict.ASKED)
        }
        if verb is Verb.KILL:
            await _read_journals(link, [one for one in concerned[Verdict.DONE] if one.has_journal], journals)
        calls = _end(acting, concerned[Verdict.DONE], verb, journals)
        _pause(acting, concerned[Verdict.PAUSED])
        letters = [(one.owner, Mail(one.loaded.invocation.id, SLOT[verb])) for one in concerned[Verdict.ASKED]]
        hints = [(owner, letter) for owner, letter in letters if owner is not None]
        if note is not None:
            mail.tell(acting, [letter for _, letter in letters])
            note(acting, verdicts)
        acting.commit()
        await link.run(acting)
    told.verdicts |= verdicts
    told.hints += hints
    told.queued |= bool(concerned[Verdict.DONE]) or len(hints) < len(concerned[Verdict.ASKED])
    return calls


async def _keep_those_with_mail(link: Link, standings: Mapping[bytes, Standing], slot: int) -> dict[bytes, Standing]:
    have_mail: list[bytes] = []
    pipeline = Pipeline()
    pipeline.call(
        HAVE_MAIL,
        pack.uuids(list(standings)),
        pack.int4(slot),
        read=lambda result: have_mail.extend(row[0] for row in rows(result)),
    )
    await link.run(pipeline)
    return {id: standings[id] for id in have_mail}


def _look(pipeline: Pipeline, ids: bytes) -> tuple[dict[bytes, Standing], set[bytes]]:
    """Lock them, then look: those that are under way, and those that have ended."""
    standings: dict[bytes, Standing] = {}
    ended: set[bytes] = set()
    leases: dict[bytes, bytes | None] = {}

    def read_found(result: Any) -> None:
        for *columns, owner in rows(result):
            loaded = claim.from_row(columns, None)
            standings[loaded.invocation.id] = Standing(loaded, owner)

    def read_places(result: Any) -> None:
        for id, position, is_head in rows(result):
            standing = standings.get(id)
            if standing is None:
                continue
            if id not in leases:
                raise DatabaseError("40001", "an invocation came to its key meanwhile")
            standing.loaded.position = pack.integer(position)
            standing.owner = leases[id]
            standing.is_head = is_head == b"\x01"

    def read_journals(result: Any) -> None:
        for (id,) in rows(result):
            if id in standings:
                standings[id].has_journal = True

    pipeline.call(LOCK_ONCE, ids)
    pipeline.call(LOCK_KEYS, ids, read=lambda result: leases.update(map(tuple, rows(result))))
    pipeline.call(LOCK_INVOCATIONS, ids)
    pipeline.call(FOUND, ids, read=read_found)
    pipeline.call(PLACES, ids, read=read_places)  # one that is not yet due has no part in its key
    pipeline.call(HAVE_JOURNALS, ids, read=read_journals)
    pipeline.call(ARE_DONE, ids, read=lambda result: ended.update(row[0] for row in rows(result)))
    return standings, ended


def judge(verb: Verb, standing: Standing) -> Verdict:
    """What a verb does to an invocation that has not ended.

    Kill needs no handler; cancel asks one that has started, so that it may compensate: one whose engine has died may
    have, without having written a word. Pause takes what has started out of the queue or out of its wait, and asks
    whoever drives it: of one that heads its inbox, and has not begun as far as the database knows, only the engine that
    leases its key can say whether it has.
    """
    status = standing.loaded.status
    has_started = standing.has_journal or standing.loaded.invocation.crashes > 0
    is_unstarted = not has_started and status in (Status.SCHEDULED, Status.PENDING, Status.READY)
    match verb:
        case Verb.KILL:
            return Verdict.DONE if standing.owner is None else Verdict.ASKED
        case Verb.CANCEL:
            return Verdict.DONE if standing.owner is None and is_unstarted else Verdict.ASKED
        case Verb.PAUSE if status is Status.PAUSED:
            return Verdict.ALREADY_PAUSED
        case Verb.PAUSE if status in (Status.SUSPENDED, Status.BACKING_OFF):
            return Verdict.PAUSED
        case Verb.PAUSE if status is Status.SCHEDULED:
            return Verdict.NOT_STARTED
        case Verb.PAUSE if status is Status.PENDING and (standing.owner is None or not standing.is_head):
            return Verdict.NOT_STARTED
        case Verb.PAUSE:
            return Verdict.PAUSED if standing.owner is None else Verdict.ASKED


def _pause(pipeline: Pipeline, pausing: Sequence[Standing]) -> None:
    if pausing:
        ids = pack.uuids([one.loaded.invocation.id for one in pausing])
        pipeline.call(DISARM, ids)
        pipeline.call(PAUSE, ids)


async def _read_journals(link: Link, standings: Sequence[Standing], journals: dict[bytes, bytes]) -> None:
    def read(result: Any) -> None:
        for id, frames in rows(result):
            journals[id] = journals.get(id, b"") + frames

    if standings:
        pipeline = Pipeline()
        pipeline.call(JOURNALS, pack.uuids([one.loaded.invocation.id for one in standings]), read=read)
        await link.run(pipeline)


def _end(pipeline: Pipeline, ending: Sequence[Standing], verb: Verb, journals: Mapping[bytes, bytes]) -> list[bytes]:
    """End them here: to history, out of the inboxes, callers told. Answers unfinished calls, told by mail to end.

    The mail is for the case that this process dies before it comes to them.
    """
    if not ending:
        return []
    killed = verb is Verb.KILL
    outcome = Outcome.KILLED if killed else Outcome.CANCELLED
    failure = Failure(409, "killed" if killed else "cancelled")
    ended: list[tuple[Changes, Completed]] = []
    calls: list[Mail] = []
    for one in ending:
        invocation = one.loaded.invocation
        changes = Changes(invocation, first=1)
        if (frames := journals.get(invocation.id)) is not None:
            entries = decode(frames)
            changes.first = 1 + len(entries)
            calls += [Mail(callee, slots.KILL, caller=invocation.id) for callee in unfinished_calls(entries)]
        complete(invocation, changes, outcome, Output(failure), DAY, one.loaded.position)
        assert isinstance(changes.ending, Completed)
        ended.append((changes, changes.ending))
    mails = [*calls, *(letter for changes, _ in ended for letter in changes.mails)]
    finish.expire_idempotency(pipeline, ended)
    mail.lock(pipeline, sorted({letter.target for letter in mails}))
    mail.tell(pipeline, mails)
    pipeline.call(DISARM, pack.uuids([one.loaded.invocation.id for one in ending]))
    finish.finish(pipeline, ended, None)
    freed = {
        (one.loaded.invocation.service, one.loaded.invocation.key or "")
        for one in ending
        if one.loaded.position is not None and one.loaded.status is not Status.PENDING
    }
    if freed:
        services, keys = zip(*freed, strict=True)
        pipeline.call(PASS_ON_KEYS, pack.texts(services), pack.texts(keys))
    return [letter.target for letter in calls]


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
