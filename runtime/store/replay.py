"""What is under way and has a journal, for a look whether other code would do the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec import Struct

from runtime.store import pack
from runtime.store.claim import LOAD_JOURNALS
from runtime.store.link import Link, Pipeline, Statement, rows

PAGE = 200

# By id, for a walk that may take long: what comes or goes meanwhile is seen or not.
UNDER_WAY = Statement(
    """
SELECT id, service, handler, key, input FROM invocation
WHERE service = ANY ($1::text[]) AND deployment IS NOT NULL AND position('.' IN handler) = 0 AND id > $2::uuid
ORDER BY id LIMIT $3::int
""",
    pack.TEXTS,
    pack.UUID,
    pack.INT4,
)


class UnderWay(Struct, frozen=True):
    """An invocation that has begun, with its journal."""

    id: bytes
    service: str
    handler: str
    key: str | None
    frames: bytes
    """All of it, the input first."""


async def under_way(link: Link, services: Sequence[str]) -> AsyncIterator[list[UnderWay]]:
    """Those of these services that have done something, a page at a time."""
    last = bytes(16)
    while True:
        found: list[Any] = []
        pipeline = Pipeline()
        pipeline.call(
            UNDER_WAY,
            pack.texts(services),
            last,
            pack.int4(PAGE),
            read=lambda result: found.extend(rows(result)),  # noqa: B023 -- run here
        )
        await link.run(pipeline)
        if not found:
            return
        last = found[-1][0]
        journals: dict[bytes, bytes] = {}
        pipeline = Pipeline()
        pipeline.call(
            LOAD_JOURNALS,
            pack.uuids([id for id, *_ in found]),
            read=lambda result: _join(result, journals),  # noqa: B023 -- run here
        )
        await link.run(pipeline)
        yield [
            UnderWay(id, service.decode(), handler.decode(), None if key is None else key.decode(), input + journal)
            for id, service, handler, key, input in found
            if (journal := journals.get(id))
        ]


def _join(result: Any, journals: dict[bytes, bytes]) -> None:
    for id, _, frames in rows(result):
        journals[id] = journals.get(id, b"") + frames
