"""Virtual objects as people see them: who has a key, who waits for it, and what values it holds.

A key is there when it has values, an inbox, or an engine that has just looked after it. Whose turn it is: the first of
the inbox has the key, unless it waits for an engine itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from msgspec import Struct

from perdure.protocol.ids import format_id
from runtime.core import edits
from runtime.core.invocation import Status
from runtime.models import State, StateChange
from runtime.reading import cursors

MOST = 1_000
"""More in one answer is a query for a database, not for eyes."""
COUNTED = 1_000
"""Of a list, an inbox is counted up to here."""


class Holder(Struct, frozen=True, kw_only=True):
    """The invocation that has a key."""

    id: str
    handler: str
    status: str
    since: datetime
    engine: str | None
    """Which drives it; null: it is suspended, paused or backs off, and keeps its key."""


class ObjectKey(Struct, frozen=True, kw_only=True):
    """A key as one line of a list."""

    service: str
    key: str
    holder: Holder | None
    inbox_length: int
    """Those who have the key or wait for it; a list counts up to 1,000."""
    has_state: bool


class Page(Struct, frozen=True):
    objects: Sequence[ObjectKey]
    next: str | None
    """The cursor of the next page; None: this is the last one."""


class Letter(Struct, frozen=True, kw_only=True):
    """A place in an inbox."""

    position: int
    id: str
    handler: str
    status: str
    created_at: datetime


class Object(Struct, frozen=True, kw_only=True):
    """One key with its inbox."""

    service: str
    key: str
    holder: Holder | None
    inbox_length: int
    inbox: Sequence[Letter]
    """In order; the first one has the key, or is the next to have it."""
    next: int | None
    """The position after which the inbox goes on; None: this is the end of it."""
    has_state: bool


# The keys of both tables in one order, a page of each and then of both: neither is read further than that. The first of
# an inbox is found by its primary key, and so is its length as far as it is counted.
PAGE = """
WITH keys AS (
    SELECT * FROM (
        (SELECT service, key FROM object_key
         WHERE {busy} AND {places} ORDER BY service, key LIMIT %(limit)s)
        UNION
        (SELECT DISTINCT service, key FROM state
         WHERE NOT %(busy)s AND {places} ORDER BY service, key LIMIT %(limit)s)
    ) AS both_ ORDER BY service, key LIMIT %(limit)s
)
SELECT keys.service, keys.key, object_key.owner, object_key.leased_at,
       head.id, head.handler, head.status, head.created_at, head.begun_at,
       (SELECT count(*) FROM (
            SELECT FROM inbox WHERE inbox.service = keys.service AND inbox.key = keys.key LIMIT %(counted)s
        ) AS letter),
       EXISTS (SELECT FROM state WHERE state.service = keys.service AND state.key = keys.key)
FROM keys
LEFT JOIN object_key ON object_key.service = keys.service AND object_key.key = keys.key
LEFT JOIN LATERAL (
    SELECT invocation.id, invocation.handler, invocation.status, invocation.created_at, invocation.begun_at
    FROM (
        SELECT invocation FROM inbox WHERE inbox.service = keys.service AND inbox.key = keys.key
        ORDER BY position LIMIT 1
    ) AS first JOIN invocation ON invocation.id = first.invocation
) AS head ON true
ORDER BY keys.service, keys.key
"""
# A value, and not EXISTS: that may be joined by walking over all inboxes, of which one may be very long.
IS_BUSY = "(SELECT true FROM inbox WHERE inbox.service = object_key.service AND inbox.key = object_key.key LIMIT 1)"

INBOX = """
SELECT inbox.position, invocation.id, invocation.handler, invocation.status, invocation.created_at
FROM inbox JOIN invocation ON invocation.id = inbox.invocation
WHERE inbox.service = %(service)s AND inbox.key = %(key)s AND inbox.position > %(after)s
ORDER BY inbox.position LIMIT %(limit)s
"""


async def page(
    *,
    service: str | None = None,
    prefix: str | None = None,
    busy: bool = False,
    services: Sequence[str] | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page:
    """The keys in order: of a service, with a prefix, or those that somebody has or waits for. Raises BadCursor."""
    said: dict[str, Any] = {"busy": busy, "limit": limit + 1, "counted": COUNTED}
    places = ["true"]
    if cursor is not None:
        said["after_service"], said["after_key"] = cursors.read(cursor, tuple[str, str])
        places.append("(service, key) > (%(after_service)s, %(after_key)s)")
    if service is not None:
        said["service"] = service
        places.append("service = %(service)s")
    if services is not None:
        said["services"] = list(services)
        places.append("service = ANY (%(services)s)")
    if prefix:
        said["prefix"] = prefix
        places.append("starts_with(key, %(prefix)s)")
    query = PAGE.format(busy=IS_BUSY if busy else "true", places=" AND ".join(places))
    found = [_line(row) for row in await _rows(query, said)]
    last = found[limit - 1] if len(found) > limit else None
    return Page(found[:limit], None if last is None else cursors.write((last.service, last.key)))


async def find(service: str, key: str, *, limit: int = 100, after: int = 0) -> Object:
    """One key, and its inbox from behind a position on. Nobody may ever have used it."""
    said = {"service": service, "key": key, "limit": limit + 1, "after": after}
    one = {"busy": False, "limit": 1, "counted": None}
    places = "service = %(service)s AND key = %(key)s"
    lines = await _rows(PAGE.format(busy="true", places=places), said | one)
    line = _line(lines[0]) if lines else None
    letters = [
        Letter(position=position, id=format_id(id.bytes), handler=handler, status=status, created_at=created_at)
        for position, id, handler, status, created_at in await _rows(INBOX, said)
    ]
    return Object(
        service=service,
        key=key,
        holder=line.holder if line else None,
        inbox_length=line.inbox_length if line else 0,
        inbox=letters[:limit],
        next=letters[limit - 1].position if len(letters) > limit else None,
        has_state=line is not None and line.has_state,
    )


async def _rows(query: str, said: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    def read() -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(query, said)
            return list(cursor.fetchall())

    return await sync_to_async(read)()


def _line(row: tuple[Any, ...]) -> ObjectKey:
    service, key, owner, leased_at, id, handler, status, created_at, begun_at, length, has_state = row
    holder = None
    if id is not None and (owner is not None or status != Status.PENDING):
        # Before an engine writes that it has begun, it has at most been leased to it since.
        since = begun_at or max(created_at, leased_at or created_at)
        holder = Holder(
            id=format_id(id.bytes), handler=handler, status=status, since=since, engine=owner and str(owner)
        )
    return ObjectKey(service=service, key=key, holder=holder, inbox_length=length, has_state=has_state)


# Values ---------------------------------------------------------------------------------------------------------------


async def values(service: str, key: str) -> dict[str, bytes]:
    """An object's committed values, by name."""
    rows = State.objects.filter(service=service, key=key).order_by("name").values_list("name", "value")
    return {name: bytes(value) async for name, value in rows}


class Change(Struct, frozen=True, kw_only=True):
    """What became of a value."""

    position: int
    at: datetime
    name: str
    before: bytes | None
    """None: there was none."""
    after: bytes | None
    """None: it was cleared."""
    by: str | None
    """The person who did it; None: a handler."""
    invocation_id: str
    handler: str | None
    """None: it was an edit."""


async def history(
    service: str, key: str, *, name: str | None = None, before: int | None = None, limit: int = 100
) -> list[Change]:
    """The last changes of an object's values, or of one of them, newest first; those before a position."""
    rows = StateChange.objects.filter(service=service, key=key)
    if name is not None:
        rows = rows.filter(name=name)
    if before is not None:
        rows = rows.filter(position__lt=before)
    return [_change(row) async for row in rows.order_by("-position")[:limit]]


def _change(row: StateChange) -> Change:
    return Change(
        position=row.position,
        at=row.at,
        name=row.name,
        before=None if row.before is None else bytes(row.before),
        after=None if row.after is None else bytes(row.after),
        by=row.actor,
        invocation_id=format_id(row.invocation.bytes),
        handler=None if row.handler == edits.HANDLER else row.handler,
    )
