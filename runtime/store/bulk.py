"""Verbs by filter, as rows: whom they mean, and how far they have come.

An invocation is taken off the list in the transaction that tells it. Whoever finds fewer of them than it has told was
not alone: nothing of that is kept, and the other goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from runtime.core.access import Actor, Role
from runtime.core.audit import Act
from runtime.errors import DatabaseError
from runtime.store import audit, pack
from runtime.store.link import Link, Pipeline, Statement, rows, whole
from runtime.store.purge import Purged
from runtime.store.restart import Restarted
from runtime.store.resume import Resumed
from runtime.store.verbs import Verdict, tried

BATCH = 500
"""Invocations of one transaction."""
ABANDONED_AFTER = 10
"""Seconds without a step."""

WORKED: frozenset[str] = frozenset(
    {
        *(Verdict.DONE, Verdict.ASKED, Verdict.PAUSED, Verdict.ALREADY_PAUSED),
        *(Resumed.RESUMED, Restarted.RESTARTED, Restarted.REPEATED, Purged.PURGED),
    }
)
"""Words that are no refusal."""

BEGIN = Statement(
    """
WITH meant AS (
    INSERT INTO bulk_item (bulk, invocation) SELECT $1::uuid, unnest($8::uuid[])
)
INSERT INTO bulk (id, verb, deployment, filter, actor, role, origin, services, total, finished_at)
VALUES ($1::uuid, $2::text, $3::text, $4::text::jsonb, $5::text, $6::text, $7::text, $9::text[],
        cardinality($8::uuid[]), CASE WHEN cardinality($8::uuid[]) = 0 THEN now() END)
""",
    pack.UUID, *[pack.TEXT] * 6, pack.UUIDS, pack.TEXTS,
)  # fmt: skip
FIND = Statement(
    "SELECT verb, deployment, actor, role, origin FROM bulk WHERE id = $1::uuid AND finished_at IS NULL", pack.UUID
)
NEXT = Statement(
    f"""
SELECT invocation FROM bulk_item WHERE bulk = $1::uuid AND invocation > $2::uuid ORDER BY invocation LIMIT {BATCH}
""",
    pack.UUID,
    pack.UUID,
)
TAKE_OFF = Statement(
    """
WITH gone AS (
    DELETE FROM bulk_item WHERE bulk = $1::uuid AND invocation = ANY ($2::uuid[]) RETURNING 1
)
SELECT expect('bulk', (SELECT count(*) FROM gone), cardinality($2::uuid[]))
""",
    pack.UUID,
    pack.UUIDS,
)
COUNT = Statement(
    """
UPDATE bulk SET moved_at = now(), came = (
    SELECT jsonb_object_agg(word, times) FROM (
        SELECT word, sum(times) AS times FROM (
            SELECT key AS word, value::int AS times FROM jsonb_each_text(bulk.came)
            UNION ALL SELECT * FROM unnest($2::text[], $3::int[])
        ) AS counted GROUP BY word
    ) AS summed
) WHERE id = $1::uuid
""",
    pack.UUID,
    pack.TEXTS,
    pack.INT4S,
)
FINISH = Statement(
    """
UPDATE bulk SET finished_at = now(), moved_at = now()
WHERE id = $1::uuid AND finished_at IS NULL AND NOT EXISTS (SELECT FROM bulk_item WHERE bulk = $1::uuid)
""",
    pack.UUID,
)
# In the order in which a step locks them. What a step under way has told, it has taken off: it is waited for.
CLEAR = Statement("DELETE FROM bulk_item WHERE bulk = $1::uuid", pack.UUID)
STOP = Statement(
    """
UPDATE bulk SET finished_at = now(), moved_at = now(), stopped_by = $2::text
WHERE id = $1::uuid AND finished_at IS NULL RETURNING true
""",
    pack.UUID,
    pack.TEXT,
)
ABANDONED = Statement(
    f"""
UPDATE bulk SET moved_at = now()
WHERE finished_at IS NULL AND moved_at < now() - interval '{ABANDONED_AFTER} seconds' RETURNING id
"""
)


class Bulk(Struct, frozen=True):
    """A verb that is being carried out on all whom it meant."""

    id: bytes
    verb: str
    deployment: str
    by: Actor
    services: Sequence[str] | None = None
    """The only ones that it is about; None: all."""


async def begin(link: Link, bulk: Bulk, said: Mapping[str, Any], ids: Sequence[bytes], act: Act) -> None:
    """Write down whom it means. Raises Disconnected."""
    by = bulk.by
    pipeline = Pipeline()
    pipeline.call(
        BEGIN,
        bulk.id,
        *(text.encode() for text in (bulk.verb, bulk.deployment, msgspec.json.encode(said).decode())),
        *(text.encode() for text in (by.name, by.role.name.lower(), by.origin)),
        pack.uuids(ids),
        None if bulk.services is None else pack.texts(bulk.services),
    )
    audit.note(pipeline, act, "begun")
    await link.run(pipeline)


async def find(link: Link, id: bytes) -> Bulk | None:
    """One that is not finished."""
    found: list[Bulk] = []

    def read(result: Any) -> None:
        for row in rows(result):
            verb, deployment, name, role, origin = (text.decode() for text in row)
            found.append(Bulk(id, verb, deployment, Actor(name, Role[role.upper()], origin)))

    pipeline = Pipeline()
    pipeline.call(FIND, id, read=read)
    await link.run(pipeline)
    return found[0] if found else None


async def next_of(link: Link, id: bytes, after: bytes) -> list[bytes]:
    """Whom to tell next, behind `after`."""
    found: list[bytes] = []
    pipeline = Pipeline()
    pipeline.call(NEXT, id, after, read=lambda result: found.extend(row[0] for row in rows(result)))
    await link.run(pipeline)
    return found


async def finish(link: Link, id: bytes) -> None:
    """It is finished when nobody is left."""
    pipeline = Pipeline()
    pipeline.call(FINISH, id)
    await link.run(pipeline)


async def stop(link: Link, id: bytes, act: Act) -> bool:
    """Tell nobody else; False: it is finished already, or not known. Raises Disconnected, DatabaseError."""
    return await tried(lambda: _try_to_stop(link, id, act))


async def _try_to_stop(link: Link, id: bytes, act: Act) -> bool:
    """One transaction."""
    stopped: list[bool] = []
    stopping = Pipeline()
    stopping.begin()
    stopping.call(CLEAR, id)
    stopping.call(STOP, id, act.actor.name.encode(), read=lambda result: stopped.extend(True for _ in rows(result)))
    async with whole(link):
        await link.run(stopping)
        ending = Pipeline()
        audit.note(ending, act, "stopped" if stopped else "finished already")
        ending.commit()
        await link.run(ending)
    return bool(stopped)


def count(pipeline: Pipeline, id: bytes, came: Mapping[bytes, str]) -> None:
    """They have been told, by this very transaction, if nobody else has done it."""
    words = Counter(came.values())
    pipeline.call(TAKE_OFF, id, pack.uuids(list(came)))
    pipeline.call(COUNT, id, pack.texts(list(words)), pack.int4s(list(words.values())))


def is_not_alone(error: DatabaseError) -> bool:
    """Whether somebody else carries it out, too."""
    return error.sqlstate == "PF003"


async def abandoned(link: Link) -> list[bytes]:
    """Those that nobody has gone on with for a while; whoever asks, goes on with them."""
    found: list[bytes] = []
    pipeline = Pipeline()
    pipeline.call(ABANDONED, read=lambda result: found.extend(row[0] for row in rows(result)))
    await link.run(pipeline)
    return found
