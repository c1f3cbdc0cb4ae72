"""What a request has that does not fit its operation is named with its place, in a sentence that is not a library's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from django.test import AsyncClient

from runtime import hall

ID = "inv_1" + "0" * 22


@pytest.fixture
async def client(our_database: str) -> AsyncIterator[AsyncClient]:
    yield AsyncClient()
    await hall.leave()


@pytest.mark.parametrize(
    ("request_line", "body", "where", "message"),
    [
        ("PATCH /scheduled/{id}/move", "{", "body", "The body is not JSON."),
        ("PATCH /scheduled/{id}/move", "", "body", "The body is missing."),
        ("PATCH /scheduled/{id}/move", "[]", "body", "The body must be a JSON object."),
        ("PATCH /scheduled/{id}/move", "{}", "body", "The body must have either `due_at` or `delay`."),
        (
            "PATCH /scheduled/{id}/move",
            '{"due_at": "soon"}',
            "body.due_at",
            "`due_at` in the body must be a time with a time zone, as in 2030-01-31T08:00:00Z.",
        ),
        (
            "PATCH /scheduled/{id}/move",
            '{"delay": true}',
            "body.delay",
            "`delay` in the body must be a duration, as in `5s`, `PT5S` or 5000 (milliseconds).",
        ),
        (
            "PATCH /scheduled/move",
            '{"filter": {"key": 3, "kez": "a"}, "delay": "1s"}',
            "body.filter.key",
            "`filter.key` in the body must be a text. `filter.kez` in the body is not known here.",
        ),
        (
            "POST /tokens",
            '{"name": "ci", "role": "king"}',
            "body.role",
            "`role` in the body must be 'viewer', 'operator' or 'admin'.",
        ),
        (
            "POST /tokens",
            '{"name": "\\ud800", "role": "viewer"}',
            "body.name",
            "`name` in the body must be valid Unicode (it holds a lone surrogate).",
        ),
        (
            "POST /bulk",
            '{"verb": "cancel", "filter": {"id": [1]}}',
            "body.filter.id.0",
            "`filter.id.0` in the body must be a text.",
        ),
        (
            "PATCH /services/Greeter",
            '{"journal_retention": []}',
            "body.journal_retention",
            "`journal_retention` in the body must be a duration, as in `5s`, `PT5S` or 5000 (milliseconds).",
        ),
        ("GET /invocations?limit=0", None, "query.limit", "`limit` in the query must be 1 or more."),
        ("GET /invocations?limit=many", None, "query.limit", "`limit` in the query must be a whole number."),
        ("GET /invocations?count=ja", None, "query.count", "`count` in the query must be true or false."),
        ("GET /invocations?outcome=odd", None, "query.outcome", "`outcome` in the query must be 'succeeded',"),
        ("GET /workers/zz", None, "path.id", "`id` in the path must be a UUID."),
        ("DELETE /tokens/0", None, "path.id", "`id` in the path must be 1 or more."),
        ("GET /objects/Mailbox/a%00b", None, "path.key", "`key` in the path must not hold a NUL character."),
    ],
)
async def test_what_does_not_fit_is_named_with_its_place(
    client: AsyncClient, request_line: str, body: str | None, where: str, message: str
) -> None:
    method, path = request_line.format(id=ID).split()

    response = await client.generic(method, path, body or "", content_type="application/json")

    assert response.status_code == 400
    assert response.json()["where"] == where
    assert response.json()["message"].startswith(message)
