"""Scheduled sends: what is not due yet, and what may be done about its time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Query, Router, Schema, Status
from pydantic import AwareDatetime, Field, model_validator

from perdure.protocol.ids import format_id, parse_id
from runtime import hall, rescheduling
from runtime.api.filters import Text
from runtime.api.guard import actor, operator, reach, viewer
from runtime.api.parameters import Duration, refuse_others
from runtime.api.problems import Problem
from runtime.core.access import Actor
from runtime.core.delays import read_delay
from runtime.core.lifecycle import bounded
from runtime.core.scheduled import ScheduledFilter
from runtime.reading import scheduled
from runtime.rescheduling import MOST, NOW
from runtime.store.scheduled import Rescheduled, Word

router = Router(tags=["scheduled sends"])


class SendFilter(Schema, extra="forbid"):
    """Which sends are meant: those for which all of it is so."""

    service: Text | None = None
    handler: Text | None = None
    key: Text | None = None
    due_after: AwareDatetime | None = None
    """Due then, or later."""
    due_before: AwareDatetime | None = None
    """Due before then."""

    def within(self, by: Actor) -> ScheduledFilter:
        """As the runtime takes it, within the services that somebody may touch."""
        services = None if by.services is None else tuple(sorted(by.services))
        return ScheduledFilter(**self.dict(include=set(SendFilter.model_fields)), services=services)


class SendListing(SendFilter):
    """Which sends, and how many of them."""

    limit: Annotated[int, Field(ge=1, le=scheduled.MOST)] = 100
    cursor: Text | None = None
    """`next` of the page before."""


class ScheduledSend(Schema):
    id: str
    target: str
    service: str
    handler: str
    key: str | None
    due_at: datetime
    created_at: datetime
    idempotency_key: str | None


class ScheduledSends(Schema):
    scheduled: list[ScheduledSend]
    next: str | None
    """The `cursor` of the next page; null: this is the last one."""


class When(Schema, extra="forbid"):
    """One of the two."""

    due_at: AwareDatetime | None = None
    delay: Duration | None = None
    """From now, as in `5m`, `PT1H` or 5000 (milliseconds)."""

    @model_validator(mode="after")
    def _is_one(self) -> When:
        if (self.due_at is None) == (self.delay is None):
            raise ValueError("must have either `due_at` or `delay`")
        return self

    @property
    def due(self) -> int:
        """In milliseconds since the epoch. Raises BadDelay."""
        if self.due_at is not None:
            return bounded(max(1, int(self.due_at.timestamp() * 1000)))
        return bounded(int(time.time() * 1000) + read_delay(self.delay or ""))


class SendTold(Schema):
    """What came of it."""

    id: str
    due_at: datetime | None = None
    """When it begins now; null: it has ended."""
    passes: int | None = 0
    """Sends to the same key that it has passed; null: there are too many to tell."""
    note: str | None = None
    """What that means, in words."""


class SendsMeant(Schema, extra="forbid"):
    """Those a filter means."""

    filter: SendFilter
    """With nothing in it: all."""
    dry_run: bool = False
    """Only count them."""
    at_most: Annotated[int, Field(ge=1, le=MOST)] = 1_000
    """When there are more, none is touched."""


class SendsMoved(SendsMeant, When):
    """Those a filter means, and when they are to be due."""


class SendsTold(Schema):
    """What came of it for those a filter meant."""

    matched: int
    done: int
    """0 after a dry run."""
    begun: int
    """They became due meanwhile and go their way, or have been taken back by somebody else."""
    dry_run: bool
    reordered: dict[str, int] | None
    """For each key (`Mailbox/Mary`) how often a moved send has passed another; null: there are too many to tell."""
    note: str | None = None


@router.get(
    "/scheduled",
    response={200: ScheduledSends, 400: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="The sends that are not due yet, by the time at which they are",
)
async def list_scheduled(request: HttpRequest, wanted: Query[SendListing]) -> Any:
    """Unknown parameters are refused."""
    refuse_others(request, SendListing)
    page = await scheduled.page(wanted.within(actor(request)), wanted.limit, wanted.cursor)
    return ScheduledSends(scheduled=[ScheduledSend.from_orm(one) for one in page.scheduled], next=page.next)


ONE = {200: SendTold, 400: Problem, 403: Problem, 404: Problem, 409: Problem, 503: Problem}
MANY = {200: SendsTold, 400: Problem, 409: Problem, 503: Problem}


@router.patch("/scheduled/{id}/run-now", response=ONE, auth=operator.scoped, summary="Let a send begin now")
async def run_scheduled_now(request: HttpRequest, id: str) -> Any:
    """It goes to the end of its key's inbox, before the key's sends that are due later."""
    return await _move(request, id, NOW)


@router.patch("/scheduled/{id}/move", response=ONE, auth=operator.scoped, summary="Let a send begin at another time")
async def move_scheduled(request: HttpRequest, id: str, when: When) -> Any:
    """Earlier or later. `passes` says whether the order of the sends to its key has changed by that."""
    return await _move(request, id, when.due)


@router.patch("/scheduled/{id}/cancel", response=ONE, auth=operator.scoped, summary="Take a send back")
async def cancel_scheduled(request: HttpRequest, id: str) -> Any:
    """It ends without having begun. One that has begun is a matter for /invocations/{id}/cancel."""
    key = parse_id(id)
    await reach(request, key)
    came = await rescheduling.cancel(await hall.operations(), [key], actor(request))
    return _told(key, came)


@router.patch("/scheduled/run-now", response=MANY, auth=operator.scoped, summary="Let sends begin now, by filter")
async def run_many_now(request: HttpRequest, many: SendsMeant) -> Any:
    """In the order in which they were due."""
    return await _move_many(request, many, NOW)


@router.patch(
    "/scheduled/move", response=MANY, auth=operator.scoped, summary="Let sends begin at another time, by filter"
)
async def move_many(request: HttpRequest, many: SendsMoved) -> Any:
    """All at one time, in the order in which they were due."""
    return await _move_many(request, many, many.due)


@router.patch("/scheduled/cancel", response=MANY, auth=operator.scoped, summary="Take sends back, by filter")
async def cancel_many(request: HttpRequest, many: SendsMeant) -> Any:
    by, here = actor(request), await hall.operations()
    return await _tell_many(many, by, lambda ids: rescheduling.cancel(here, ids, by))


async def _move(request: HttpRequest, id: str, due: int) -> Any:
    key = parse_id(id)
    await reach(request, key)
    return _told(key, await rescheduling.move(await hall.operations(), [key], due, actor(request)))


async def _move_many(request: HttpRequest, many: SendsMeant, due: int) -> Any:
    by, here = actor(request), await hall.operations()
    return await _tell_many(many, by, lambda ids: rescheduling.move(here, ids, due, by))


async def _tell_many(many: SendsMeant, by: Actor, tell: rescheduling.Tell) -> Any:
    meant = await rescheduling.by_filter(many.filter.within(by), tell, at_most=many.at_most, is_dry=many.dry_run)
    came = meant.came or Rescheduled()
    reordered = None if came.passes is None else {"/".join(key): count for key, count in came.passes.items()}
    return SendsTold(
        matched=len(meant.ids),
        done=came.count(Word.DONE),
        begun=came.count(Word.BEGUN) + came.count(Word.UNKNOWN),
        dry_run=many.dry_run,
        reordered=reordered,
        note=came.in_words,
    )


def _told(id: bytes, came: Rescheduled) -> Any:
    match came.words[id]:
        case Word.UNKNOWN:
            return Status(404, Problem(message=f"There is no invocation {format_id(id)}, or it is not kept any more."))
        case Word.BEGUN:
            return Status(409, Problem(message=f"{format_id(id)} is due already: it has begun, or has ended."))
    due = came.due.get(id)
    return SendTold(
        id=format_id(id),
        due_at=None if due is None else datetime.fromtimestamp(due / 1000, UTC),
        passes=None if came.passes is None else sum(came.passes.values()),
        note=came.in_words,
    )
