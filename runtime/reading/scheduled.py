"""Sends that are not due yet as people see them, by the time at which they are due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from django.db.models import Q, QuerySet
from msgspec import Struct

from runtime.core.invocation import Status
from runtime.core.scheduled import ScheduledFilter
from runtime.models import Timer
from runtime.reading import cursors
from runtime.reading.asking import PATIENCE_MS, ask

MOST = 1_000
"""More in one answer is a query for a database, not for eyes."""


class Scheduled(Struct, frozen=True, kw_only=True):
    """A send as one line of a list."""

    id: str
    target: str
    """As in `Mailbox/Mary/put`."""
    service: str
    handler: str
    key: str | None
    due_at: datetime
    created_at: datetime
    idempotency_key: str | None


class Page(Struct, frozen=True):
    scheduled: Sequence[Scheduled]
    next: str | None
    """The cursor of the next page; None: this is the last one."""


async def page(wanted: ScheduledFilter, limit: int, cursor: str | None = None) -> Page:
    """The next that are due. Raises BadCursor, TookTooLong."""
    rows = _ordered(wanted)
    if cursor is not None:
        due, position = cursors.read(cursor, tuple[datetime, int])
        due = due.replace(tzinfo=due.tzinfo or UTC)
        rows = rows.filter(Q(due__gt=due) | Q(due=due, position__gt=position), due__gte=due)
    found = await ask(lambda: list(rows.select_related("invocation")[: limit + 1]), PATIENCE_MS)
    last = found[limit - 1] if len(found) > limit else None
    return Page(
        [_scheduled(row) for row in found[:limit]],
        None if last is None else cursors.write((last.due, last.position)),
    )


async def ids(wanted: ScheduledFilter, limit: int) -> list[bytes]:
    """Whom a verb by filter means: at most `limit`, those first that are due first. Raises TookTooLong."""
    rows = _ordered(wanted).values_list("invocation_id", flat=True)[:limit]
    return [id.bytes for id in await ask(lambda: list(rows), PATIENCE_MS)]


def _ordered(wanted: ScheduledFilter) -> QuerySet[Timer]:
    rows = Timer.objects.filter(slot=Timer.START, invocation__status=Status.SCHEDULED)
    said = {
        "service": wanted.service,
        "handler": wanted.handler,
        "key": wanted.key,
        "due__gte": wanted.due_after,
        "due__lt": wanted.due_before,
        "service__in": wanted.services,
    }
    rows = rows.filter(**{name: value for name, value in said.items() if value is not None})
    return rows.order_by("due", "position")


def _scheduled(row: Timer) -> Scheduled:
    send = row.invocation
    return Scheduled(
        id=send.public_id,
        target=send.target,
        service=send.service,
        handler=send.handler,
        key=send.key,
        due_at=row.due,
        created_at=send.created_at,
        idempotency_key=send.idempotency_key,
    )
