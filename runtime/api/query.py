"""POST /query: read-only SQL on the views of docs/sql.md, answered in JSON or CSV."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema

from runtime.accounts.door import NotAllowed
from runtime.api.guard import actor, operator
from runtime.api.problems import Problem
from runtime.conf import settings
from runtime.store import query as store
from runtime.store.query import Answer, Bounds

router = Router(tags=["query"])


class Query(Schema):
    query: str
    """One SELECT on the views of docs/sql.md."""


class Rows(Schema):
    rows: list[dict[str, Any]]
    cut: str | None = None
    """What was left out, when the answer is not the whole one."""


AT_ONCE = 4
"""Queries that run at the same time, each on a connection of its own; the others wait for their turn."""

_turns = asyncio.Semaphore(AT_ONCE)


@router.post(
    "/query",
    response={200: Rows, 400: Problem, 501: Problem, 503: Problem},
    auth=operator,
    summary="Ask in SQL",
)
async def query(request: HttpRequest, asked: Query) -> Any:
    """One SELECT on the views of docs/sql.md. With `accept: text/csv` the answer is CSV.

    It is cut at a number of rows (PERDURE_QUERY_ROWS) and 16 MB: `cut` then says so, for CSV the header
    `x-perdure-cut`. It is stopped after PERDURE_QUERY_SECONDS.
    """
    if not actor(request).sees_payloads:
        raise NotAllowed(f"{actor(request).name} sees no payloads, and these are among what can be asked for here.")
    bounds = Bounds(settings().query_seconds, settings().query_rows)
    async with _turns:
        answer = await store.answer(settings().database_url, asked.query, bounds)
    cut = f"There is more: the answer was cut after {len(answer.rows)} rows." if answer.is_cut else None
    if request.accepts("application/json"):
        body = f'{{"rows":[{",".join(answer.rows)}],"cut":{msgspec.json.encode(cut).decode()}}}'
        return HttpResponse(body, content_type="application/json")
    return HttpResponse(
        as_csv(answer), content_type="text/csv; charset=utf-8", headers={} if cut is None else {"x-perdure-cut": cut}
    )


def as_csv(answer: Answer) -> str:
    """The rows under the names of their columns; without rows there are no names either.

    >>> as_csv(Answer(['{"id":"inv_1","n":1}', '{"id":null,"n":{"a":2}}'], is_cut=False))
    'id,n\\r\\ninv_1,1\\r\\n,"{""a"":2}"\\r\\n'
    """
    text = io.StringIO()
    writer = csv.writer(text)
    for number, row in enumerate(answer.rows):
        cells = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
        if number == 0:
            writer.writerow(cells)
        writer.writerow(map(_cell, cells.values()))
    return text.getvalue()


def _cell(value: msgspec.Raw) -> str:
    """A text as it is, anything else as JSON, null as nothing."""
    written = bytes(value)
    if written.startswith(b'"'):
        return str(msgspec.json.decode(written))
    return "" if written == b"null" else written.decode()
