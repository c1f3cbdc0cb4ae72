"""The ingress client, against a server that says what the test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import (
    Context,
    ObjectContext,
    Service,
    TerminalError,
    UsageError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.client import Client, IngressError, NotReady

ACCEPTED = b'{"invocationId":"inv_1sent","status":"Accepted"}'


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return name

    @handler
    async def polite(self, ctx: Context, name: str = "you") -> str:
        return name

    @handler
    async def echo(self, ctx: Context, content: bytes) -> bytes:
        return content


class Mailbox(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, text: str) -> int:
        return 1


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, mail: str) -> int:
        return 1

    @handler
    async def confirm(self, ctx: WorkflowSharedContext, secret: str) -> bool:
        return True


def answer(body: bytes, status: int = 200, **headers: str) -> bytes:
    fields = {"content-length": str(len(body)), "x-restate-id": "inv_1called"} | headers
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Ingress:
    """Answers each request with the next of `answers`; an empty one closes the connection."""

    answers: list[bytes] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.rpartition("content-length: ")[2].split()[0])
                self.requests.append(head + (await reader.readexactly(length)).decode())
                reply = self.answers.pop(0)
                if not reply:
                    break
                writer.write(reply)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def ingress() -> AsyncIterator[Ingress]:
    ingress = Ingress()
    server = await asyncio.start_server(ingress.serve, "127.0.0.1", 0)
    ingress.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield ingress
    server.close()


@pytest.fixture
async def client(ingress: Ingress) -> AsyncIterator[Client]:
    async with Client(ingress.url, headers={"authorization": "Bearer me"}) as client:
        yield client


async def test_a_call_is_a_post_of_json(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(b'"Hello Ann"'), answer(b"5")]
    call = client.service(Greeter, idempotency_key="once").greet("Ann")
    assert await call == "Hello Ann"
    assert await call.invocation_id() == "inv_1called"
    assert await client.object(Mailbox, "Mary / ?").put("Hi") == 5
    first, second = ingress.requests
    assert first.startswith("POST /Greeter/greet HTTP/1.1\r\n")
    for line in ("authorization: Bearer me", "idempotency-key: once", "content-type: application/json"):
        assert line in first
    assert first.endswith('\r\n\r\n"Ann"')
    assert second.startswith("POST /Mailbox/Mary%20%2F%20%3F/put HTTP/1.1\r\n")
    assert ingress.connections == 1


async def test_bytes_and_nothing_travel_as_what_they_are(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(b"raw"), answer(b'"Hello you"'), answer(b"")]
    assert await client.service(Greeter).echo(b"") == b"raw"
    assert await client.service(Greeter).polite() == "Hello you"
    assert await client.service("Else where").anything() is None
    octets, nothing, by_name = ingress.requests
    assert "content-type: application/octet-stream" in octets
    assert "content-type" not in nothing
    assert by_name.startswith("POST /Else%20where/anything HTTP/1.1")


async def test_a_send_gives_its_id_when_it_is_accepted(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(ACCEPTED, 202, x_restate_id="inv_1sent")]
    handle = client.object_send(Mailbox, "Mary", delay=timedelta(seconds=1.5)).put("Hi")
    assert await handle.invocation_id() == "inv_1sent"
    assert ingress.requests[0].startswith("POST /Mailbox/Mary/put/send?delay=1500ms HTTP/1.1")


async def test_a_send_may_be_due_at_a_time_and_what_is_past_is_due_now(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(ACCEPTED, 202)] * 4
    for at in (
        datetime.now(UTC) + timedelta(hours=1),
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ):
        await client.service_send(Greeter, at=at).greet("Ann").invocation_id()
    await client.service_send(Greeter, delay=timedelta(seconds=-1)).greet("Ann").invocation_id()
    later, *past = (int(request.partition("?delay=")[2].partition("ms")[0]) for request in ingress.requests)
    assert 3_590_000 < later <= 3_600_000
    assert past == [0, 0, 0]


async def test_leaving_the_block_waits_for_sends_nobody_awaited(ingress: Ingress) -> None:
    ingress.answers = [answer(ACCEPTED, 202)]
    async with Client(ingress.url) as client:
        client.service_send(Greeter).greet("Ann")
    assert len(ingress.requests) == 1


async def test_leaving_the_block_tells_of_a_send_that_was_refused(ingress: Ingress) -> None:
    ingress.answers = [answer(b'{"code":404,"message":"no such service","source":"ingress"}', 404)]
    with pytest.raises(IngressError, match="no such service"):
        async with Client(ingress.url) as client:
            client.service_send(Greeter).greet("Ann")


async def test_results_are_had_by_id(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(b"[1]"), answer(b"", 470), answer(b'"late"')]
    assert await client.attach("inv_1x", list[int]) == [1]
    with pytest.raises(NotReady):
        await client.output("inv_1x")
    assert await client.output("inv_1x") == "late"
    assert [request.split(" ")[1] for request in ingress.requests] == [
        "/restate/invocation/inv_1x/attach",
        "/restate/invocation/inv_1x/output",
        "/restate/invocation/inv_1x/output",
    ]


async def test_terminal_errors_and_refusals_are_told_apart(ingress: Ingress, client: Client) -> None:
    ingress.answers = [
        answer(b'{"code":410,"message":"sold out","metadata":{"item":"shoe"},"source":"invocation"}', 410),
        answer(b'{"code":400,"message":"bad delay","source":"ingress"}', 400),
        answer(b"<html>Bad gateway", 502),
    ]
    with pytest.raises(TerminalError, match="sold out") as terminal:
        await client.service(Greeter).greet("Ann")
    assert (terminal.value.code, terminal.value.metadata) == (410, {"item": "shoe"})
    with pytest.raises(IngressError, match="bad delay") as refused:
        await client.service(Greeter).greet("Ann")
    assert refused.value.status == 400
    with pytest.raises(IngressError, match="502"):
        await client.service(Greeter).greet("Ann")


@pytest.mark.parametrize(
    "reply",
    [
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n"He\r\n4;x=y\r\nllo"\r\n0\r\ntrailer: 1\r\n\r\n',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"Hello"',
    ],
)
async def test_bodies_come_in_several_forms(ingress: Ingress, client: Client, reply: bytes) -> None:
    ingress.answers = [reply, answer(b'"again"')]
    assert await client.service(Greeter).greet("Ann") == "Hello"
    assert await client.service(Greeter).greet("Ann") == "again"
    assert ingress.connections == 1


async def test_a_connection_that_was_closed_meanwhile_is_replaced(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(b'"one"', connection="close"), answer(b'"two"')]
    assert await client.service(Greeter).greet("Ann") == "one"
    assert await client.service(Greeter).greet("Ann") == "two"
    assert ingress.connections == 2


@pytest.mark.parametrize(
    "part",
    [
        answer(b'"Hello"')[:-3],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nHel",
        b"HTTP/1.1 200 OK\r\ncontent-le",
    ],
)
async def test_a_server_that_dies_in_the_middle_of_its_answer_is_an_os_error(part: bytes) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(part)
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with server, Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(OSError, match="closed the connection"):
            await client.service(Greeter).greet("Mary")


async def test_a_connection_that_breaks_is_an_os_error_and_the_request_is_not_sent_twice(
    ingress: Ingress, client: Client
) -> None:
    ingress.answers = [b"", answer(b'"two"')]
    with pytest.raises(OSError, match="closed the connection"):
        await client.service(Greeter).greet("Ann")
    assert len(ingress.requests) == 1


async def test_headers_cannot_smuggle_anything(ingress: Ingress, client: Client) -> None:
    for value in ("a\r\nx-evil: 1", "grüße"):
        with pytest.raises(UsageError, match="printable ASCII"):
            await client.service(Greeter, idempotency_key=value).greet("Ann")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Client(url)


async def test_a_client_has_the_handlers_of_its_service_only(client: Client) -> None:
    clients: list[Any] = [client.service(Greeter), client.object_send(Mailbox, "Mary")]
    assert [hasattr(each, "greet") for each in clients] == [True, False]


async def test_a_workflow_is_started_told_and_awaited(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(ACCEPTED, 202), answer(b"true"), answer(b"1"), answer(b"2"), answer(b"3")]
    handle = client.workflow_send(Signup, "Mary / John", delay=timedelta(seconds=1)).run("mary@example.com")
    assert await handle.invocation_id() == "inv_1called"
    assert await client.workflow(Signup, "Mary / John", headers={"tenant": "north"}).confirm("secret") is True
    assert await client.workflow("Signup", "Mary / John").run("mary@example.com") == 1
    assert await client.attach(Signup.run, key="Mary / John") == 2
    assert await client.output(Signup.run, key="Mary / John") == 3
    assert [request.partition(" HTTP")[0] for request in ingress.requests] == [
        "POST /Signup/Mary%20%2F%20John/run/send?delay=1000ms",
        "POST /Signup/Mary%20%2F%20John/confirm",
        "POST /Signup/Mary%20%2F%20John/run",
        "GET /restate/workflow/Signup/Mary%20%2F%20John/attach",
        "GET /restate/workflow/Signup/Mary%20%2F%20John/output",
    ]
    assert "tenant: north" in ingress.requests[1]


async def test_results_are_found_by_idempotency_key(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(b'"Hello Ann"'), answer(b"5"), answer(b"{}", 470)]
    assert await client.attach(Greeter.greet, idempotency_key="a/b") == "Hello Ann"
    assert await client.attach(Mailbox.put, key="Mary", idempotency_key="once") == 5
    with pytest.raises(NotReady):
        await client.output(Mailbox.put, key="Mary", idempotency_key="once")
    assert [request.partition(" HTTP")[0] for request in ingress.requests] == [
        "GET /restate/invocation/Greeter/greet/a%2Fb/attach",
        "GET /restate/invocation/Mailbox/Mary/put/once/attach",
        "GET /restate/invocation/Mailbox/Mary/put/once/output",
    ]


@pytest.mark.parametrize(
    ("invocation", "keys", "problem"),
    [
        ("inv_1x", {"key": "Mary"}, "needs no key"),
        (3, {}, "An invocation's id, or a handler, is wanted"),
        (Greeter.greet, {}, "say which, by idempotency_key="),
        (Greeter.greet, {"key": "Mary", "idempotency_key": "once"}, "takes no key="),
        (Mailbox.put, {"idempotency_key": "once"}, "is found by its key="),
        (Signup.run, {}, "is found by its key="),
        (Signup.run, {"key": "Mary", "idempotency_key": "once"}, "it runs once"),
        (Signup.confirm, {"key": "Mary"}, "say which, by idempotency_key="),
    ],
)
async def test_an_invocation_that_is_not_named_is_not_looked_for(
    client: Client, invocation: Any, keys: dict[str, str], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        await client.attach(invocation, **keys)
    with pytest.raises(UsageError, match=problem):
        await client.output(invocation, **keys)


async def test_awakeables_are_answered(ingress: Ingress, client: Client) -> None:
    ingress.answers = [answer(b"", 202)] * 4
    await client.resolve_awakeable("sign_1x", {"by": "Mary"})
    await client.resolve_awakeable("sign_1x", b"raw")
    await client.resolve_awakeable("sign_1x")
    await client.reject_awakeable("sign_1x", "Schade für dich")
    as_json, octets, nothing, rejected = ingress.requests
    assert as_json.startswith("POST /restate/awakeables/sign_1x/resolve HTTP")
    assert "content-type: application/json" in as_json
    assert as_json.endswith('{"by":"Mary"}')
    assert "content-type: application/octet-stream" in octets
    assert octets.endswith("raw")
    assert nothing.endswith("null")
    assert rejected.startswith("POST /restate/awakeables/sign_1x/reject HTTP")
    assert rejected.endswith("Schade für dich")
