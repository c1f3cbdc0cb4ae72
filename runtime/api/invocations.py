"""Invocations: which there are, and what they did."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Query, Router, Schema
from pydantic import Field

from perdure.protocol.ids import parse_id
from runtime.api.filters import Filter, Text
from runtime.api.guard import actor, viewer
from runtime.api.parameters import refuse_others
from runtime.api.problems import Problem
from runtime.core.filters import Sort
from runtime.operations import UnknownInvocation
from runtime.reading import invocations
from runtime.reading.invocations import Detail, Summary

router = Router(tags=["invocations"])


class Failure(Schema):
    """Why an invocation failed, or why its last attempt did."""

    code: int
    message: str = ""
    stacktrace: str | None = None
    command: int | None = None
    """The index of the command that the failure is about."""
    name: str | None = None
    type: int | None = None


class Invocation(Schema):
    id: str
    target: str
    service: str
    handler: str
    key: str | None
    status: str
    outcome: str | None
    created_at: datetime
    modified_at: datetime
    completed_at: datetime | None
    deployment_id: str | None
    idempotency_key: str | None
    invoked_by_id: str | None
    due_at: datetime | None
    retry_count: int
    failure: Failure | None

    @classmethod
    def of(cls, summary: Summary) -> Invocation:
        return cls.from_orm(summary)


class Count(Schema):
    value: int
    exact: bool
    """Up to 10,000 are counted; more are estimated by PostgreSQL's planner."""


class Invocations(Schema):
    invocations: list[Invocation]
    next: str | None
    """The `cursor` of the next page; null: this is the last one."""
    count: Count | None
    """How many are meant, on all pages together."""


class Entry(Schema):
    index: int
    type: str
    name: str
    completed: bool | None
    details: dict[str, Any]


class InvocationDetail(Invocation):
    missing_code: str | None
    """The code that it waits for, which no engine has loaded."""
    journal: list[Entry]

    @classmethod
    def of_detail(cls, detail: Detail) -> InvocationDetail:
        return cls(
            **Invocation.of(detail.summary).dict(),
            missing_code=detail.missing_code,
            journal=[Entry.from_orm(entry) for entry in detail.journal],
        )


class Listing(Filter):
    """Which ones, in which order, and how many of them."""

    sort: Sort = Sort.NEWEST
    """By the time of its creation, of its last change, or at which it is due (only those that are); `-`: the latest
    first."""
    limit: Annotated[int, Field(ge=1, le=invocations.MOST)] = 100
    cursor: Text | None = None
    """`next` of the page before."""
    count: bool = True
    """Whether to say how many there are."""


@router.get(
    "/invocations",
    response={200: Invocations, 400: Problem, 503: Problem},
    auth=viewer,
    summary="Invocations, alive or ended, by filter",
)
async def list_invocations(request: HttpRequest, wanted: Query[Listing]) -> Any:
    """The newest first, unless it is said otherwise. Unknown parameters are refused."""
    refuse_others(request, Listing)
    meant = wanted.within(actor(request))
    page = await invocations.page(meant, wanted.sort, limit=wanted.limit, cursor=wanted.cursor)
    count = await invocations.count(meant) if wanted.count else None
    return Invocations(
        invocations=[Invocation.of(summary) for summary in page.invocations],
        next=page.next,
        count=None if count is None else Count(value=count.value, exact=count.is_exact),
    )


@router.get(
    "/invocations/{id}",
    response={200: InvocationDetail, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer,
    summary="One invocation with its journal",
)
async def get_invocation(request: HttpRequest, id: str) -> Any:
    key = parse_id(id)
    detail = await invocations.find(key)
    if detail is None:
        raise UnknownInvocation(key)
    return InvocationDetail.of_detail(detail)
