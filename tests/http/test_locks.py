"""Keys at the ingress: a service that has some is called with one of them, and nobody else's results are shown."""

from __future__ import annotations

import doctest
from collections.abc import AsyncIterator

import pytest

from perdure.protocol.ids import format_awakeable, format_id, idempotent_id, parse_id
from perdure.protocol.messages import Value
from runtime.core import callers
from runtime.core.callers import digest
from runtime.core.registry import Registry
from runtime.ingress.app import Ingress
from tests.support.asgi import Answer, Caller, started
from tests.support.manifests import registry
from tests.support.operations import FakeOperations

KEY, NEXT = "pk_1_secret", "pk_2_secret"


def with_keys(*keys: str) -> Registry:
    known = registry()
    digests = frozenset(digest(key.encode()) for key in keys)
    return Registry(known.services.values(), "with keys", {"Greeter": digests} if digests else {})


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations(with_keys(KEY, NEXT))


@pytest.fixture
async def caller(operations: FakeOperations) -> AsyncIterator[Caller]:
    async with started(Ingress(lambda: operations)) as caller:
        yield caller


async def greet(caller: Caller, **headers: str) -> Answer:
    return await caller.post("/Greeter/greet", b'"Mary"', **headers)


def test_the_examples_hold() -> None:
    assert doctest.testmod(callers).failed == 0


@pytest.mark.parametrize("key", [KEY, NEXT])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_any_of_the_keys_opens_the_service(
    caller: Caller, operations: FakeOperations, key: str, scheme: str
) -> None:
    answer = await greet(caller, authorization=f"{scheme} {key}")

    assert answer.status == 200
    assert "authorization" not in {header.key for header in operations.submissions[0].headers}


@pytest.mark.parametrize(
    ("headers", "words", "challenge"),
    [
        ({}, "Greeter is called with a key.", "Bearer"),
        ({"authorization": f"Basic {KEY}"}, "Greeter is called with a key.", "Bearer"),
        ({"authorization": "Bearer pk_1_other"}, "This is no key of Greeter.", 'Bearer error="invalid_token"'),
        ({"authorization": "Bearer "}, "This is no key of Greeter.", 'Bearer error="invalid_token"'),
    ],
)
@pytest.mark.parametrize("path", ["/Greeter/greet", "/Greeter/greet/send", "/restate/call/Greeter/greet"])
async def test_without_a_key_nothing_is_done(
    caller: Caller, operations: FakeOperations, path: str, headers: dict[str, str], words: str, challenge: str
) -> None:
    answer = await caller.post(path, b'"Mary"', **headers)

    assert answer.status == 401
    assert answer.json()["message"] == words
    assert answer.headers["www-authenticate"] == challenge
    assert operations.submissions == []


async def test_a_service_without_keys_is_open(caller: Caller) -> None:
    assert (await caller.post("/Mailbox/Mary/put", b'"Hi"')).status == 200


async def test_a_key_that_is_taken_back_opens_nothing_more(caller: Caller, operations: FakeOperations) -> None:
    operations.registry = with_keys(NEXT)

    assert (await greet(caller, authorization=f"Bearer {KEY}")).status == 401
    assert (await greet(caller, authorization=f"Bearer {NEXT}")).status == 200


@pytest.mark.parametrize(
    "path", ["/restate/invocation/{id}/output", "/restate/attach/{id}", "/restate/invocation/Greeter/greet/once/output"]
)
async def test_results_are_shown_to_whoever_may_call(caller: Caller, path: str) -> None:
    answer = await greet(caller, authorization=f"Bearer {KEY}", idempotency_key="once")
    path = path.replace("{id}", answer.headers["x-restate-id"])

    without, with_one = await caller.get(path), await caller.get(path, authorization=f"Bearer {NEXT}")

    assert (without.status, with_one.status) == (401, 200)


@pytest.mark.parametrize("verb", ["attach", "output"])
async def test_who_asks_for_an_id_before_its_invocation_is_born_is_not_shown_its_result(
    caller: Caller, operations: FakeOperations, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    async def born_in_between(_: bytes) -> None:
        await greet(caller, authorization=f"Bearer {KEY}", idempotency_key="once")

    monkeypatch.setattr(operations, "service_of", born_in_between)
    id = format_id(idempotent_id("Greeter", None, "greet", "once"))

    assert (await caller.get(f"/restate/{verb}/{id}")).status == 404
    assert len(operations.submissions) == 1


async def test_results_of_an_open_service_are_shown_to_everybody(caller: Caller) -> None:
    id = (await caller.post("/Mailbox/Mary/put", b'"Hi"')).headers["x-restate-id"]

    assert (await caller.get(f"/restate/invocation/{id}/output")).status == 200


async def test_a_body_that_names_an_invocation_needs_the_key_too(caller: Caller) -> None:
    id = (await greet(caller, authorization=f"Bearer {KEY}")).headers["x-restate-id"]
    body = b'{"target": "invocation", "invocationId": "%b"}' % id.encode()

    assert (await caller.post("/restate/output", body)).status == 401
    assert (await caller.post("/restate/output", body, authorization=f"Bearer {KEY}")).status == 200


async def test_the_document_needs_the_key_and_says_so(caller: Caller) -> None:
    locked = await caller.get("/restate/openapi/Greeter", authorization=f"Bearer {KEY}")

    assert (await caller.get("/restate/openapi/Greeter")).status == 401
    assert locked.json()["security"] == [{"Key": []}]
    assert locked.json()["components"]["securitySchemes"]["Key"] == {"type": "http", "scheme": "bearer"}
    assert "security" not in (await caller.get("/restate/openapi/Mailbox")).json()


async def test_a_service_that_is_not_served_any_more_keeps_its_results_to_itself(
    caller: Caller, operations: FakeOperations
) -> None:
    id = (await greet(caller, authorization=f"Bearer {KEY}")).headers["x-restate-id"]
    locked = operations.registry
    operations.registry = Registry([locked.service("Mailbox")], "without Greeter", locked.keys)

    assert (await caller.get(f"/restate/invocation/{id}/output")).status == 401


async def test_awakeables_of_a_locked_service_are_ended_with_its_key(
    caller: Caller, operations: FakeOperations
) -> None:
    locked = (await greet(caller, authorization=f"Bearer {KEY}")).headers["x-restate-id"]
    open_one = (await caller.post("/Mailbox/Mary/put", b'"Hi"')).headers["x-restate-id"]

    def resolve(id: str) -> str:
        return f"/restate/a/{format_awakeable(parse_id(id), 17)}/resolve"

    assert (await caller.post(resolve(locked), b"1")).status == 401
    assert operations.signals == []
    assert (await caller.post(resolve(locked), b"2", authorization=f"Bearer {NEXT}")).status == 202
    assert (await caller.post(resolve(open_one), b"3")).status == 202
    assert [(id, signal.result) for id, signal in operations.signals] == [
        (parse_id(locked), Value(b"2")),
        (parse_id(open_one), Value(b"3")),
    ]


async def test_an_awakeable_of_nobody_is_answered_alike_and_told_to_nobody_born_since(
    caller: Caller, operations: FakeOperations
) -> None:
    assert (await caller.post(f"/restate/a/{format_awakeable(bytes(16), 17)}/resolve", b"1")).status == 202
    assert operations.signals == []
