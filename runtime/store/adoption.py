"""Adoption: invocations whose code no living engine has any more go on with their service's newest.

They stay on the deployment of their first attempt for as long as somebody runs it, and half a minute more; then the
replay decides: what the new code does differently is a mismatch, and the invocation is paused with nothing lost.
"""

from __future__ import annotations

from runtime.store import pack
from runtime.store.link import Link, Pipeline, Statement, rows

PATIENCE = 30
"""Seconds in the queue without an engine that has the code."""

# The head of an inbox keeps a deployment: one that was born with a journal is known by that.
ADOPT = Statement(
    """
WITH loaded AS (
    SELECT DISTINCT unnest(deployments) AS deployment FROM engine WHERE alive
), orphaned AS (
    SELECT ready.queue, ready.position, ready.service, ready.key, ready.invocation, service.deployment AS newest
    FROM ready JOIN service ON service.name = ready.service
    WHERE ready.deployment IS NOT NULL AND ready.since < now() - $1::int * interval '1 second'
        AND ready.deployment NOT IN (SELECT deployment FROM loaded)
        AND service.deployment IN (SELECT deployment FROM loaded)
    ORDER BY ready.queue, ready.position LIMIT 500 FOR UPDATE OF ready SKIP LOCKED
), heads AS (
    SELECT coalesce(orphaned.invocation, head.invocation) AS invocation,
           CASE WHEN orphaned.invocation IS NULL THEN orphaned.newest END AS deployment
    FROM orphaned LEFT JOIN LATERAL (
        SELECT inbox.invocation FROM inbox
        WHERE inbox.service = orphaned.service AND inbox.key = orphaned.key ORDER BY inbox.position LIMIT 1
    ) AS head ON true
), freed AS (
    UPDATE invocation SET deployment = heads.deployment FROM heads WHERE invocation.id = heads.invocation
)
UPDATE ready SET deployment = NULL FROM orphaned
WHERE ready.queue = orphaned.queue AND ready.position = orphaned.position
RETURNING 1
""",
    pack.INT4,
)


WAITING = Statement(
    """
WITH loaded AS (
    SELECT DISTINCT unnest(deployments) AS deployment FROM engine WHERE alive
)
SELECT ready.deployment, count(*) FROM ready
WHERE ready.deployment IS NOT NULL AND ready.deployment NOT IN (SELECT deployment FROM loaded)
GROUP BY ready.deployment ORDER BY ready.deployment
"""
)


async def waiting(link: Link) -> dict[str, int]:
    """How many invocations or keys in the queue wait for code that no engine has loaded, by deployment."""
    found: dict[str, int] = {}
    pipeline = Pipeline()
    pipeline.call(
        WAITING, read=lambda result: found.update((id.decode(), pack.integer(count)) for id, count in rows(result))
    )
    await link.run(pipeline)
    return found


async def adopt(link: Link, patience: int = PATIENCE) -> int:
    """Free what has waited so many seconds for code that nobody runs; returns how many that were."""
    count: list[int] = []
    pipeline = Pipeline()
    pipeline.call(ADOPT, pack.int4(patience), read=lambda result: count.append(len(rows(result))))
    await link.run(pipeline)
    return count[0]
