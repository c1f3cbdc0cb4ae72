"""Purging: what has ended is forgotten before its time, wholly or but for its result."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from runtime.store import pack
from runtime.store.audit import Note, unnoted
from runtime.store.link import Link, Pipeline, Statement, rows, whole
from runtime.store.verbs import LOCK_ONCE, tried


class Purged(StrEnum):
    """What came of it."""

    PURGED = "purged"
    NOT_ENDED = "not_ended"
    UNKNOWN = "unknown"


# Behind the locks of those that are just about to end.
LOCK_LIVING = Statement(
    "SELECT id FROM invocation WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE", pack.UUIDS
)
# An idempotency key goes too: the next submission with it begins anew. With a workflow's run goes all that its key has.
PURGE = Statement(
    """
WITH gone AS (
    DELETE FROM done WHERE id = ANY ($1::uuid[]) RETURNING id
), journals AS (
    DELETE FROM journal WHERE invocation = ANY ($1::uuid[])
), keys AS (
    DELETE FROM idempotency WHERE invocation = ANY ($1::uuid[]) RETURNING service, key
), promises AS (
    DELETE FROM promise USING keys WHERE promise.service = keys.service AND promise.key = keys.key
), state AS (
    DELETE FROM state USING keys WHERE state.service = keys.service AND state.key = keys.key
)
SELECT id FROM gone
""",
    pack.UUIDS,
)
# No entries at all tell that the journal was purged: the input was one.
PURGE_JOURNAL = Statement(
    """
WITH emptied AS (
    UPDATE done SET input = '', frames = '', entries = 0 WHERE id = ANY ($1::uuid[]) RETURNING id
), journals AS (
    DELETE FROM journal WHERE invocation = ANY ($1::uuid[])
)
SELECT id FROM emptied
""",
    pack.UUIDS,
)


async def purge(link: Link, ids: Collection[bytes], note: Note = unnoted) -> dict[bytes, Purged]:
    """Forget invocations that have ended, all in one transaction."""
    return await tried(lambda: _try(link, sorted({*ids}), note, PURGE))


async def purge_journal(link: Link, ids: Collection[bytes], note: Note = unnoted) -> dict[bytes, Purged]:
    """Forget what invocations that have ended did, and their inputs; how they ended stays."""
    return await tried(lambda: _try(link, sorted({*ids}), note, PURGE_JOURNAL))


async def _try(link: Link, ids: Sequence[bytes], note: Note, purging: Statement) -> dict[bytes, Purged]:
    """One transaction."""
    living: set[bytes] = set()
    purged: set[bytes] = set()
    packed = pack.uuids(ids)
    looking = Pipeline()
    looking.begin()
    looking.call(LOCK_ONCE, packed)
    looking.call(LOCK_LIVING, packed, read=lambda result: living.update(row[0] for row in rows(result)))
    async with whole(link):
        await link.run(looking)
        acting = Pipeline()
        acting.call(
            purging,
            pack.uuids([id for id in ids if id not in living]),
            read=lambda result: purged.update(row[0] for row in rows(result)),
        )
        await link.run(acting)
        came = {id: Purged.NOT_ENDED if id in living else Purged.UNKNOWN for id in ids}
        came |= dict.fromkeys(purged, Purged.PURGED)
        noting = Pipeline()
        note(noting, came)
        noting.commit()
        await link.run(noting)
    return came
