"""Keys that are stuck: something waits in their inboxes, and nobody is about to take it.

There should be none: each is a fault of ours, or of whoever wrote into our tables. A look walks along the inboxes for a
moment, and the next one goes on from there, so that it costs the same beside any number of keys.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from msgspec import Struct

from perdure.protocol.ids import format_id

PAGE = 5_000
"""Places in inboxes that one statement looks at."""
BUDGET = 0.2
"""Seconds after which a look begins no further page."""
LONGEST_KEY = 60
"""Characters of a key that are shown."""

Key = tuple[str, str]
BEGINNING: Key = ("", "")


class Fault(StrEnum):
    """How a key comes to be stuck."""

    NOT_QUEUED = "not-queued"  # no engine has it, and the queue does not name it
    NOT_THERE = "not-there"  # there is an inbox, and no key
    FIRST_UNKNOWN = "first-unknown"  # who has it has ended, or never was
    DEAD_OWNER = "dead-owner"  # it is an engine's that does not live


class Orphan(Struct, frozen=True):
    """A key that is stuck."""

    service: str
    key: str
    fault: Fault
    first: UUID
    """The first of its inbox; of DEAD_OWNER the engine."""

    @property
    def words(self) -> str:
        key = self.key if len(self.key) <= LONGEST_KEY else f"{self.key[:LONGEST_KEY]}…"
        return f"the key {key!r} of {self.service} is stuck: {WORDS[self.fault].format(self._first)}"

    @property
    def cure(self) -> str:
        return CURES[self.fault].format(first=self._first, uuid=self.first)

    @property
    def _first(self) -> str:
        return str(self.first) if self.fault is Fault.DEAD_OWNER else format_id(self.first.bytes)


WORDS: Mapping[Fault, str] = {
    Fault.NOT_QUEUED: "{} is to have it, and no engine is to take that",
    Fault.NOT_THERE: "{} waits in its inbox, and nobody looks there",
    Fault.FIRST_UNKNOWN: "{} has it, which has ended or is not known",
    Fault.DEAD_OWNER: "the engine {} has it, which does not live",
}
CURES: Mapping[Fault, str] = {
    Fault.NOT_QUEUED: "`./dev manage kill {first}` lets the next one go on; `… restart {first}` does that one again.",
    Fault.NOT_THERE: "Whatever is sent to the key next wakes it up.",
    Fault.FIRST_UNKNOWN: "DELETE FROM inbox WHERE invocation = '{uuid}' in SQL, and look again.",
    Fault.DEAD_OWNER: (
        "Another engine takes over within seconds, if one lives. If not even then: DELETE FROM object_key WHERE "
        "owner = '{uuid}' in SQL, and whatever is sent to the key next wakes it up."
    ),
}


class Look(Struct, frozen=True):
    """What one look has found."""

    orphans: list[Orphan]
    passed: int
    """Inboxes that it has seen."""
    is_whole: bool
    """It has seen all; else the next one goes on from where it ended, or begins anew."""


# However small a table was when its statistics were made. The queue has no index by key: it is hashed once for a page,
# and is not read for each key. Measured with 1,000,000 keys that have inboxes, beside other work: a look takes 0.25 s,
# and all are seen after 130 looks when 670,000 of them are in the queue, after 80 when they sleep.
BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off"
READ_ONCE = "SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"

# Ten seconds: none of these can be seen while it comes to be, but what is looked at by hand may be changed by hand.
WALK = f"""
WITH passed AS MATERIALIZED (
    SELECT * FROM inbox WHERE (service, key) > (%s, %s) ORDER BY service, key, position LIMIT {PAGE}
), heads AS MATERIALIZED (
    SELECT DISTINCT ON (service, key) service, key, invocation FROM passed ORDER BY service, key, position
), looked_at AS MATERIALIZED (
    SELECT heads.*, CASE
        WHEN first.id IS NULL THEN '{Fault.FIRST_UNKNOWN}'
        WHEN held.service IS NULL THEN '{Fault.NOT_THERE}'
        WHEN held.owner IS NULL AND first.status IN ('pending', 'ready', 'running')
            AND greatest(first.modified_at, held.leased_at) < now() - interval '10 seconds' THEN '{Fault.NOT_QUEUED}'
    END AS fault
    FROM heads LEFT JOIN LATERAL (
        SELECT * FROM object_key WHERE object_key.service = heads.service AND object_key.key = heads.key OFFSET 0
    ) AS held ON true LEFT JOIN LATERAL (
        SELECT id, status, modified_at FROM invocation WHERE invocation.id = heads.invocation OFFSET 0
    ) AS first ON true
), stuck AS (
    SELECT looked_at.* FROM looked_at
    LEFT JOIN ready ON ready.service = looked_at.service AND ready.key = looked_at.key
        AND looked_at.fault = '{Fault.NOT_QUEUED}'
    WHERE looked_at.fault IS NOT NULL AND ready.position IS NULL
)
SELECT (SELECT count(*) FROM passed), (SELECT count(*) FROM heads), last.service, last.key,
       stuck.service, stuck.key, stuck.fault, stuck.invocation
FROM (SELECT service, key FROM heads ORDER BY service DESC, key DESC LIMIT 1) AS last LEFT JOIN stuck ON true
"""

# From one owner to the next along the index: there are a few, whatever they own.
DEAD_OWNERS = f"""
WITH RECURSIVE owners AS (
    (SELECT owner FROM object_key WHERE owner IS NOT NULL ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT owner FROM object_key WHERE object_key.owner > owners.owner ORDER BY owner LIMIT 1)
    FROM owners WHERE owners.owner IS NOT NULL
)
SELECT held.service, held.key, '{Fault.DEAD_OWNER}', owners.owner
FROM owners, LATERAL (SELECT service, key FROM object_key WHERE object_key.owner = owners.owner LIMIT 1) AS held
WHERE NOT EXISTS (
    SELECT FROM engine WHERE engine.id = owners.owner AND (alive OR ended_at > now() - interval '30 seconds')
)
"""

_place = BEGINNING
"""Where the last look ended."""


def look() -> Look:
    """Look for a moment."""
    global _place
    deadline = time.monotonic() + BUDGET
    began: Key | None = _place
    after, orphans, passed = began, _dead_owners(), 0
    while after is not None and (not passed or time.monotonic() < deadline):
        found, inboxes, after = _page(after)
        orphans += found
        passed += inboxes
    _place = after or BEGINNING
    return Look(orphans, passed, is_whole=began == _place == BEGINNING)


def _dead_owners() -> list[Orphan]:
    return [_orphan(row) for row in _rows(DEAD_OWNERS, (), BY_INDEX)]


def _page(after: Key) -> tuple[list[Orphan], int, Key | None]:
    """Those that are stuck, how many inboxes were looked at, and where to go on; None: there are no more."""
    rows = _rows(WALK, after, READ_ONCE)
    if not rows:
        return [], 0, None
    places, inboxes, *last = rows[0][:4]
    orphans = [_orphan(row[4:]) for row in rows if row[4] is not None]
    return orphans, inboxes, (last[0], last[1]) if places == PAGE else None


def _rows(query: str, parameters: Sequence[str], planner: str) -> list[Any]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(planner)
        cursor.execute(query, parameters)
        rows: list[Any] = cursor.fetchall()
    return rows


def _orphan(row: tuple[str, str, str, UUID]) -> Orphan:
    service, key, fault, first = row
    return Orphan(service, key, Fault(fault), first)
