"""Verbs by filter: begun with one request, and looked at while they are carried out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Schema, Status
from pydantic import Field

from runtime import bulk, hall
from runtime.api.filters import Filter, Text
from runtime.api.guard import actor, operator, viewer
from runtime.api.problems import Problem
from runtime.reading import bulk as reading
from runtime.steering import Verb

router = Router(tags=["invocations"])


class BulkWanted(Schema, extra="forbid"):
    """What is to be done, and to whom."""

    verb: Verb
    filter: Filter
    """Such of them as the verb can be done to: with nothing in it, `purge` is for all that have ended."""
    deployment: Text | None = None
    """For `resume` (`keep`, unless it is said otherwise) and `restart-as-new` (`latest`)."""
    dry_run: bool = False
    """Only count them."""
    at_most: Annotated[int, Field(ge=1, le=bulk.MOST)] = bulk.AT_MOST
    """When there are more, none is touched."""


class Meant(Schema):
    """How many a dry run has found."""

    matched: int


class Bulk(Schema):
    id: str
    verb: str
    filter: dict[str, Any]
    deployment: str
    asked_by: str
    total: int
    """Those whom the filter meant when it was asked for: who came later is not touched."""
    told: int
    """Those to whom it was done, or who were asked."""
    refused: int
    """Those to whom it could not be done: they ended meanwhile, say."""
    came: dict[str, int]
    """What came of it, and of how many."""
    created_at: datetime
    finished_at: datetime | None
    stopped_by: str | None
    """Who has stopped it before all were told."""


class Bulks(Schema):
    bulk: list[Bulk]


@router.post(
    "/bulk",
    response={200: Meant, 202: Bulk, 400: Problem, 409: Problem, 503: Problem},
    auth=operator.scoped,
    summary="Do something to all invocations that a filter means",
)
async def begin_bulk(request: HttpRequest, wanted: BulkWanted) -> Any:
    """200: a dry run. 202: it is written down and being carried out, whatever becomes of this process."""
    by = actor(request)
    meant = wanted.filter.within(by)
    ids = await bulk.meant(wanted.verb, meant, bulk.MOST if wanted.dry_run else wanted.at_most)
    if wanted.dry_run:
        return Status(200, Meant(matched=len(ids)))
    here = await hall.operations()
    said = wanted.filter.model_dump(mode="json", exclude_defaults=True)
    id = await bulk.begin(here, wanted.verb, ids, by, said, wanted.deployment, meant.bounds)
    here.in_background(lambda: bulk.carry_out(here, id))
    return Status(202, Bulk.from_orm(await reading.find(UUID(bytes=id))))


@router.get(
    "/bulk", response={200: Bulks, 400: Problem, 503: Problem}, auth=viewer.scoped, summary="The latest verbs by filter"
)
async def list_bulk(request: HttpRequest, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Any:
    """A token for some services sees those that are about no other."""
    return {"bulk": [Bulk.from_orm(one) for one in await reading.latest(limit, actor(request).services)]}


@router.get(
    "/bulk/{id}",
    response={200: Bulk, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="How far a verb by filter has come",
)
async def get_bulk(request: HttpRequest, id: UUID) -> Any:
    found = await reading.find(id, actor(request).services)
    return _unknown(id) if found is None else Bulk.from_orm(found)


@router.patch(
    "/bulk/{id}/stop",
    response={200: Bulk, 400: Problem, 404: Problem, 409: Problem, 503: Problem},
    auth=operator.scoped,
    summary="Tell nobody else of those whom a verb by filter means",
)
async def stop_bulk(request: HttpRequest, id: UUID) -> Any:
    """Who has been told stays told. 409: all have been told already."""
    by = actor(request)
    if await reading.find(id, by.services) is None:
        return _unknown(id)
    if not await bulk.stop(await hall.operations(), id.bytes, by):
        return Status(409, Problem(message=f"The verb by filter {id} is finished already: there is nothing to stop."))
    return Bulk.from_orm(await reading.find(id))


def _unknown(id: UUID) -> Status[Any]:
    return Status(404, Problem(message=f"There is no verb by filter {id}, or it is not kept any more."))
