"""Tallies: what each process has counted, told every few seconds, and what is kept of those that have gone.

A process's row holds all that it has counted, so telling it twice changes nothing. When it has been silent for long,
its row is added to that of the silent; should it speak again (a laptop that slept), it begins a new row with what came
since.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import msgspec

from runtime.store import pack
from runtime.store.link import Link, Pipeline, Statement

INTERVAL = 5.0  # seconds between two tellings: to tell of 100 handlers takes a loop 2 ms
REMINDER = 60.0  # seconds after which even what has not changed is told
SILENT = "10 minutes"

# What is lost with the server's last moments is told again a moment later: no commit waits for the disk.
HASTILY = Statement("SELECT set_config('synchronous_commit', 'off', true)")
UPDATE = Statement(
    "UPDATE tally SET counts = $2::text::jsonb, told_at = now() WHERE process = $1::uuid", pack.UUID, pack.TEXT
)
INSERT = Statement("INSERT INTO tally (process, counts) VALUES ($1::uuid, $2::text::jsonb)", pack.UUID, pack.TEXT)

# For who keeps house. One at a time, or both would add to the same sum.
LOCK = "LOCK TABLE tally IN SHARE ROW EXCLUSIVE MODE"
ADD_UP_THE_SILENT = f"""
WITH gone AS (
    DELETE FROM tally WHERE told_at < now() - interval '{SILENT}' AND process <> '00000000-0000-0000-0000-000000000000'
    RETURNING counts
), every AS (
    SELECT one.* FROM gone, jsonb_each_text(gone.counts) AS one (name, value)
    UNION ALL
    SELECT one.* FROM tally, jsonb_each_text(tally.counts) AS one (name, value)
    WHERE process = '00000000-0000-0000-0000-000000000000'
)
INSERT INTO tally (process, counts)
SELECT '00000000-0000-0000-0000-000000000000', jsonb_object_agg(name, total)
FROM (SELECT name, sum(value::float8) AS total FROM every GROUP BY name) AS sums
WHERE EXISTS (SELECT FROM gone)
HAVING count(*) > 0
ON CONFLICT (process) DO UPDATE SET counts = excluded.counts, told_at = now()
"""


class Teller:
    """Tells what a process counts; `counts` gives all of it since the process began."""

    def __init__(self, counts: Callable[[], dict[str, float]], clock: Callable[[], float]) -> None:
        self._counts = counts
        self._clock = clock
        self._process = secrets.token_bytes(16)
        self._told: dict[str, float] = {}
        """What this process's row holds."""
        self._told_at = float("-inf")
        self._past: dict[str, float] = {}
        """What rows of this process held that are gone."""

    async def tell(self, link: Link) -> None:
        """Tell what has changed. Raises Disconnected, DatabaseError: the next time tells it too."""
        counts = _less(self._counts(), self._past)
        if not counts or (counts == self._told and self._clock() - self._told_at < REMINDER):
            return
        if not await self._write(link, UPDATE, counts):
            if self._told:  # it was silent for so long that others have added it up
                self._past = _plus(self._past, self._told)
                counts = _less(counts, self._told)
                self._process, self._told = secrets.token_bytes(16), {}
            await self._write(link, INSERT, counts)
        self._told, self._told_at = counts, self._clock()

    async def _write(self, link: Link, statement: Statement, counts: Mapping[str, float]) -> bool:
        written: list[int] = []
        pipeline = Pipeline()
        pipeline.call(HASTILY)
        pipeline.call(
            statement,
            self._process,
            msgspec.json.encode(counts),
            read=lambda result: written.append(int(result.command_tuples or 0)),
        )
        await link.run(pipeline)
        return written == [1]


def _less(counts: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: left for name, count in counts.items() if (left := count - other.get(name, 0))}


def _plus(counts: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: counts.get(name, 0) + other.get(name, 0) for name in {*counts, *other}}
