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
# Committed by an application, and moved on in a moment.
IN_OUTBOX = Statement("SELECT id, NULL FROM outbox WHERE id = ANY ($1::uuid[])", pack.UUIDS)
TOKENS = Statement(
    "SELECT token FROM idempotency WHERE token = ANY ($2::uuid[]) AND invocation = ANY ($1::uuid[])",
    pack.UUIDS,
    pack.UUIDS,
)
EXPIRY = Statement(
    "SELECT (extract(epoch FROM expires_at) * 1000)::bigint FROM idempotency"
    " WHERE invocation = $1::uuid AND expires_at IS NOT NULL",
    pack.UUID,
)
SERVICE = Statement(
    """
SELECT service FROM outbox WHERE id = $1::uuid
UNION ALL SELECT service FROM invocation WHERE id = $1::uuid
UNION ALL SELECT service FROM done WHERE id = $1::uuid
""",
    pack.UUID,
)
# A session whose client left in silence stays for hours, and a request may still be on its way to it. It is ended when
# it is idle: one that is at its COMMIT would be torn from its wait for a standby (T17). Process ids come again:
# when it is this session's own, that one is gone.
END_SESSION = Statement(
    """
SELECT state LIKE 'idle%' AND pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1::int AND pid <> pg_backend_pid() AND application_name = current_setting('application_name')
""",
    pack.INT4,
)


async def results(link: Link, ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """The framed Output of those that have ended."""
    found: dict[bytes, bytes] = {}
    pipeline = Pipeline()
    pipeline.call(RESULTS, pack.uuids(ids), read=lambda result: found.update(map(tuple, rows(result))))
    await link.run(pipeline)
    return found


async def service(link: Link, id: bytes) -> str | None:
    """The service of an invocation."""
    found: list[bytes] = []
    pipeline = Pipeline()
    pipeline.call(SERVICE, id, read=lambda result: found.extend(row[0] for row in rows(result)))
    await link.run(pipeline)
    return found[0].decode() if found else None


async def find(link: Link, ids: Sequence[bytes]) -> tuple[dict[bytes, bytes | None], dict[bytes, bytes]]:
    """Those under way, with the engine that drives each, and the results of those that have ended.

    In this order, each with a snapshot of its own: one that ends in between is seen twice rather than not at all.
    """
    under_way: dict[bytes, bytes | None] = {}
    ended: dict[bytes, bytes] = {}

    def read(into: dict[bytes, Any]) -> Any:
        return lambda result: into.update(map(tuple, rows(result)))

    pipeline = Pipeline()
    pipeline.call(IN_OUTBOX, pack.uuids(ids), read=read(under_way))
    pipeline.call(UNDER_WAY, pack.uuids(ids), read=read(under_way))
    pipeline.call(RESULTS, pack.uuids(ids), read=read(ended))
    await link.run(pipeline)
    return under_way, ended


async def expiry(link: Link, id: bytes) -> int:
    """Milliseconds since the epoch until which a key answers with the result of this invocation; 0: none does."""
    found: list[int] = []
    pipeline = Pipeline()
    pipeline.call(EXPIRY, id, read=lambda result: found.extend(pack.integer(row[0]) for row in rows(result)))
    await link.run(pipeline)
    return found[0] if found else 0


async def end_session(link: Link, pid: int) -> bool:
    """Whether the session of a lost connection of ours has ended, and its last transaction with it; see to it."""
    left: list[int] = []
    pipeline = Pipeline()
    pipeline.call(END_SESSION, pack.int4(pid), read=lambda result: left.append(result.ntuples))
    await link.run(pipeline)
    return not left[0]


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
