"""Invocations: which there are, and what they did."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.http import HttpRequest
from msgspec.structs import asdict
from ninja import Query, Router, Schema
from pydantic import AfterValidator, Field

from perdure.protocol.ids import parse_id
from runtime.api.filters import Filter, Text
from runtime.api.guard import actor, viewer
from runtime.api.parameters import refuse_others
from runtime.api.problems import Problem
from runtime.core.filters import Sort
from runtime.operations import UnknownInvocation
from runtime.reading import invocations, tree
from runtime.reading.detail import Detail, find
from runtime.reading.invocations import Summary
from runtime.reading.journal import hidden, payload
from runtime.reading.tree import Relation
from runtime.reading.why import Reason

router = Router(tags=["invocations"])


LINE = 500
"""Characters of a failure in a list."""


class Failure(Schema):
    """Why an invocation failed, or why its last attempt did."""

    code: int
    message: str = ""
    stacktrace: str | None = None
    command: int | None = None
    """The index of the command that the failure is about."""
    name: str | None = None
    type: int | None = None


def _first_line(failure: Failure | None) -> Failure | None:
    """As much as a list shows."""
    if failure is None:
        return None
    return failure.model_copy(update={"message": failure.message.partition("\n")[0][:LINE], "stacktrace": None})


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
    """How many of its attempts have failed, from its birth on: also of one that is paused or has ended."""
    failure: Annotated[Failure | None, AfterValidator(_first_line)]
    """In a list: the first line of its message, and not where it happened."""

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
    cut: str | None = None
    """Which were not looked at, in words; null: all were."""


class JournalEntry(Schema):
    index: int
    type: str
    name: str
    completed: bool | None
    details: dict[str, Any]


class Waiting(Schema):
    """Something that it awaits."""

    index: int | None
    """Of its entry in the journal; null: of a signal there is none before it comes."""
    what: str
    """As in `Sleep`, `Call`, `Run` or `Signal`."""
    name: str
    """The handler called, what the author called it, or an awakeable's id."""
    invocation_id: str | None
    until: datetime | None


class Why(Schema):
    """What keeps an invocation; what does not apply is null."""

    reason: Reason
    sentence: str
    since: datetime | None
    until: datetime | None
    """When it goes on by itself."""
    awaits: list[Waiting]
    ahead: int | None
    """How many come before it in its key's inbox, counted up to 10,000."""
    queue: str | None
    engine: str | None
    """Which drives it, or has its key."""
    missing_code: str | None
    """Its code, which no engine has loaded."""
    invocation_id: str | None
    """The one invocation that it waits for: who has its key, or whose result it awaits."""
    because: Why | None
    """What keeps that one in turn, up to ten of them."""
    is_circle: bool
    """That one is among those that wait for this one: a deadlock, by all that one look shows."""


class InvocationDetail(Invocation):
    failure: Failure | None
    """All of it."""
    why: Why
    """What keeps it from going on."""
    journal: list[JournalEntry]

    @classmethod
    def of_detail(cls, detail: Detail) -> InvocationDetail:
        return cls(
            **asdict(detail.summary),
            why=Why.from_orm(detail.why),
            journal=[JournalEntry.from_orm(entry) for entry in detail.journal],
        )


class Node(Schema):
    """An invocation in a tree."""

    id: str
    target: str | None
    """null: it is not known any more."""
    relation: Relation | None
    """To its parent: `call`, whose result is awaited, or `send`; null: the root and its ancestors."""
    name: str
    """What the parent's author called it."""
    summary: Invocation | None
    """null: it is not kept any more, or of a service that you may not see."""
    children: list[Node]
    left_out: int
    """Children that are not in the tree: it has grown deep or large enough."""
    is_repeated: bool
    """It stands in the tree already, with its children."""
    is_unread: bool
    """Its journal is too large to be read for its children."""


class Tree(Schema):
    ancestors: list[Node]
    """Who called it, who called that one and so on; the first cause first. Who sent it is not known."""
    root: Node
    """Itself, with its children."""
    count: int
    """Invocations in it, the ancestors too."""
    cut: str | None
    """What is not in it, in words; null: it is whole."""


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
    auth=viewer.scoped,
    summary="Invocations, alive or ended, by filter",
)
async def list_invocations(request: HttpRequest, wanted: Query[Listing]) -> Any:
    """The newest first, unless it is said otherwise. Unknown parameters are refused."""
    refuse_others(request, Listing)
    meant = wanted.within(actor(request))
    page = await invocations.page(meant, wanted.sort, limit=wanted.limit, cursor=wanted.cursor)
    count = None
    if wanted.count:
        is_whole = wanted.cursor is None and page.next is None and page.cut is None
        count = invocations.Count(len(page.invocations), is_exact=True) if is_whole else await invocations.count(meant)
    return Invocations(
        invocations=[Invocation.of(summary) for summary in page.invocations],
        next=page.next,
        cut=page.cut,
        count=None if count is None else Count(value=count.value, exact=count.is_exact),
    )


@router.get(
    "/invocations/{id}",
    response={200: InvocationDetail, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="One invocation with its journal, and what keeps it",
)
async def get_invocation(request: HttpRequest, id: str) -> Any:
    key, by = parse_id(id), actor(request)
    detail = await find(key, services=by.services, show=payload if by.sees_payloads else hidden)
    if detail is None:
        raise UnknownInvocation(key)
    return InvocationDetail.of_detail(detail)


@router.get(
    "/invocations/{id}/tree",
    response={200: Tree, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="Who called an invocation, and whom it has called",
)
async def get_tree(
    request: HttpRequest,
    id: str,
    depth: Annotated[int, Query(ge=1, le=tree.DEEPEST)] = 10,
    limit: Annotated[int, Query(ge=1, le=tree.MOST)] = 100,
) -> Any:
    """`depth` levels up and down, with at most `limit` invocations; `cut` says what is missing."""
    key = parse_id(id)
    found = await tree.tree(key, depth=depth, limit=limit, services=actor(request).services)
    if found is None:
        raise UnknownInvocation(key)
    return Tree.from_orm(found)
