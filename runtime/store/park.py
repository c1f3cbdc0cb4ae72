"""Out of memory for now: suspended, backing off, paused, or handed back. Its key goes with it and keeps its place.

Lock, then look, in two statements: the row is locked already when this looks for mail. One that must hear of
something first is not parked, and its engine tries again.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.changes import Changes, Parked
from runtime.store import pack
from runtime.store.link import Pipeline, Reader, Statement

PARK = Statement(
    """
WITH parking AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::int[], $6::int[], $7::text[],
                         $8::text[], $9::int[], $11::bytea[])
        AS parking (id, status, waits, due, retries, stuck, failure, deployment, crashes, awaited)
), parked AS (
    UPDATE invocation SET status = parking.status, owner = NULL, waits = parking.waits::int[], due_at = parking.due,
        awaited = parking.awaited,
        retries = parking.retries, stuck = parking.stuck, crashes = parking.crashes, modified_at = now(),
        stuck_since = CASE WHEN parking.stuck > 1 THEN invocation.stuck_since WHEN parking.stuck = 1 THEN now() END,
        failure = coalesce(parking.failure::jsonb, invocation.failure),
        failed_attempts = invocation.failed_attempts + (parking.failure IS NOT NULL)::int,
        deployment = coalesce(parking.deployment, invocation.deployment),
        begun_at = coalesce(invocation.begun_at, CASE WHEN parking.deployment IS NOT NULL THEN now() END)
    FROM parking
    WHERE invocation.id = parking.id AND NOT EXISTS (
        SELECT FROM mail WHERE mail.target = parking.id AND (
            parking.status = 'suspended' OR mail.slot IN (-3, -4) OR parking.status = 'backing-off' AND mail.slot = -5
        )
    )
    RETURNING invocation.id, invocation.status, invocation.due_at, invocation.deployment, mode, queue, service, key
), unclaimed AS (
    DELETE FROM claimed WHERE engine = $10::uuid AND invocation = ANY (ARRAY(SELECT id FROM parked))
), freed AS (
    UPDATE object_key SET owner = NULL FROM parked
    WHERE parked.mode = 'exclusive' AND object_key.service = parked.service AND object_key.key = parked.key
), armed AS (
    INSERT INTO timer (due, invocation, slot) SELECT due_at, id, -2 FROM parked WHERE status = 'backing-off'
), queued AS (
    INSERT INTO ready (queue, invocation, service, key, deployment)
    SELECT queue, CASE WHEN mode <> 'exclusive' THEN id END, service, CASE WHEN mode = 'exclusive' THEN key END,
           deployment
    FROM parked WHERE status = 'ready'
)
SELECT id FROM parked
""",
    pack.UUIDS, pack.TEXTS, pack.TEXTS, pack.TIMESTAMPTZS, pack.INT4S, pack.INT4S, pack.TEXTS, pack.TEXTS,
    pack.INT4S, pack.UUID, pack.BYTEAS,
)  # fmt: skip


def park(pipeline: Pipeline, parking: Sequence[tuple[Changes, Parked]], engine: bytes | None, read: Reader) -> None:
    """Park what may be parked; reads the ids of those that were."""
    if parking:
        pipeline.call(
            PARK,
            pack.uuids([change.invocation.id for change, _ in parking]),
            pack.texts([parked.status for _, parked in parking]),
            pack.texts([f"{{{','.join(map(str, parked.waits))}}}" for _, parked in parking]),
            pack.times([parked.due for _, parked in parking]),
            pack.int4s([parked.retries for _, parked in parking]),
            pack.int4s([parked.stuck for _, parked in parking]),
            pack.texts([parked.failure for _, parked in parking]),
            pack.texts([change.begun for change, _ in parking]),
            pack.int4s([parked.crashes for _, parked in parking]),
            engine,
            pack.byteas([parked.awaited for _, parked in parking]) if any(p.awaited for _, p in parking) else None,
            read=read,
        )
