"""The end: an invocation moves to history, its place in the inbox is freed, its callers are told."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.changes import Changes, Completed, Stillborn
from runtime.store import pack
from runtime.store.link import Pipeline, Reader, Statement, ignore

# While it is remembered, its idempotency key answers; counted from its end.
EXPIRE_KEYS = Statement(
    """
WITH held AS (SELECT invocation FROM idempotency WHERE invocation = ANY ($1::uuid[]) ORDER BY 1 FOR NO KEY UPDATE)
UPDATE idempotency SET expires_at = now() + ended.retention * interval '1 second'
FROM held JOIN unnest($1::uuid[], $2::int[]) AS ended (invocation, retention) USING (invocation)
WHERE idempotency.invocation = held.invocation
""",
    pack.UUIDS,
    pack.INT4S,
)

# The rows are locked already. Fewer of them than expected means that another writer was here: nothing is kept.
# How many attempts failed comes along at no price: 60 pairs of 400 ends with and without it, median ratio 1.004.
FINISH = Statement(
    """
WITH ended AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[], $5::int[], $6::text[], $7::int[],
                         $8::text[], $11::bool[], $12::bool[])
        AS ended (id, outcome, result, frames, entries, deployment, retention, failure, is_first_word, gave_up)
), gone AS (
    DELETE FROM invocation USING ended WHERE invocation.id = ended.id
        AND (ended.is_first_word IS NOT TRUE  -- or as claim.UNTOUCHED has it
             OR invocation.owner = $9::uuid AND invocation.modified_at = invocation.created_at)
    RETURNING invocation.*
), unclaimed AS (
    DELETE FROM claimed WHERE engine = $9::uuid AND invocation = ANY ($1::uuid[])
), unread AS (
    DELETE FROM mail USING ended WHERE mail.target = ended.id
), kept AS (
    INSERT INTO done (id, expires_on, created_at, expires_at, outcome, service, handler, key, mode, deployment,
                      caller, idempotency_key, input, entries, frames, result, failure, failed_attempts)
    SELECT gone.id, (now() + ended.retention * interval '1 second')::date, gone.created_at,
           now() + ended.retention * interval '1 second', ended.outcome, gone.service, gone.handler, gone.key,
           gone.mode, coalesce(ended.deployment, gone.deployment), gone.caller, gone.idempotency_key, gone.input,
           ended.entries, ended.frames, ended.result, coalesce(ended.failure::jsonb, gone.failure),
           gone.failed_attempts + (ended.gave_up IS TRUE)::int
    FROM gone JOIN ended ON ended.id = gone.id
    RETURNING 1
)
SELECT expect('finish', (SELECT count(*) FROM kept), $10::bigint)
""",
    pack.UUIDS, pack.TEXTS, pack.BYTEAS, pack.BYTEAS, pack.INT4S, pack.TEXTS, pack.INT4S, pack.TEXTS,
    pack.UUID, pack.INT8, pack.BOOLS, pack.BOOLS,
)  # fmt: skip

# Only the lease's owner takes from an inbox; a row that is not there was run by somebody else.
LEAVE = Statement(
    """
WITH gone AS (
    DELETE FROM inbox USING unnest($1::text[], $2::text[], $3::bigint[]) AS left_ (service, key, position)
    WHERE inbox.service = left_.service AND inbox.key = left_.key AND inbox.position = left_.position
    RETURNING 1
)
SELECT expect('inbox', (SELECT count(*) FROM gone), $4::bigint)
""",
    pack.TEXTS,
    pack.TEXTS,
    pack.INT8S,
    pack.INT8,
)

# Whoever awaits one of these without having called it.
ANSWER_WAITERS = Statement(
    "SELECT caller, completion, result, engine FROM answer_waiters($1::uuid[], $2::bytea[])", pack.UUIDS, pack.BYTEAS
)


# Straight to history, without ever having been under way. An idempotency key that it has claimed expires at once, so
# that a better message may have it; one that somebody else's message has, has been answered by that.
BURY = Statement(
    """
WITH kept AS (
    INSERT INTO done (id, expires_on, created_at, expires_at, outcome, service, handler, key, mode, idempotency_key,
                      input, entries, frames, result, failure)
    SELECT new.id, (now() + new.retention * interval '1 second')::date, now(),
           now() + new.retention * interval '1 second', new.outcome, new.service, new.handler, new.key, new.mode,
           new.idempotency_key, new.input, 1, '', new.result, new.failure::jsonb
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::uuid[],
                $9::text[], $10::bytea[], $11::int[], $12::text[])
        AS new (id, service, handler, key, mode, idempotency_key, input, token, outcome, result, retention, failure)
    LEFT JOIN idempotency ON idempotency.invocation = new.id
    WHERE new.token IS NULL OR idempotency.token = new.token
    RETURNING id
)
UPDATE idempotency SET expires_at = now() FROM kept WHERE idempotency.invocation = kept.id
""",
    pack.UUIDS, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.BYTEAS, pack.UUIDS,
    pack.TEXTS, pack.BYTEAS, pack.INT4S, pack.TEXTS,
)  # fmt: skip


def expire_idempotency(pipeline: Pipeline, ended: Sequence[tuple[Changes, Completed]]) -> None:
    once = [(change, end) for change, end in ended if change.invocation.idempotency_key is not None]
    if once:
        pipeline.call(
            EXPIRE_KEYS,
            pack.uuids([change.invocation.id for change, _ in once]),
            pack.int4s([end.retention for _, end in once]),
        )


def finish(
    pipeline: Pipeline, ended: Sequence[tuple[Changes, Completed]], engine: bytes | None, read: Reader = ignore
) -> None:
    """Move what has ended to history; reads (target, slot, frame, engine) of the mail to those who awaited it."""
    if not ended:
        return
    pipeline.call(
        FINISH,
        pack.uuids([change.invocation.id for change, _ in ended]),
        pack.texts([end.outcome for _, end in ended]),
        pack.byteas([end.result for _, end in ended]),
        pack.byteas([b"".join(change.frames) for change, _ in ended]),
        pack.int4s([change.first + len(change.frames) + 1 for change, _ in ended]),
        pack.texts([change.begun for change, _ in ended]),
        pack.int4s([end.retention for _, end in ended]),
        pack.texts([end.failure for _, end in ended]) if any(end.failure for _, end in ended) else None,
        engine,
        pack.int8(len(ended)),
        pack.bools([change.is_first_word for change, _ in ended]) if any(c.is_first_word for c, _ in ended) else None,
        pack.bools([end.gave_up for _, end in ended]) if any(end.gave_up for _, end in ended) else None,
    )
    placed = [(change.invocation, end.position) for change, end in ended if end.position is not None]
    if placed:
        pipeline.call(
            LEAVE,
            pack.texts([invocation.service for invocation, _ in placed]),
            pack.texts([invocation.key for invocation, _ in placed]),
            pack.int8s([position for _, position in placed]),
            pack.int8(len(placed)),
        )
    ids = pack.uuids([change.invocation.id for change, _ in ended])
    pipeline.call(ANSWER_WAITERS, ids, pack.byteas([end.result for _, end in ended]), read=read)


def bury(pipeline: Pipeline, stillborn: Sequence[Stillborn]) -> None:
    """Keep what never lived; its idempotency keys are claimed already."""
    if not stillborn:
        return
    news = [one.creation.invocation for one in stillborn]
    pipeline.call(
        BURY,
        pack.uuids([new.id for new in news]),
        pack.texts([new.service for new in news]),
        pack.texts([new.handler for new in news]),
        pack.texts([new.key for new in news]),
        pack.texts([new.mode for new in news]),
        pack.texts([new.idempotency_key for new in news]),
        pack.byteas([new.input for new in news]),
        pack.uuids([one.creation.token for one in stillborn]),
        pack.texts([one.end.outcome for one in stillborn]),
        pack.byteas([one.end.result for one in stillborn]),
        pack.int4s([one.end.retention for one in stillborn]),
        pack.texts([one.end.failure for one in stillborn]),
    )
