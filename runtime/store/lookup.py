"""Looking an invocation up: is it under way, has it ended, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.store import pack
from runtime.store.link import Link, Pipeline, Statement, rows

RESULTS = Statement("SELECT id, result FROM done WHERE id = ANY ($1::uuid[])", pack.UUIDS)
UNDER_WAY = Statement(
    """
SELECT invocation.id, coalesce(invocation.owner, object_key.owner) FROM invocation LEFT JOIN object_key
    ON invocation.mode = 'exclusive' AND object_key.service = invocation.service AND object_key.key = invocation.key
WHERE invocation.id = ANY ($1::uuid[])
""",
    pack.UUIDS,
)
TOKENS = Statement(
    "SELECT token FROM idempotency WHERE token = ANY ($2::uuid[]) AND invocation = ANY ($1::uuid[])",
    pack.UUIDS,
    pack.UUIDS,
)
BACKEND_IS_GONE = Statement("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1::int)", pack.INT4)


async def results(link: Link, ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """The framed Output of those that have ended."""
    found: dict[bytes, bytes] = {}
    pipeline = Pipeline()
    pipeline.call(RESULTS, pack.uuids(ids), read=lambda result: found.update(map(tuple, rows(result))))
    await link.run(pipeline)
    return found


async def find(link: Link, ids: Sequence[bytes]) -> tuple[dict[bytes, bytes | None], dict[bytes, bytes]]:
    """Those under way, with the engine that drives each, and the results of those that have ended.

    In this order, each with a snapshot of its own: one that ends in between is seen twice rather than not at all.
    """
    under_way: dict[bytes, bytes | None] = {}
    ended: dict[bytes, bytes] = {}

    def read(into: dict[bytes, Any]) -> Any:
        return lambda result: into.update(map(tuple, rows(result)))

    pipeline = Pipeline()
    pipeline.call(UNDER_WAY, pack.uuids(ids), read=read(under_way))
    pipeline.call(RESULTS, pack.uuids(ids), read=read(ended))
    await link.run(pipeline)
    return under_way, ended


async def backend_is_gone(link: Link, pid: int) -> bool:
    """Whether the session of a lost connection has ended, and its last transaction with it."""
    answers: list[bool] = []
    pipeline = Pipeline()
    pipeline.call(
        BACKEND_IS_GONE, pack.int4(pid), read=lambda result: answers.extend(r[0] == b"\x01" for r in rows(result))
    )
    await link.run(pipeline)
    return answers[0]


async def tokens(link: Link, ids: Sequence[bytes], wanted: Sequence[bytes]) -> set[bytes]:
    """Those submissions that were the first of their idempotency key."""
    found: set[bytes] = set()
    pipeline = Pipeline()
    pipeline.call(
        TOKENS,
        pack.uuids(ids),
        pack.uuids(wanted),
        read=lambda result: found.update(row[0] for row in rows(result)),
    )
    await link.run(pipeline)
    return found
