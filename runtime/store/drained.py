"""Drained: engines and queues that take nothing new until somebody resumes them.

The rows say it to everybody, and each engine looks at them twice a second: it then lets begin nothing that has not
begun, gives back its keys, and lets go of what waits. Nothing here touches an invocation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from runtime.core.audit import Act
from runtime.errors import DatabaseError, Overloaded
from runtime.store import audit, pack
from runtime.store.link import Link, Pipeline, Statement, rows, whole
from runtime.store.verbs import TRIES

# The engine's row is locked by each of its flushes, for a moment.
SET_ENGINE = Statement(
    """
UPDATE engine SET drained_at = CASE WHEN $2::bool THEN coalesce(drained_at, now()) END
WHERE id = $1::uuid AND alive RETURNING 1
""",
    pack.UUID,
    pack.BOOL,
)
DRAIN_QUEUE = Statement("INSERT INTO drained_queue (queue) VALUES ($1::text) ON CONFLICT DO NOTHING", pack.TEXT)
RESUME_QUEUE = Statement("DELETE FROM drained_queue WHERE queue = $1::text", pack.TEXT)

LOOK = Statement(
    """
SELECT NULL::text, drained_at IS NOT NULL FROM engine WHERE id = $1::uuid
UNION ALL SELECT queue, true FROM drained_queue
""",
    pack.UUID,
)
KNOWN_QUEUES = Statement("SELECT unnest(queues) FROM engine WHERE alive UNION SELECT queue FROM drained_queue")


class Drain(StrEnum):
    """What came of draining or resuming something."""

    DRAINED = "drained"
    RESUMED = "resumed"
    UNKNOWN = "unknown"  # there is no such engine, or it lives no more


class Drained(Struct):
    """What concerns an engine."""

    is_engine: bool = False
    """It is drained itself."""
    queues: frozenset[str] = frozenset()
    """All that are drained, whoever serves them."""


async def set_engine(link: Link, engine: bytes, *, drained: bool, act: Act | None) -> Drain:
    """Drain an engine, or resume it."""
    for _ in range(TRIES):
        try:
            return await _try_to_set_engine(link, engine, drained, act)
        except DatabaseError as error:
            if not error.is_lock_timeout:
                raise
    raise Overloaded(f"The engine has been in the middle of something for {TRIES} s: soon it goes on, or is dead.")


async def _try_to_set_engine(link: Link, engine: bytes, drained: bool, act: Act | None) -> Drain:
    found: list[Any] = []
    setting, noting = Pipeline(), Pipeline()
    setting.begin()
    setting.call(SET_ENGINE, engine, bytes([drained]), read=lambda result: found.extend(rows(result)))
    async with whole(link):
        await link.run(setting)
        came = Drain.UNKNOWN if not found else Drain.DRAINED if drained else Drain.RESUMED
        audit.note(noting, act, came)
        noting.commit()
        await link.run(noting)
    return came


async def set_queue(link: Link, queue: str, *, drained: bool, act: Act | None) -> Drain:
    """Drain a queue, or resume it."""
    came = Drain.DRAINED if drained else Drain.RESUMED
    pipeline = Pipeline()
    pipeline.call(DRAIN_QUEUE if drained else RESUME_QUEUE, queue.encode())
    audit.note(pipeline, act, came)
    await link.run(pipeline)
    return came


async def known_queues(link: Link) -> set[str]:
    """Those that a living engine serves, or that are drained."""
    found: set[str] = set()
    pipeline = Pipeline()
    pipeline.call(KNOWN_QUEUES, read=lambda result: found.update(row[0].decode() for row in rows(result)))
    await link.run(pipeline)
    return found


async def look(link: Link, engine: bytes) -> Drained:
    """What of all this concerns an engine that may not be registered yet."""
    found = Drained()

    def read(result: Any) -> None:
        table = rows(result)
        found.is_engine = any(queue is None and is_drained == b"\x01" for queue, is_drained in table)
        found.queues = frozenset(queue.decode() for queue, _ in table if queue is not None)

    pipeline = Pipeline()
    pipeline.call(LOOK, engine, read=read)
    await link.run(pipeline)
    return found
