"""Virtual objects in the operators' API: their keys, inboxes and values, and how those are changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

import psycopg
import pytest
from django.core.asgi import get_asgi_application
from django.http import HttpRequest
from django.test import AsyncClient

from perdure.protocol.ids import format_id, parse_id
from perdure.protocol.limits import DEFAULTS
from perdure.protocol.messages import Output
from runtime.api import guard
from runtime.conf import settings
from runtime.core import edits
from runtime.core.access import Actor, Role
from runtime.operations import Ended, Operations, Submission

NOTHING = edits.version({})
ODD_KEYS = ["a/b", "a/b/state", "/", "50%", "50%25", "%2F", "straße ∞", "?x=1#y", "a b+c", "x" * 512, "state", "..x"]


@pytest.fixture
async def sql(our_database: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(our_database, autocommit=True) as connection:
        yield connection


Put = Callable[..., Awaitable[None]]


@pytest.fixture
def put(sql: psycopg.AsyncConnection) -> Put:
    """Let an object have values, as its handlers would have left them."""

    async def put(key: str, service: str = "Mailbox", **values: Any) -> None:
        for name, value in values.items():
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            await sql.execute("INSERT INTO state VALUES (%s, %s, %s, %s)", [service, key, name, content])

    return put


async def sent(operations: Operations, key: str) -> str:
    accepted = await operations.send(Submission(operations.registry.resolve("Mailbox", "put"), key, b'"Hello"'))
    return format_id(accepted.id)


async def keys(client: AsyncClient, query: str = "") -> list[str]:
    answer = await client.get(f"/objects{query}")
    assert answer.status_code == 200, answer.content
    return [one["key"] for one in answer.json()["objects"]]


def asking(monkeypatch: pytest.MonkeyPatch, actor: Actor) -> None:
    """Let all requests come from somebody."""

    async def whose(_: HttpRequest) -> Actor:
        return actor

    monkeypatch.setattr(guard, "whose", whose)


async def raw(method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """A request whose path is as it was sent, which Django's own client does not know of."""
    sent: list[Any] = []
    received = asyncio.Queue[Any]()
    received.put_nowait(
        {"type": "http.request", "body": json.dumps(body).encode() if body else b"", "more_body": False}
    )

    async def send(message: Any) -> None:
        sent.append(message)

    raw_path, _, query = path.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
        "path": unquote(raw_path), "raw_path": raw_path.encode(), "query_string": query.encode(),
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await get_asgi_application()(scope, received.get, send)
    return sent[0]["status"], json.loads(b"".join(one.get("body", b"") for one in sent[1:]))


# Keys


async def test_keys_are_there_that_have_values_or_an_inbox(
    client: AsyncClient, operations: Operations, put: Put
) -> None:
    await put("Anna", letters=[])
    await sent(operations, "Tom")
    await sent(operations, "Tom")
    await put("Tom", letters=[])

    found = (await client.get("/objects")).json()["objects"]

    anna = {"service": "Mailbox", "key": "Anna", "holder": None, "inbox_length": 0, "has_state": True}
    assert found == [anna, {**anna, "key": "Tom", "inbox_length": 2}]
    assert await keys(client, "?busy=true") == ["Tom"]
    assert await keys(client, "?prefix=An") == ["Anna"]
    assert await keys(client, "?service=Nobody") == []


async def test_pages_of_keys_follow_one_another(client: AsyncClient, operations: Operations, put: Put) -> None:
    for n in range(5):
        await put(f"k{n}", a=1, b=2)
        await sent(operations, f"k{n}x")
    found, query = list[str](), "?limit=4"
    while query:
        page = (await client.get(f"/objects{query}")).json()
        found += [one["key"] for one in page["objects"]]
        query = f"?limit=4&cursor={page['next']}" if page["next"] else ""

    assert found == sorted(found)
    assert set(found) == {f"k{n}{x}" for n in range(5) for x in ("", "x")}


async def test_a_key_shows_its_holder_and_its_inbox_in_order(
    client: AsyncClient, operations: Operations, sql: psycopg.AsyncConnection
) -> None:
    ids = [await sent(operations, "Mary") for _ in range(3)]
    await sql.execute(
        "UPDATE invocation SET status = 'suspended', begun_at = '2026-01-01T12:00:00Z' WHERE id = %s",
        [parse_id(ids[0]).hex()],
    )

    one = (await client.get("/objects/Mailbox/Mary?limit=2")).json()

    assert one["holder"] == {
        "id": ids[0], "handler": "put", "status": "suspended", "since": "2026-01-01T12:00:00Z", "engine": None,
    }  # fmt: skip
    assert ([letter["id"] for letter in one["inbox"]], one["inbox_length"]) == (ids[:2], 3)
    rest = (await client.get(f"/objects/Mailbox/Mary?after={one['next']}")).json()
    assert ([letter["id"] for letter in rest["inbox"]], rest["next"]) == (ids[2:], None)


async def test_a_key_that_nobody_has_used_is_empty_and_of_no_object_there_is_none(
    client: AsyncClient, operations: Operations
) -> None:
    assert (await client.get("/objects/Mailbox/new")).json()["inbox"] == []
    assert (await client.get("/objects/Mailbox/new/state")).json()["version"] == NOTHING
    for path in ("", "/state", "/history"):
        assert (await client.get(f"/objects/Nobody/new{path}")).status_code == 404
        assert (await client.get(f"/objects/Greeter/new{path}")).status_code == 400


async def test_what_makes_no_sense_is_a_400_in_words(operations: Operations) -> None:
    for path in (
        "/objects?cursor=x", "/objects?limit=0", "/objects?prefix=%00", "/objects/Mailbox/%00", "/objects/Mailbox/%FF",
        "/objects/Mailbox/%FF/state", f"/objects/Mailbox/{'x' * 513}", "/objects/Mailbox/a?after=-1", "/objects/%00/a",
        f"/objects/Mailbox/a?after={2**63}", "/objects/Mailbox/a/history?before=x",
        "/objects/Mailbox/a/history?name=%00", "/objects?bussy=true", "/objects/Mailbox/a?x=1",
    ):  # fmt: skip
        status, answer = await raw("GET", path)
        assert (status, bool(answer["message"])) == (400, True), path


async def test_any_key_is_one_segment_of_the_path(operations: Operations, put: Put) -> None:
    for key in ODD_KEYS:
        await put(key, name=key)
        at = f"/objects/Mailbox/{quote(key, safe='')}"
        _, found = await raw("GET", at)
        assert (found["key"], found["has_state"]) == (key, True)
        assert (await raw("GET", f"{at}/state"))[1]["state"] == {"name": key}
        assert (await raw("GET", f"{at}/history"))[1]["changes"] == []


# Values


async def test_values_are_shown_as_they_are_with_their_version(
    client: AsyncClient, operations: Operations, put: Put
) -> None:
    values = {"list": b"[1, 2.50]", "none": b"null", "raw": b"\xff\x00"}
    await put("Mary", **values)

    shown = (await client.get("/objects/Mailbox/Mary/state")).json()

    assert shown == {
        "version": edits.version(values),
        "state": {"list": [1, 2.5], "none": None},
        "base64": {"raw": "/wA="},
        "hidden": [],
    }


async def test_who_may_not_see_payloads_sees_names_only(
    client: AsyncClient, operations: Operations, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put("Mary", secret="hush")
    blind = Actor("blind", Role.VIEWER, "tests", sees_payloads=False)
    asking(monkeypatch, blind)

    answer = await client.get("/objects/Mailbox/Mary/state")

    assert "hush" not in answer.content.decode()
    assert answer.json()["hidden"] == ["secret"]


async def test_who_may_not_see_payloads_cannot_tell_them_by_their_version(
    client: AsyncClient, operations: Operations, put: Put, secret: None
) -> None:
    await put("Mary", pin=b"1234")

    shown = (await client.get("/objects/Mailbox/Mary/state")).json()["version"]

    key = settings().version_key("Mailbox", "Mary")
    assert shown == edits.version({"pin": b"1234"}, key)
    assert shown not in (edits.version({"pin": b"1234"}), edits.version({"pin": b"1234"}, b"hush"))


async def test_who_may_touch_some_services_only_sees_theirs(
    client: AsyncClient, operations: Operations, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put("Mary", a=1)
    scoped = Actor("scoped", Role.OPERATOR, "tests", services=frozenset({"Greeter"}))
    asking(monkeypatch, scoped)

    assert await keys(client) == []
    for path in ("", "/state", "/history"):
        assert (await client.get(f"/objects/Mailbox/Mary{path}")).status_code == 403
    assert (await raw("PUT", "/objects/Mailbox/Mary/state", {"state": {}}))[0] == 403
    assert (await raw("PATCH", "/objects/Mailbox/Mary/state", {"set": {}, "clear": ["a"]}))[0] == 403
    assert (await raw("POST", "/services/Mailbox/state", {"object_key": "Mary", "new_state": {}}))[0] == 403


# Changing them: here are no engines, so a change waits, or ends as the test says


async def test_a_change_waits_in_the_inbox_like_any_other(
    client: AsyncClient, operations: Operations, sql: psycopg.AsyncConnection
) -> None:
    first = await sent(operations, "a/b")

    for method, body in (
        ("PUT", {"state": {"a": [1, "ß"]}, "base64": {"b": "/wA="}, "version": NOTHING}),
        ("PATCH", {"set": {"a": 1.5}, "clear": ["b"]}),
    ):
        status, answer = await raw(method, "/objects/Mailbox/a%2Fb/state?wait=0", body)
        assert (status, answer["version"]) == (202, None)
        assert answer["invocation_id"] in answer["note"]

    inbox = (await raw("GET", "/objects/Mailbox/a%2Fb"))[1]["inbox"]
    assert [(letter["id"] == first, letter["handler"]) for letter in inbox] == [
        (True, "put"), (False, edits.HANDLER), (False, edits.HANDLER),
    ]  # fmt: skip
    assert [row[0] for row in await (await sql.execute("SELECT verb FROM audit ORDER BY id")).fetchall()] == [
        "state.replace", "state.edit",
    ]  # fmt: skip


async def test_restates_way_to_replace_values(client: AsyncClient, operations: Operations) -> None:
    body = {"object_key": "Mary", "new_state": {"a": [49, 50]}}

    status, answer = await raw("POST", "/services/Mailbox/state", body)

    assert status == 202
    assert (await client.get(f"/invocations/{answer['invocation_id']}")).json()["target"] == "Mailbox/Mary/state.edit"


async def test_values_that_cannot_be_are_refused(operations: Operations) -> None:
    for method, body in (
        ("PUT", {}), ("PUT", {"state": []}), ("PUT", {"state": {"": 1}}), ("PUT", {"state": {"a\0": 1}}),
        ("PUT", {"state": {"x" * 513: 1}}), ("PUT", {"state": {"a": float("inf")}}),
        ("PUT", {"state": {"a": "\ud800"}}), ("PUT", {"state": {"\ud800": 1}}),
        ("PUT", {"state": {}, "base64": {"a": "%"}}), ("PUT", {"state": {}, "base64": {"a": "ß"}}),
        ("PATCH", {"set": {"a": 1}, "clear": ["a"]}), ("PATCH", {"clear": [""]}), ("PATCH", {"clear": "a"}),
        ("PATCH", {"version": 1, "clear": ["a"]}), ("PATCH", {"versoin": "x", "clear": ["a"]}),
        ("PATCH", {"by": "me", "set": {"a": float("nan")}}),
    ):  # fmt: skip
        status, answer = await raw(method, "/objects/Mailbox/Mary/state?wait=0", body)
        assert (status, bool(answer["message"])) == (400, True), body
    assert (await raw("GET", "/objects/Mailbox/Mary"))[1]["inbox_length"] == 0


async def test_a_value_that_is_too_large_is_refused_before_it_waits(operations: Operations) -> None:
    values = {"small": 1, "large": "x" * DEFAULTS.value}

    status, answer = await raw("PUT", "/objects/Mailbox/Mary/state?wait=0", {"state": values})

    assert status == 413
    assert "PERDURE_LARGEST_VALUE" in answer["message"]
    assert (await raw("GET", "/objects/Mailbox/Mary"))[1]["inbox_length"] == 0


async def test_of_what_is_no_object_no_values_are_changed(operations: Operations) -> None:
    assert (await raw("PUT", "/objects/Nobody/Mary/state?wait=0", {"state": {"a": 1}}))[0] == 404
    assert (await raw("PUT", "/objects/Greeter/Mary/state?wait=0", {"state": {"a": 1}}))[0] == 400


@pytest.mark.parametrize(
    ("messages", "status", "version"),
    [
        (edits.carry_out(edits.Edit(by="x", set={"a": b"1"}), {}), 200, edits.version({"a": b"1"})),
        (
            edits.carry_out(edits.Edit(by="x", expected="other"), {"a": b"1"}),
            409,
            edits.version({"a": b"1"}),
        ),
    ],
)
async def test_what_has_come_of_it_is_told(
    operations: Operations, monkeypatch: pytest.MonkeyPatch, messages: list[Any], status: int, version: str
) -> None:
    (output,) = (message for message in messages if isinstance(message, Output))

    async def attach(_: Operations, id: bytes) -> Ended:
        return Ended(id, output.result)

    monkeypatch.setattr(Operations, "attach", attach)

    answered, answer = await raw("PATCH", "/objects/Mailbox/Mary/state", {"set": {"a": 1}})

    assert (answered, answer["version"]) == (status, version)
