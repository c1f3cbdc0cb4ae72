"""Mail, the one way into an invocation: whoever is not its owner leaves a row, the owner gives it a journal index.

The sender locks the target's row, reads who drives it, inserts, and makes a parked target ready. Parking is the
mirror image (lock, then look for mail), so that a message can never be missed by one that falls asleep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.core import slots
from runtime.core.changes import Mail
from runtime.store import pack
from runtime.store.link import Link, Pipeline, Reader, Statement, rows

Letter = tuple[bytes, int, bytes]
"""Target, slot and frame."""

# Every invocation row that this transaction will change or write mail to, in one order for everybody.
LOCK = Statement(
    """
SELECT invocation.id, invocation.status, coalesce(invocation.owner, object_key.owner)
FROM invocation LEFT JOIN object_key
    ON invocation.mode = 'exclusive' AND object_key.service = invocation.service AND object_key.key = invocation.key
WHERE invocation.id = ANY ($1::uuid[])
ORDER BY invocation.id FOR NO KEY UPDATE OF invocation
""",
    pack.UUIDS,
)
LOCK_ONLY = Statement("SELECT FROM invocation WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE", pack.UUIDS)

# What a caller passes on reaches only whom that one has called into being: with an idempotency key its callee may have
# been there already. Cancel and kill reach whoever sleeps; a completion or a signal only one that waits for it. An
# exclusive target wakes with its key, which nobody leases while its holder is parked. A named signal gets its slot
# here, while its target is locked, in the order of sending: runtime.core.slots.
TELL = Statement(
    f"""
WITH meant AS (
    SELECT told.target, told.slot, told.frame
    FROM unnest($1::uuid[], $2::int[], $3::bytea[], $4::uuid[]) WITH ORDINALITY
         AS told (target, slot, frame, caller, nth)
    JOIN invocation ON invocation.id = told.target AND (told.caller IS NULL OR told.caller = invocation.caller)
    ORDER BY told.nth
), sent AS (
    INSERT INTO mail (target, slot, frame)
    SELECT target, CASE WHEN slot = {slots.NAMED} THEN nextval('signal_slot') ELSE slot END, frame FROM meant
    ON CONFLICT (target, slot) DO NOTHING
    RETURNING target, slot
), woken AS (
    UPDATE invocation SET status = 'ready', waits = NULL, due_at = NULL, modified_at = now()
    FROM (
        SELECT target, array_agg(CASE WHEN slot <= {slots.FIRST_NAMED} THEN {slots.NAMED} ELSE slot END) AS slots
        FROM sent GROUP BY target
    ) AS news
    WHERE invocation.id = news.target AND (
        invocation.status = 'suspended' AND invocation.waits && news.slots
        OR invocation.status IN ('suspended', 'backing-off', 'paused')
            AND ARRAY[{slots.CANCEL}, {slots.KILL}] && news.slots
    )
    RETURNING id, mode, queue, service, key, deployment
)
INSERT INTO ready (queue, invocation, service, key, deployment)
SELECT queue, CASE WHEN mode <> 'exclusive' THEN id END, service, CASE WHEN mode = 'exclusive' THEN key END, deployment
FROM woken
""",
    pack.UUIDS,
    pack.INT4S,
    pack.BYTEAS,
    pack.UUIDS,
)

READ = Statement(
    "DELETE FROM mail USING unnest($1::uuid[], $2::int[]) AS heard (target, slot)"
    " WHERE mail.target = heard.target AND mail.slot = heard.slot",
    pack.UUIDS,
    pack.INT4S,
)

# Unread mail for what this engine drives. The table holds little else: mail for sleepers wakes them at once.
OURS = """
SELECT mail.target, mail.slot, mail.frame
FROM mail, LATERAL (SELECT * FROM invocation WHERE invocation.id = mail.target OFFSET 0) AS invocation
LEFT JOIN LATERAL (
    SELECT owner FROM object_key WHERE invocation.mode = 'exclusive' AND object_key.service = invocation.service
        AND object_key.key = invocation.key OFFSET 0
) AS lease ON true
WHERE coalesce(invocation.owner, lease.owner) = $1::uuid
"""
# Verbs before signals, and signals of a name in the order of their sending.
IN_ORDER = " ORDER BY mail.target, mail.slot < 0, abs(mail.slot)"
UNREAD = Statement(OURS + IN_ORDER + " LIMIT 2000", pack.UUID)
UNREAD_OF = Statement(OURS + "AND mail.target = ANY ($2::uuid[])" + IN_ORDER, pack.UUID, pack.UUIDS)

# Of those that are taken up.
WAITING = Statement("SELECT target, slot, frame FROM mail WHERE target = ANY ($1::uuid[])" + IN_ORDER, pack.UUIDS)


def lock(pipeline: Pipeline, ids: Sequence[bytes], read: Reader | None = None) -> None:
    """Lock invocation rows; with `read`, answers (id, status, the engine that drives it)."""
    if read is not None:
        pipeline.call(LOCK, pack.uuids(ids), read=read)
    elif ids:
        pipeline.call(LOCK_ONLY, pack.uuids(ids))


def tell(pipeline: Pipeline, mails: Sequence[Mail]) -> None:
    if mails:
        pipeline.call(
            TELL,
            pack.uuids([mail.target for mail in mails]),
            pack.int4s([mail.slot for mail in mails]),
            pack.byteas([mail.frame for mail in mails]),
            pack.uuids([mail.caller for mail in mails]) if any(mail.caller for mail in mails) else None,
        )


async def send(link: Link, letters: Sequence[Mail]) -> dict[bytes, bytes | None]:
    """Tell, in a transaction of its own; answers the targets that are under way, and the engine that drives each."""
    owners: dict[bytes, bytes | None] = {}
    pipeline = Pipeline()
    lock(
        pipeline,
        sorted({letter.target for letter in letters}),
        lambda result: owners.update((id, owner) for id, _, owner in rows(result)),
    )
    tell(pipeline, letters)
    await link.run(pipeline)
    return owners


def mark_read(pipeline: Pipeline, read: Sequence[tuple[bytes, int]]) -> None:
    if read:
        pipeline.call(READ, pack.uuids([target for target, _ in read]), pack.int4s([slot for _, slot in read]))


async def unread(link: Link, engine: bytes) -> list[Letter]:
    """Mail for what this engine drives."""
    return await _letters(link, UNREAD, engine)


async def unread_of(link: Link, engine: bytes, targets: Sequence[bytes]) -> list[Letter]:
    """Mail for those of the targets that this engine drives."""
    return await _letters(link, UNREAD_OF, engine, pack.uuids(targets))


async def _letters(link: Link, statement: Statement, *parameters: bytes) -> list[Letter]:
    found: list[Letter] = []

    def read(result: Any) -> None:
        found.extend((target, pack.integer(slot), frame) for target, slot, frame in rows(result))

    pipeline = Pipeline()
    pipeline.call(statement, *parameters, read=read)
    await link.run(pipeline)
    return found
