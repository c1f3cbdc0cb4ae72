"""Invocations as people see them, alive or ended."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import DateTimeField, ExpressionWrapper, F, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast
from msgspec import Struct

from perdure.protocol.ids import format_id
from perdure.protocol.target import Target
from runtime.core.filters import InvocationFilter, Sort
from runtime.core.invocation import Status
from runtime.models import Done, Invocation, Timer
from runtime.reading import cursors
from runtime.reading.asking import PATIENCE_MS, TookTooLong, ask, ask_in_order
from runtime.reading.cursors import BadCursor

MOST = 1_000
"""More in one answer is a query for a database, not for eyes."""

MOST_COUNTED = 10_000
"""More are estimated: what a person does next does not depend on the difference."""

COUNTING_MS = 250

WINDOW = 20_000
"""So many of the living are put in the order of their last change: an index of that would cost every change."""


class Summary(Struct, frozen=True, kw_only=True):
    """An invocation as one line of a list."""

    id: str
    target: str
    """As in `Mailbox/Mary/put`."""
    service: str
    handler: str
    key: str | None
    status: str
    outcome: str | None
    """How it ended."""
    created_at: datetime
    modified_at: datetime
    completed_at: datetime | None
    deployment_id: str | None
    idempotency_key: str | None
    invoked_by_id: str | None
    """The invocation that called it and awaits its result."""
    due_at: datetime | None
    """Scheduled: not before; backing off: the next attempt."""
    retry_count: int
    """How many of its attempts have failed, from its birth on."""
    failure: Mapping[str, Any] | None
    """Why it failed, or why its last attempt did."""


class Page(Struct, frozen=True):
    """A piece of a list."""

    invocations: Sequence[Summary]
    next: str | None
    """The cursor of the next page; None: this is the last one."""
    cut: str | None
    """Which were not looked at, in words; None: all were."""


class Count(Struct, frozen=True):
    """How many there are."""

    value: int
    is_exact: bool
    """Else it is what PostgreSQL's planner reckons with."""


async def page(wanted: InvocationFilter, sort: Sort = Sort.NEWEST, *, limit: int, cursor: str | None = None) -> Page:
    """What comes next in a list. Raises BadCursor, TookTooLong.

    It begins behind the place where the page before ended, whatever has come or gone since. One statement reads the
    living and the ended, so that one that ends meanwhile is not shown twice, nor missed.
    """
    after = None if cursor is None else _read_cursor(cursor, sort)
    end = await _end_of_window(wanted, sort)
    found = await ask_in_order(
        lambda walks: list(_in_order(wanted, sort, after, end, limit + 1, walks=walks)), PATIENCE_MS
    )
    last = found[limit - 1] if len(found) > limit else None
    first = "newest" if sort.is_descending else "oldest"
    return Page(
        [_summary(row) for row in found[:limit]],
        None if last is None else cursors.write((sort, last["at"], last["id"])),
        cut=None if end is None else f"Of those that have not ended only the {WINDOW:,} {first} are in this order.",
    )


async def ids(wanted: InvocationFilter, *, after: bytes | None = None, limit: int) -> list[bytes]:
    """Whom a verb by filter means: the next `limit` behind the id `after`, in the order of their ids.

    Raises TookTooLong.
    """
    behind = Q() if after is None else Q(id__gt=UUID(bytes=after))
    found = [rows.filter(behind).order_by("id").values("id")[:limit] for rows in _meant(wanted)]
    return list(
        dict.fromkeys(row["id"].bytes for row in await ask(lambda: list(_merged(found, "id")[:limit]), PATIENCE_MS))
    )


async def service_of(id: bytes) -> str | None:
    """Whose invocation it is, alive or ended; None: it is not known, or not kept any more."""
    for rows in (Invocation.objects, Done.objects):
        service = await rows.filter(id=UUID(bytes=id)).values_list("service", flat=True).afirst()
        if service is not None:
            return service
    return None


async def count(wanted: InvocationFilter) -> Count:
    """How many are meant; above MOST_COUNTED, or where it takes long to find them, an estimate."""
    # Without an order the living would be scanned, with all the room that those who have left did not give back.
    ordered = [rows.order_by("created_at") if rows.model is Invocation else rows for rows in _meant(wanted)]
    found = [rows.values("id")[: MOST_COUNTED + 1] for rows in ordered]
    try:
        counted = await ask(_merged(found)[: MOST_COUNTED + 1].count, COUNTING_MS)
        if counted <= MOST_COUNTED:
            return Count(counted, is_exact=True)
    except TookTooLong:
        counted = 0
    reckoned = [await _reckoned(rows) for rows in _meant(wanted)]
    return Count(max(counted, sum(reckoned)), is_exact=False)


async def summaries(ids: Collection[bytes], services: Collection[str] | None = None) -> dict[str, Summary]:
    """Those among them that there are, by id; of `services` only, unless that is None."""
    wanted = InvocationFilter(ids=tuple(ids), services=None if services is None else tuple(services))
    found: dict[str, Summary] = {}
    async for row in _merged([_shown(rows).values(*SHOWN) for rows in _meant(wanted)]):
        summary = _summary(row)
        if summary.outcome is None or summary.id not in found:  # an idempotency key that has expired may be used again
            found[summary.id] = summary
    return found


# The living and the ended in one list -------------------------------------------------------------------------------

SHOWN = (
    *("id", "created_at", "service", "handler", "key", "deployment", "caller", "idempotency_key", "failure"),
    *("status", "outcome", "modified_at", "completed_at", "due_at", "failed_attempts"),
)
NO_TEXT, NO_TIME = Cast(Value(None), TextField()), Cast(Value(None), DateTimeField())
AS_ALIVE: dict[str, Any] = {"outcome": NO_TEXT, "completed_at": NO_TIME}
AS_ENDED: dict[str, Any] = {
    "status": Value(Status.COMPLETED.value, TextField()),
    "modified_at": F("completed_at"),
    "due_at": NO_TIME,
}
TIMES = {"created": "created_at", "modified": "modified_at", "due": "due"}

Rows = QuerySet[Any, Any]
Place = tuple[datetime, UUID]
"""Where a page ended: the time that the list is ordered by, and an id."""


async def _end_of_window(wanted: InvocationFilter, sort: Sort) -> datetime | None:
    """When the last one of the living that are put in the order of their changes was created; None: all are."""
    if sort.field != "modified" or not wanted.may_be_alive:
        return None
    alive = next(_meant(wanted)).order_by(f"{'-' if sort.is_descending else ''}created_at").values("created_at")
    beyond = await ask(lambda: list(alive[WINDOW - 1 : WINDOW + 1]), PATIENCE_MS)
    return beyond[0]["created_at"] if len(beyond) > 1 else None


def _in_order(
    wanted: InvocationFilter, sort: Sort, after: Place | None, end: datetime | None, limit: int, *, walks: bool
) -> Rows:
    sign = "-" if sort.is_descending else ""
    found = []
    for rows in _meant(wanted, is_due=sort.field == "due"):
        time = "completed_at" if sort.field == "modified" and rows.model is Done else TIMES[sort.field]
        behind = Q() if after is None else _behind(time, after, sort)
        if end is not None and rows.model is Invocation:
            behind &= Q(created_at__gte=end) if sort.is_descending else Q(created_at__lte=end)
        # A sum has no index, so what has ended is not walked along. What lives is: few filters of it have an index.
        sorts = rows.model is Done and not walks
        at = ExpressionWrapper(F(time) + timedelta(), DateTimeField()) if sorts else F(time)
        shown = _shown(rows).filter(behind).annotate(at=at)
        found.append(shown.order_by(f"{sign}{'at' if sorts else time}", f"{sign}id").values(*SHOWN, "at")[:limit])
    return _merged(found, f"{sign}at", f"{sign}id")[:limit]


def _shown(rows: QuerySet[Any]) -> QuerySet[Any]:
    """With what the other table has and this one has not."""
    shown: QuerySet[Any] = rows.annotate(**(AS_ENDED if rows.model is Done else AS_ALIVE))
    return shown


def _merged(found: Sequence[Rows], *order: str) -> Rows:
    if not found:
        return Invocation.objects.none().values()
    first, *others = found
    return first.union(*others, all=True).order_by(*order) if others else first


def _meant(wanted: InvocationFilter, *, is_due: bool = False) -> Iterator[QuerySet[Any]]:
    """Those that live and those that have ended, as far as any of them can be meant."""
    is_due = is_due or wanted.due_after is not None or wanted.due_before is not None
    if wanted.may_be_alive:
        said: dict[str, Any] = {
            "modified_at__gte": wanted.modified_after,
            "modified_at__lt": wanted.modified_before,
            "status__in": wanted.statuses or None,
        }
        alive = Invocation.objects.filter(_known(wanted), _all(said))
        yield _due(alive, wanted) if is_due else alive
    if wanted.may_have_ended and not is_due:
        said = {
            "completed_at__gte": wanted.modified_after,
            "completed_at__lt": wanted.modified_before,
            "outcome__in": wanted.outcomes or None,
        }
        yield Done.objects.filter(_known(wanted), _all(said))


def _due(alive: QuerySet[Any], wanted: InvocationFilter) -> QuerySet[Any]:
    """Those of them that have a timer, with its time: timers are kept in order."""
    timed = alive.filter(timers__slot__in=(Timer.START, Timer.RETRY)).annotate(due=F("timers__due"))
    found: QuerySet[Any] = timed.filter(_all({"due__gte": wanted.due_after, "due__lt": wanted.due_before}))
    return found


def _known(wanted: InvocationFilter) -> Q:
    """What can be asked of the living and of the ended alike."""
    return _all(
        {
            "id__in": None if wanted.ids is None else [UUID(bytes=id) for id in wanted.ids],
            "service": wanted.service,
            "handler": wanted.handler,
            "key": wanted.key,
            "deployment": wanted.deployment,
            "caller": None if wanted.caller is None else UUID(bytes=wanted.caller),
            "idempotency_key": wanted.idempotency_key,
            "created_at__gte": wanted.created_after,
            "created_at__lt": wanted.created_before,
            "failure__message__icontains": wanted.failure,
            "service__in": wanted.services,
        }
    )


def _all(said: Mapping[str, Any]) -> Q:
    return Q(**{name: value for name, value in said.items() if value is not None})


def _behind(time: str, after: Place, sort: Sort) -> Q:
    """Later in the order; the first part says nothing new, and is what an index is asked for."""
    at, id = after
    beyond = "lt" if sort.is_descending else "gt"
    return Q(**{f"{time}__{beyond}e": at}) & (Q(**{f"{time}__{beyond}": at}) | Q(**{time: at, f"id__{beyond}": id}))


def _read_cursor(cursor: str, sort: Sort) -> Place:
    of, at, id = cursors.read(cursor, tuple[str, datetime, UUID])
    if of != sort:
        raise BadCursor(f"This cursor is of the order {of[:20]!r}, not of {sort.value!r}.")
    return at.replace(tzinfo=at.tzinfo or UTC), id


async def _reckoned(rows: QuerySet[Any]) -> int:
    """How many rows the planner expects."""
    plan = msgspec.json.decode(await rows.order_by().values("id").aexplain(format="json"))
    return int(plan[0]["Plan"]["Plan Rows"])


def _summary(row: Mapping[str, Any]) -> Summary:
    return Summary(
        id=format_id(row["id"].bytes),
        target=str(Target(row["service"], row["handler"], row["key"])),
        service=row["service"],
        handler=row["handler"],
        key=row["key"],
        status=row["status"],
        outcome=row["outcome"],
        created_at=row["created_at"],
        modified_at=row["modified_at"],
        completed_at=row["completed_at"],
        deployment_id=row["deployment"],
        idempotency_key=row["idempotency_key"],
        invoked_by_id=None if row["caller"] is None else format_id(row["caller"].bytes),
        due_at=row["due_at"],
        retry_count=row["failed_attempts"],
        failure=row["failure"],
    )
