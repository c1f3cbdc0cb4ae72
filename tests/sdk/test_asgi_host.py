"""The host behind HTTP: what it answers to discovery and invocations, and to those who do not keep to the protocol."""

from __future__ import annotations

import asyncio
from base64 import b64decode, urlsafe_b64encode
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from perdure import Context, Endpoint, Retry, Service, handler
from perdure.errors import UsageError
from perdure.hosts import asgi
from perdure.hosts.identity import Identity, Refused
from perdure.protocol import messages as m
from perdure.protocol.codec import decode, encode
from tests.support.asgi import Answer, App, Message

MANIFEST = "application/vnd.restate.endpointmanifest.v"
PRIVATE = b64decode("MC4CAQAwBQYDK2VwBCIEIHsQRVQ+AZX9/Yy1b0Zw+OA+bb7xDxGsAd5kB45jZhoc")
PUBLIC = "publickeyv1_ChjENKeMvCtRnqG2mrBK1HmPKufgFUc98K8B3ononQvp"
OTHER = "publickeyv1_AfUDdB8wHUfYq4Rr9gbEHHAQfGm5LRJpFJEUVwxLaFbZ"
NOW = 1_000_000


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return await ctx.run("greet", lambda: f"hi {name}")


class Patient(Service, retry=Retry(max_attempts=3)):
    @handler
    async def wait(self, ctx: Context) -> None:
        await ctx.sleep(timedelta(seconds=1))


APP = asgi.app(Endpoint(Greeter))
INPUT = m.Input(m.Value(b'"bob"'))


def start(known_entries: int = 1) -> m.Start:
    return m.Start(bytes(16), "inv_1debug", known_entries)


async def ask(app: App, method: str, path: str, headers: dict[str, str] | None = None, *chunks: bytes) -> Answer:
    """One whole request, over HTTP/2."""
    events: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    events.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Message] = []

    async def receive() -> Message:
        return events.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    encoded = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": encoded, "http_version": "2"}
    await app(scope, receive, send)
    assert not sent[-1].get("more_body", False)
    got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], got, b"".join(part["body"] for part in sent[1:]))


async def invoke(*chunks: bytes, version: int = 7, path: str = "/invoke/Greeter/greet", app: App = APP) -> Answer:
    return await ask(app, "POST", path, {"content-type": f"application/vnd.restate.invocation.v{version}"}, *chunks)


# Discovery


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (f"{MANIFEST}4+json, {MANIFEST}3+json, {MANIFEST}2+json", 4),
        (f"{MANIFEST}2+json, {MANIFEST}5+json", 5),
        ("*/*", 5),
    ],
)
async def test_the_newest_manifest_that_is_accepted_is_given(accept: str, chosen: int) -> None:
    answer = await ask(APP, "GET", "/any/prefix/discover", {"accept": accept})
    assert answer.status == 200
    assert answer.headers["content-type"] == f"{MANIFEST}{chosen}+json"
    assert answer.headers["x-restate-server"].startswith("perdure/")
    assert [service["name"] for service in answer.json()["services"]] == ["Greeter"]
    assert (answer.json()["minProtocolVersion"], answer.json()["maxProtocolVersion"]) == (5, 7)


async def test_a_manifest_that_nobody_knows_is_refused() -> None:
    assert (await ask(APP, "GET", "/discover", {"accept": f"{MANIFEST}1+json"})).status == 415


async def test_what_an_old_manifest_cannot_say_is_said() -> None:
    answer = await ask(asgi.app(Endpoint(Patient)), "GET", "/discover", {"accept": f"{MANIFEST}3+json"})
    assert answer.status == 500
    assert "retryPolicyMaxAttempts" in answer.json()["message"]


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/nothing", 404), ("/invoke/Greeter/shout", 404)])
async def test_other_paths(path: str, status: int) -> None:
    assert (await invoke(path=path)).status == status


@pytest.mark.parametrize("version", [4, 8])
async def test_a_version_that_is_not_spoken_is_refused(version: int) -> None:
    assert (await invoke(encode(start()), encode(INPUT), version=version)).status == 415


# Invocations


async def test_the_journal_may_come_in_pieces_and_the_answer_ends_with_a_suspension_where_the_request_has_ended() -> (
    None
):
    journal = encode(start()) + encode(INPUT)
    answer = await invoke(journal[:5], journal[5:20], journal[20:])
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/vnd.restate.invocation.v7"
    assert decode(answer.body) == [
        m.Run(1, "greet"),
        m.ProposeRunCompletion(1, m.Value(b'"hi bob"')),
        m.Suspension(m.Wait(completions=(1,), signals=(1,))),
    ]
    assert answer.body.count(bytes.fromhex("00058000")) == 1, "from version 7 on it asks for a confirmation"


async def test_before_version_7_a_suspension_is_flat() -> None:
    answer = await invoke(encode(start()), encode(INPUT), version=6)
    assert answer.body.endswith(bytes.fromhex("0001000000000006 0a0101 120101"))


async def test_the_attempt_that_knows_the_result_of_the_step_ends() -> None:
    entries = [INPUT, m.Run(1, "greet"), m.RunCompletion(1, m.Value(b'"hi bob"'))]
    answer = await invoke(encode(start(3)), *map(encode, entries))
    assert decode(answer.body) == [m.Output(m.Value(b'"hi bob"')), m.End()]


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [encode(INPUT)],
        [encode(start(0))],
        [encode(start(2)), encode(INPUT)],
        [encode(start()), encode(INPUT), encode(m.Run(1, "late"))],
        [encode(start()), encode(INPUT), encode(m.ProposeRunCompletionAck(9))],
        [encode(start()), encode(m.End())],
        [b"<html>oh no</html>"],
    ],
    ids=["nothing", "no start", "no entries", "cut off", "late command", "unknown step", "no entry", "no frames"],
)
async def test_a_runtime_that_does_not_keep_to_the_protocol_is_told_so(chunks: list[bytes]) -> None:
    error = decode((await invoke(*chunks)).body)[-1]
    assert isinstance(error, m.Error)
    assert error.code == 571


async def test_a_handler_whose_runtime_has_gone_is_dropped() -> None:
    gone, waits = asyncio.Event(), asyncio.Event()

    class Sleeper(Service):
        @handler
        async def sleep(self, ctx: Context) -> None:
            try:
                await ctx.sleep(timedelta(days=1))
            finally:
                gone.set()

    pieces = [encode(start()) + encode(m.Input(m.Value(b"")))]

    async def receive() -> Message:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}
        await waits.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            waits.set()

    headers = [(b"content-type", b"application/vnd.restate.invocation.v7")]
    scope = {"type": "http", "path": "/invoke/Sleeper/sleep", "headers": headers, "http_version": "2"}
    await asgi.app(Endpoint(Sleeper))(scope, receive, send)
    await asyncio.wait_for(gone.wait(), 5)


# Identity


def signed(path: str, *, key: str = PUBLIC, now: int = NOW, private: bytes = PRIVATE) -> dict[str, str]:
    header = {"typ": "JWT", "alg": "EdDSA", "kid": key}
    claims = {"aud": path, "iat": now, "nbf": now - 60, "exp": now + 60}
    content = ".".join(urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=").decode() for part in (header, claims))
    signer: Any = load_der_private_key(private, None)
    proof = urlsafe_b64encode(signer.sign(content.encode())).rstrip(b"=").decode()
    return {"x-restate-signature-scheme": "v1", "x-restate-jwt-v1": f"{content}.{proof}"}


IDENTITY = Identity([OTHER, PUBLIC], clock=lambda: NOW)


def test_a_signature_of_a_trusted_key_is_accepted() -> None:
    IDENTITY.check("/discover", signed("/discover"))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "not signed"),
        ({**signed("/discover"), "x-restate-signature-scheme": "unsigned"}, "not signed"),
        (signed("/invoke/A/b"), "signed for /invoke/A/b"),
        (signed("/discover", now=NOW + 61), "not valid yet"),
        (signed("/discover", now=NOW - 61), "expired"),
        (signed("/discover", key=OTHER), "not that of the key"),
        (signed("/discover", key="publickeyv1_x"), "not trusted"),
        ({**signed("/discover"), "x-restate-jwt-v1": "nonsense"}, "malformed"),
        ({**signed("/discover"), "x-restate-jwt-v1": signed("/discover")["x-restate-jwt-v1"][:-8]}, "not that of the"),
    ],
)
def test_any_other_is_refused(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        IDENTITY.check("/discover", headers)


async def test_who_is_not_trusted_gets_401_and_health_needs_no_trust() -> None:
    app = asgi.app(Endpoint(Greeter), identity_keys=[PUBLIC])
    assert (await ask(app, "GET", "/discover", {"accept": "*/*"})).status == 401
    assert (await invoke(encode(start()), encode(INPUT), app=app)).status == 401
    assert (await ask(app, "GET", "/health")).status == 200


@pytest.mark.parametrize("key", ["ChjENKeMvCtRnqG2mrBK1HmPKufgFUc98K8B3ononQvp", "publickeyv1_0", "publickeyv1_2"])
def test_a_key_that_is_none_is_refused_at_once(key: str) -> None:
    with pytest.raises(UsageError, match="no public key"):
        Identity([key])
