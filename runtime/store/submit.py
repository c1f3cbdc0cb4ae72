"""Birth: invocations are created, put into their key's inbox, given to an engine, queued or scheduled.

Idempotency rows come first and keys second (the lock order), then all rows of a birth in one statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.core.changes import Creation
from runtime.core.invocation import Mode, Status
from runtime.core.lifecycle import RUN_BEFORE
from runtime.store import pack
from runtime.store.claim import Key
from runtime.store.link import Pipeline, Reader, Statement, rows

# The first submission of an idempotency key wins; which one that was is read by the next statements, whose
# snapshots see a winner that this one waited for. An expired key starts anew.
CLAIM_KEYS = Statement(
    """
INSERT INTO idempotency (invocation, token, service, key)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS wanted (invocation, token, service, key)
ORDER BY invocation
ON CONFLICT (invocation) DO UPDATE SET token = excluded.token, expires_at = NULL, is_again = true
WHERE idempotency.expires_at < now()
""",
    pack.UUIDS,
    pack.UUIDS,
    pack.TEXTS,
    pack.TEXTS,
)

# What an expired predecessor of the same id left behind.
FORGET_EXPIRED = Statement(
    """
WITH fresh AS (
    SELECT wanted.invocation FROM unnest($1::uuid[], $2::uuid[]) AS wanted (invocation, token)
    JOIN idempotency USING (invocation, token)
), journals AS (
    DELETE FROM journal USING fresh WHERE journal.invocation = fresh.invocation
)
DELETE FROM done USING fresh WHERE done.id = fresh.invocation
""",
    pack.UUIDS,
    pack.UUIDS,
)

# The promises of a workflow's run that is over. Its values go when the new one begins: its engine may have them.
FORGET_PROMISES = Statement(
    """
WITH again AS (
    SELECT known.service, known.key FROM unnest($1::uuid[], $2::uuid[]) AS wanted (invocation, token),
    LATERAL (SELECT * FROM idempotency WHERE idempotency.invocation = wanted.invocation OFFSET 0) AS known
    WHERE known.token = wanted.token AND known.is_again
)
DELETE FROM promise USING again WHERE promise.service = again.service AND promise.key = again.key
""",
    pack.UUIDS,
    pack.UUIDS,
)

# Locks each key's row, or makes it. A new key goes to the proposed engine; without one, a ready row will find it.
# DO UPDATE, for DO NOTHING does not wait for whoever is about to free the key, and leaves it asleep.
ENTER = Statement(
    """
WITH held AS (
    INSERT INTO object_key (service, key, queue, owner)
    SELECT service, key, queue, owner
    FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[]) AS wanted (service, key, queue, owner)
    ORDER BY service, key
    ON CONFLICT (service, key) DO UPDATE SET queue = object_key.queue
    RETURNING service, key, queue, owner, xmax = 0 AS is_new
), queued AS (
    INSERT INTO ready (queue, service, key) SELECT queue, service, key FROM held WHERE is_new AND owner IS NULL
)
SELECT service, key, owner FROM held
""",
    pack.TEXTS,
    pack.TEXTS,
    pack.TEXTS,
    pack.UUIDS,
)

_BIRTH = """
WITH born AS (
    INSERT INTO invocation (id, service, handler, key, mode, queue, deployment, caller, caller_completion,
                            input, idempotency_key, owner, status, due_at)
    SELECT new.id, new.service, new.handler, new.key, new.mode, new.queue, new.deployment, new.caller,
           new.caller_completion, new.input, new.idempotency_key, new.owner, new.status, new.due_at
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[],
                $9::int[], $10::bytea[], $11::text[], $12::uuid[], $13::text[], $14::timestamptz[], $15::uuid[])
         WITH ORDINALITY
         AS new (id, service, handler, key, mode, queue, deployment, caller, caller_completion, input,
                 idempotency_key, owner, status, due_at, token, nth)
    {condition}
    ORDER BY new.nth
    RETURNING id, service, handler, key, queue, owner, status, due_at
), owned AS (
    INSERT INTO claimed (engine, invocation) SELECT owner, id FROM born WHERE owner IS NOT NULL
), entered AS (
    INSERT INTO inbox (service, key, position, invocation)
    SELECT service, key, nextval('inbox_position'), id FROM born WHERE status = 'pending'
), queued AS (
    INSERT INTO ready (queue, invocation, service) SELECT queue, id, service FROM born WHERE status = 'ready'
), armed AS (
    INSERT INTO timer (due, invocation, slot, position, service, handler, key)
    SELECT due_at, id, -1, nextval('timer_position'), service, handler, key FROM born WHERE status = 'scheduled'
)
SELECT id FROM born WHERE {reported}
"""
_TYPES = (
    pack.UUIDS, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.UUIDS,
    pack.INT4S, pack.BYTEAS, pack.TEXTS, pack.UUIDS, pack.TEXTS, pack.TIMESTAMPTZS, pack.UUIDS,
)  # fmt: skip

# Inbox positions are drawn here, in order of sending, while the keys' rows are locked.
CREATE = Statement(_BIRTH.format(condition="", reported="false"), *_TYPES)

# The same where some may exist already: those whose token lost are left out, with all that would follow.
CREATE_ONCE = Statement(
    _BIRTH.format(
        condition="""LEFT JOIN idempotency ON idempotency.invocation = new.id
    WHERE new.token IS NULL OR idempotency.token = new.token""",
        reported="true",
    ),
    *_TYPES,
)

# A caller that came second awaits the first one's result, or, of a workflow's run, is refused. The first is locked
# already, so that its end must wait.
ATTACH = Statement(
    """
WITH second AS (
    SELECT wanted.* FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bytea[])
        AS wanted (invocation, token, caller, completion, refusal)
    JOIN idempotency ON idempotency.invocation = wanted.invocation AND idempotency.token <> wanted.token
), waiting AS (
    INSERT INTO waiter (invocation, caller, completion)
    SELECT second.invocation, second.caller, second.completion
    FROM second JOIN invocation ON invocation.id = second.invocation
    WHERE second.refusal IS NULL
    RETURNING invocation
)
INSERT INTO mail (target, slot, frame)
SELECT caller, completion, refusal FROM second WHERE refusal IS NOT NULL
UNION ALL
SELECT second.caller, second.completion, done.result FROM second JOIN done ON done.id = second.invocation
WHERE second.refusal IS NULL
""",
    pack.UUIDS,
    pack.UUIDS,
    pack.UUIDS,
    pack.INT4S,
    pack.BYTEAS,
)


def claim_idempotency(pipeline: Pipeline, creations: Sequence[Creation]) -> None:
    # Of one key's submissions in one flush the first is the first: an upsert takes no key twice (T4).
    once: dict[bytes, Creation] = {}
    for creation in creations:
        if creation.token is not None:
            once.setdefault(creation.invocation.id, creation)
    if once:
        ids, tokens = pack.uuids(list(once)), pack.uuids([creation.token for creation in once.values()])
        runs = [(one.invocation.service, one.invocation.key) if one.is_run else (None, None) for one in once.values()]
        are_runs = any(one.is_run for one in once.values())
        pipeline.call(
            CLAIM_KEYS,
            ids,
            tokens,
            pack.texts([service for service, _ in runs]) if are_runs else None,
            pack.texts([key for _, key in runs]) if are_runs else None,
        )
        pipeline.call(FORGET_EXPIRED, ids, tokens)
        if are_runs:
            pipeline.call(FORGET_PROMISES, ids, tokens)


def entered(creations: Sequence[Creation]) -> dict[Key, tuple[str, bytes | None]]:
    """The keys into whose inbox something comes now, each with its queue and the engine that is proposed for it."""
    keys: dict[Key, tuple[str, bytes | None]] = {}
    for creation in creations:
        new = creation.invocation
        if new.mode is Mode.EXCLUSIVE and not creation.due:
            keys.setdefault((new.service, new.key or ""), (new.queue, creation.owner))
    return keys


def enter(pipeline: Pipeline, keys: Mapping[Key, tuple[str, bytes | None]], read: Reader) -> None:
    """Lock those keys, or make them; reads (service, key, engine that leases it)."""
    if keys:
        pipeline.call(
            ENTER,
            pack.texts([service for service, _ in keys]),
            pack.texts([key for _, key in keys]),
            pack.texts([queue for queue, _ in keys.values()]),
            pack.uuids([owner for _, owner in keys.values()]),
            read=read,
        )


def create(pipeline: Pipeline, creations: Sequence[Creation], created: set[bytes]) -> None:
    """Make all rows of these births; adds the ids that are created (idempotent repetitions are not)."""
    news = [creation.invocation for creation in creations]
    statuses = [status_at_birth(creation) for creation in creations]
    once = any(creation.token is not None for creation in creations)
    if not once:
        created.update([new.id for new in news])
    called = any(new.caller is not None for new in news)
    pipeline.call(
        CREATE_ONCE if once else CREATE,
        pack.uuids([new.id for new in news]),
        pack.texts([new.service for new in news]),
        pack.texts([new.handler for new in news]),
        pack.texts([new.key for new in news]),
        pack.texts([new.mode for new in news]),
        pack.texts([new.queue for new in news]),
        pack.texts([new.deployment for new in news]),
        pack.uuids([new.caller for new in news]) if called else None,
        pack.int4s([new.caller_completion for new in news]) if called else None,
        pack.byteas([new.input for new in news]),
        pack.texts([new.idempotency_key for new in news]) if once else None,
        pack.uuids(
            [
                creation.owner if status is Status.RUNNING else None
                for creation, status in zip(creations, statuses, strict=True)
            ]
        ),
        pack.texts(statuses),
        pack.times([creation.due for creation in creations]),
        pack.uuids([creation.token for creation in creations]) if once else None,
        read=lambda result: created.update(row[0] for row in rows(result)),
    )


def attach_repetitions(pipeline: Pipeline, creations: Sequence[Creation]) -> None:
    """Callers whose idempotency key was there already become waiters of the first, or get its result as mail; of a
    workflow's run they are told that it was."""
    awaited = awaiting(creations)
    if awaited:
        pipeline.call(
            ATTACH,
            pack.uuids([creation.invocation.id for creation in awaited]),
            pack.uuids([creation.token for creation in awaited]),
            pack.uuids([creation.invocation.caller for creation in awaited]),
            pack.int4s([creation.invocation.caller_completion for creation in awaited]),
            pack.byteas([RUN_BEFORE if creation.is_run else None for creation in awaited]),
        )


def awaiting(creations: Sequence[Creation]) -> list[Creation]:
    """Those that may turn out to be there already, and whose result is awaited."""
    return [creation for creation in creations if creation.token and creation.invocation.caller]


def status_at_birth(creation: Creation) -> Status:
    if creation.due:
        return Status.SCHEDULED
    if creation.invocation.mode is Mode.EXCLUSIVE:
        return Status.PENDING
    return Status.READY if creation.owner is None else Status.RUNNING
