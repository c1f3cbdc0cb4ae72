"""Invocations: what they did, and what may be done to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Query, Router, Schema, Status
from pydantic import Field

from perdure.protocol.ids import format_id, parse_id
from runtime import hall, steering
from runtime.api.filters import Filter, Text
from runtime.api.guard import actor, operator, viewer
from runtime.api.parameters import refuse_others
from runtime.api.problems import Problem
from runtime.core.filters import Sort
from runtime.operations import UnknownInvocation
from runtime.reading import invocations
from runtime.reading.invocations import Detail, Summary
from runtime.store.resume import Resumed
from runtime.store.verbs import Verdict

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


class Told(Schema):
    """What came of it: `done`, it has ended; `asked`, whoever drives it will end it; `resumed`, it is tried again."""

    id: str
    verdict: str


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


@router.patch(
    "/invocations/{id}/cancel",
    response={200: Told, 202: Told, 400: Problem, 404: Problem, 409: Problem, 503: Problem},
    auth=operator,
    summary="Ask an invocation to end",
)
async def cancel(request: HttpRequest, id: str) -> Any:
    """It may undo what it did first. 200: it had not started, and has ended. 202: it has been asked."""
    key = parse_id(id)
    verdict = await steering.cancel(await hall.operations(), key, actor(request))
    return _told(key, verdict, asked=202)


@router.patch(
    "/invocations/{id}/kill",
    response={200: Told, 400: Problem, 404: Problem, 409: Problem, 503: Problem},
    auth=operator,
    summary="End an invocation at once",
)
async def kill(request: HttpRequest, id: str) -> Any:
    """Its unfinished calls end with it. Nothing is undone, and what it committed stays."""
    key = parse_id(id)
    verdict = await steering.kill(await hall.operations(), key, actor(request))
    return _told(key, verdict, asked=200)


def _told(id: bytes, verdict: Verdict, *, asked: int) -> Status[Any]:
    if verdict is Verdict.ALREADY_ENDED:
        return Status(409, Problem(message=f"The invocation {format_id(id)} has ended already."))
    return Status(200 if verdict is Verdict.DONE else asked, Told(id=format_id(id), verdict=verdict))


@router.patch(
    "/invocations/{id}/resume",
    response={200: Told, 400: Problem, 404: Problem, 409: Problem, 425: Problem, 503: Problem},
    auth=operator,
    summary="Try a paused or backing-off invocation again now",
)
async def resume(request: HttpRequest, id: str, deployment: str = steering.KEEP) -> Any:
    """On the code that it had (`keep`), on its service's newest (`latest`), or on that of a deployment's id.

    Its count of failed attempts begins anew. What the code does differently than the journal pauses it again.
    """
    key = parse_id(id)
    resumed = await steering.resume(await hall.operations(), key, actor(request), deployment)
    if resumed is Resumed.RESUMED:
        return Status(200, Told(id=id, verdict=resumed))
    status, reason = NOT_RESUMED[resumed]
    return Status(status, Problem(message=f"The invocation {format_id(key)} {reason}"))


NOT_RESUMED = {
    Resumed.NOT_STARTED: (425, "has not started yet: there is nothing to resume."),
    Resumed.AT_WORK: (409, "is neither paused nor backing off."),
    Resumed.ALREADY_ENDED: (409, "has ended already."),
    Resumed.NO_SUCH_CODE: (409, "cannot go on there: no such deployment has its service."),
}
