"""Who may do what: tokens, accounts, their roles and bounds, and the log of it all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.test import AsyncClient, AsyncRequestFactory, override_settings

from runtime import hall
from runtime.accounts import door, people, tokens
from runtime.accounts.door import NotAllowed
from runtime.accounts.faults import AccountFault, WrongPassword
from runtime.accounts.tokens import Tokens
from runtime.api.app import api
from runtime.conf import settings
from runtime.core.access import Actor, Role
from runtime.models import AuditEntry, Token
from runtime.project.asgi import application
from runtime.registering import register_module
from runtime.store.link import Link
from tests.support import history
from tests.support.asgi import Exchange

FOUNDER = Actor("founder", Role.ADMIN, "tests")
PASSWORD = "an unlikely sentence"

# Who may ask for what at least. An operation that is new needs a line here: the least role that may ask for it, and
# `scoped` when it keeps to the services of a token that is for some only (it has `auth=viewer.scoped` then).
OPEN, VIEWER, OPERATOR, ADMIN = None, Role.VIEWER, Role.OPERATOR, Role.ADMIN
MATRIX: dict[str, Role | None] = {
    "GET /health": OPEN,
    "GET /health/parts": VIEWER,
    "GET /version": OPEN,
    "GET /tokens": ADMIN,
    "POST /tokens": ADMIN,
    "DELETE /tokens/{id}": ADMIN,
    "GET /audit": OPERATOR,
    "GET /metrics": VIEWER,
    "POST /deployments": ADMIN,
    "GET /deployments": VIEWER,
    "GET /deployments/{id}": VIEWER,
    "DELETE /deployments/{id}": ADMIN,
    "GET /services": VIEWER,
    "GET /services/{name}": VIEWER,
    "PATCH /services/{name}": ADMIN,
    "GET /services/{name}/handlers": VIEWER,
    "GET /services/{name}/handlers/{handler}": VIEWER,
    "GET /services/{name}/openapi": VIEWER,
    "GET /services/{name}/keys": ADMIN,
    "POST /services/{name}/keys": ADMIN,
    "DELETE /services/{name}/keys/{id}": ADMIN,
    "GET /invocations": VIEWER,
    "GET /invocations/{id}": VIEWER,
    "GET /invocations/{id}/tree": VIEWER,
    "PATCH /invocations/{id}/pause": OPERATOR,
    "PATCH /invocations/{id}/purge": OPERATOR,
    "PATCH /invocations/{id}/purge-journal": OPERATOR,
    "PATCH /invocations/{id}/cancel": OPERATOR,
    "PATCH /invocations/{id}/kill": OPERATOR,
    "PATCH /invocations/{id}/resume": OPERATOR,
    "PATCH /invocations/{id}/restart-as-new": OPERATOR,
    "POST /bulk": OPERATOR,
    "GET /bulk": VIEWER,
    "GET /bulk/{id}": VIEWER,
    "PATCH /bulk/{id}/stop": OPERATOR,
    "GET /scheduled": VIEWER,
    "PATCH /scheduled/{id}/run-now": OPERATOR,
    "PATCH /scheduled/{id}/move": OPERATOR,
    "PATCH /scheduled/{id}/cancel": OPERATOR,
    "PATCH /scheduled/run-now": OPERATOR,
    "PATCH /scheduled/move": OPERATOR,
    "PATCH /scheduled/cancel": OPERATOR,
    "GET /objects": VIEWER,
    "GET /objects/{service}/{key}": VIEWER,
    "GET /objects/{service}/{key}/state": VIEWER,
    "PUT /objects/{service}/{key}/state": OPERATOR,
    "PATCH /objects/{service}/{key}/state": OPERATOR,
    "POST /services/{service}/state": OPERATOR,
    "GET /objects/{service}/{key}/history": VIEWER,
    "GET /workers": VIEWER,
    "GET /workers/{id}": VIEWER,
    "PATCH /workers/{id}/drain": OPERATOR,
    "PATCH /workers/{id}/resume": OPERATOR,
    "GET /queues": VIEWER,
    "PATCH /queues/{queue}/drain": OPERATOR,
    "PATCH /queues/{queue}/resume": OPERATOR,
    "POST /query": OPERATOR,
}
SCOPED = {
    "GET /metrics",
    "GET /services",
    "GET /services/{name}",
    "GET /services/{name}/handlers",
    "GET /services/{name}/handlers/{handler}",
    "GET /services/{name}/openapi",
    "GET /invocations",
    "GET /invocations/{id}",
    "GET /invocations/{id}/tree",
    "PATCH /invocations/{id}/cancel",
    "PATCH /invocations/{id}/kill",
    "PATCH /invocations/{id}/pause",
    "PATCH /invocations/{id}/resume",
    "PATCH /invocations/{id}/purge",
    "PATCH /invocations/{id}/purge-journal",
    "PATCH /invocations/{id}/restart-as-new",
    "POST /bulk",
    "GET /bulk",
    "GET /bulk/{id}",
    "PATCH /bulk/{id}/stop",
    "GET /scheduled",
    "PATCH /scheduled/{id}/run-now",
    "PATCH /scheduled/{id}/move",
    "PATCH /scheduled/{id}/cancel",
    "PATCH /scheduled/run-now",
    "PATCH /scheduled/move",
    "PATCH /scheduled/cancel",
    "GET /objects",
    "GET /objects/{service}/{key}",
    "GET /objects/{service}/{key}/state",
    "PUT /objects/{service}/{key}/state",
    "PATCH /objects/{service}/{key}/state",
    "POST /services/{service}/state",
    "GET /objects/{service}/{key}/history",
}
BODIES = {
    "POST /bulk": {"verb": "kill", "filter": {"service": "Mailbox"}, "dry_run": True},
    "PATCH /scheduled/{id}/move": {"delay": "1h"},
    "PATCH /scheduled/run-now": {"filter": {"service": "Mailbox"}, "dry_run": True},
    "PATCH /scheduled/move": {"filter": {"service": "Mailbox"}, "delay": "1h", "dry_run": True},
    "PATCH /scheduled/cancel": {"filter": {"service": "Mailbox"}, "dry_run": True},
    "PUT /objects/{service}/{key}/state": {"state": {}},
    "PATCH /objects/{service}/{key}/state": {"set": {}},
    "POST /services/{service}/state": {"object_key": "Mary", "new_state": {}},
}


@pytest.fixture(autouse=True)
async def guarded(our_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """As it is when nobody turns it off."""
    monkeypatch.setenv("PERDURE_AUTH", "on")
    settings.cache_clear()
    monkeypatch.setattr(door, "tokens", Tokens())
    monkeypatch.setattr(door, "_noted", {})
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):  # for its speed
        yield
    await hall.leave()


async def bearer(role: Role, **options: Any) -> dict[str, str]:
    _, secret = await sync_to_async(tokens.make_token)(FOUNDER, f"a {role.name.lower()}'s", role, **options)
    return {"Authorization": f"Bearer {secret}"}


async def account(name: str, role: Role, **options: Any) -> User:
    return await sync_to_async(people.make_account)(FOUNDER, name, role, PASSWORD, **options)


async def signed_in(name: str, password: str = PASSWORD) -> tuple[AsyncClient, int]:
    client = AsyncClient()
    answer = await client.post("/ui/sign-in", {"name": name, "password": password})
    return client, answer.status_code


async def stranger() -> AnonymousUser:
    return AnonymousUser()


async def last_entry(**wanted: str) -> AuditEntry:
    entry = await AuditEntry.objects.filter(**wanted).order_by("-id").afirst()
    assert entry is not None
    return entry


def operations() -> list[str]:
    document = api.get_openapi_schema(path_prefix="")
    return [f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs]


async def ask(operation: str, headers: dict[str, str]) -> int:
    """What is answered to an operation, asked about nothing that is there."""
    verb, path = operation.split(" ")
    path = path.replace("{", "").replace("}", "")
    answer = await AsyncClient().generic(verb, path, content_type="application/json", headers=headers)
    return int(answer.status_code)


def test_every_operation_has_a_line_in_the_matrix() -> None:
    new, gone = set(operations()) - set(MATRIX), set(MATRIX) - set(operations())
    assert not new, 'add a line to MATRIX, with the least role that may ask for it, as in "GET /tokens": ADMIN'
    assert not gone, "take these lines out of MATRIX"


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_what_the_matrix_says(role: Role) -> None:
    headers = await bearer(role)

    answers = {operation: await ask(operation, headers) for operation in MATRIX}

    refused = {operation for operation, status in answers.items() if status == 403}
    assert refused == {operation for operation, needed in MATRIX.items() if needed is not None and role < needed}
    assert 401 not in answers.values()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer perdure_wrong"}, {"Authorization": "Basic eDp5"}])
async def test_nobody_may_what_is_not_open(headers: dict[str, str]) -> None:
    answers = {operation: await ask(operation, headers) for operation in MATRIX}

    assert {operation for operation, status in answers.items() if status != 401} == {
        operation for operation, needed in MATRIX.items() if needed is OPEN
    }


async def test_a_token_for_some_services_is_kept_from_what_is_about_all() -> None:
    headers = await bearer(Role.ADMIN, services=["Elsewhere"])

    answers = {operation: await ask(operation, headers) for operation in MATRIX}

    about_all = {operation for operation, needed in MATRIX.items() if needed is not OPEN} - SCOPED
    assert {operation for operation in about_all if answers[operation] != 403} == set()


@pytest.mark.parametrize("operation", sorted(SCOPED))
async def test_a_token_for_some_services_sees_and_touches_no_other(operation: str, our_database: str) -> None:
    with closing(await Link.connect(our_database)) as link:
        await register_module("tests.support.endpoints:app", link)
    verb, path = operation.split(" ")
    id = await purged() if path.startswith("/bulk") else await history.alive("Mailbox/Mary/put")
    for name, value in {"id": id, "name": "Mailbox", "service": "Mailbox", "key": "Mary", "handler": "put"}.items():
        path = path.replace(f"{{{name}}}", value)
    headers = await bearer(Role.ADMIN, services=["Elsewhere"])

    answer = await AsyncClient().generic(
        verb, path, json.dumps(BODIES.get(operation, {})), content_type="application/json", headers=headers
    )

    assert answer.status_code in (200, 403, 404), answer.content
    if answer.status_code == 200:
        assert "Mailbox" not in answer.content.decode()
        assert '"matched": ' not in answer.content.decode() or answer.json()["matched"] == 0
    else:
        assert (await ask_as_admin(verb, path, operation)) not in (403, 404)


async def test_a_token_for_some_services_cannot_act_on_what_is_born_behind_its_back(
    our_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await history.alive("Mailbox/Mary/put")

    async def not_yet(id: bytes) -> None:
        """As it was a moment before."""

    monkeypatch.setattr("runtime.reading.invocations.service_of", not_yet)
    headers = await bearer(Role.ADMIN, services=["Elsewhere"])
    answer = await AsyncClient().patch(f"/invocations/{id}/kill", headers=headers)

    monkeypatch.undo()
    assert answer.status_code == 404
    found = await AsyncClient().get(f"/invocations/{id}", headers=await bearer(Role.ADMIN))
    assert found.json()["status"] != "completed"


async def purged() -> str:
    """The id of a verb by filter that is about one service."""
    headers, body = await bearer(Role.ADMIN), {"verb": "purge", "filter": {"service": "Mailbox"}}
    begun = await AsyncClient().post("/bulk", body, content_type="application/json", headers=headers)
    return str(begun.json()["id"])


async def ask_as_admin(verb: str, path: str, operation: str) -> int:
    """That it is there, for those who may see it."""
    body = json.dumps(BODIES.get(operation, {}))
    headers = await bearer(Role.ADMIN, services=["Mailbox"])
    answer = await AsyncClient().generic(verb, path, body, content_type="application/json", headers=headers)
    return int(answer.status_code)


async def test_who_sees_no_payloads_asks_for_none_in_sql() -> None:
    headers = await bearer(Role.OPERATOR, sees_payloads=False)
    body = json.dumps({"query": "SELECT 1 AS one"})

    answer = await AsyncClient().generic("POST", "/query", body, content_type="application/json", headers=headers)

    assert answer.status_code == 403


async def test_an_expired_token_lets_nobody_in() -> None:
    headers = await bearer(Role.ADMIN, lifetime=timedelta(hours=1))
    assert await ask("GET /services", headers) == 200
    await Token.objects.aupdate(expires_at="2020-01-01T00:00:00Z")
    door.tokens._kept.clear()

    assert await ask("GET /services", headers) == 401


async def test_a_revoked_token_lets_nobody_in_once_the_lookup_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = await bearer(Role.VIEWER)
    assert await ask("GET /services", headers) == 200
    token = await Token.objects.aget()
    monkeypatch.setattr(tokens, "KEPT", 0.0)
    door.tokens._kept.clear()

    assert await sync_to_async(tokens.revoke_token)(FOUNDER, token.pk)

    assert await ask("GET /services", headers) == 401
    assert not await sync_to_async(tokens.revoke_token)(FOUNDER, token.pk)


async def test_a_secret_is_told_once_and_is_nowhere_in_the_database() -> None:
    made = await AsyncClient().post(
        "/tokens", {"name": "ci", "role": "viewer"}, content_type="application/json", headers=await bearer(Role.ADMIN)
    )
    secret = made.json()["secret"]

    listed = await AsyncClient().get("/tokens", headers=await bearer(Role.ADMIN))

    assert made.status_code == 201
    assert secret.startswith("perdure_")
    assert secret not in listed.content.decode()
    token = await Token.objects.aget(name="ci")
    assert secret.encode() not in bytes(token.digest)
    assert await ask("GET /services", {"Authorization": f"Bearer {secret}"}) == 200


async def test_what_was_done_and_what_was_denied_is_in_the_log() -> None:
    viewer = await bearer(Role.VIEWER)
    assert await ask("GET /tokens", viewer) == 403

    made, denied = await last_entry(verb="token.create"), await last_entry(result="denied")

    assert (made.actor, made.result, made.details["role"]) == ("founder", "done", "viewer")
    assert (denied.actor, denied.role, denied.verb, denied.target) == (
        "token a viewer's", "viewer", "request", "GET /tokens",
    )  # fmt: skip
    assert denied.origin == "127.0.0.1"


async def test_the_log_is_read_by_operators_page_by_page() -> None:
    for name in ("one", "two", "three"):
        await account(name, Role.VIEWER)
    headers = await bearer(Role.OPERATOR)

    first = (await AsyncClient().get("/audit?verb=account.&limit=2", headers=headers)).json()
    second = (await AsyncClient().get(f"/audit?verb=account.&limit=2&before={first['next']}", headers=headers)).json()

    assert [entry["target"] for entry in first["entries"] + second["entries"]] == ["three", "two", "one"]
    assert second["next"] is None
    assert (await AsyncClient().get("/audit?actr=mary", headers=headers)).status_code == 400


async def test_people_sign_in_and_out_on_a_page() -> None:
    await account("mary", Role.VIEWER)
    stranger = await AsyncClient().get("/ui/")
    assert (stranger.status_code, stranger.headers["location"]) == (302, "/ui/sign-in?next=%2Fui%2F")

    client, status = await signed_in("mary")

    assert status == 302
    assert "mary" in (await client.get("/ui/")).content.decode()
    assert (await client.get("/services")).status_code == 200
    await client.post("/ui/sign-out")
    assert (await client.get("/ui/")).status_code == 302


async def test_a_part_of_a_page_sends_its_page_to_the_sign_in() -> None:
    answer = await AsyncClient().get("/ui/latest", headers={"HX-Request": "true"})

    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/ui/sign-in")


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
async def test_signing_in_leads_nowhere_else(elsewhere: str) -> None:
    await account("mary", Role.VIEWER)

    answer = await AsyncClient().post("/ui/sign-in", {"name": "mary", "password": PASSWORD, "next": elsewhere})

    assert answer.headers["location"] == "/ui/"


async def test_a_wrong_password_an_unknown_name_and_no_role_are_refused_alike() -> None:
    await account("mary", Role.VIEWER)
    await User.objects.acreate_user("roleless", password=PASSWORD)
    wrong = [("mary", "not this"), ("nobody", PASSWORD), ("roleless", PASSWORD)]

    pages = [await AsyncClient().post("/ui/sign-in", {"name": name, "password": word}) for name, word in wrong]

    assert [page.status_code for page in pages] == [403, 403, 403]
    assert all("No account with a role goes by this name and password." in page.content.decode() for page in pages)
    assert (await last_entry(verb="account.sign_in", target="mary")).result == "denied"


async def test_after_some_failures_not_even_the_right_password_is_looked_at() -> None:
    await account("mary", Role.VIEWER)
    for _ in range(people.TRIES["account and address"]):
        assert (await signed_in("mary", "wrong"))[1] == 403

    refused = await AsyncClient().post("/ui/sign-in", {"name": "mary", "password": PASSWORD})

    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 300
    await AuditEntry.objects.all().aupdate(at="2020-01-01T00:00:00Z")
    assert (await signed_in("mary"))[1] == 302


async def test_a_session_needs_a_csrf_token_to_change_something() -> None:
    await account("boss", Role.ADMIN)
    _, status = await signed_in("boss")
    assert status == 302
    client = AsyncClient(enforce_csrf_checks=True)
    page = await client.get("/ui/sign-in")
    token = page.cookies["csrftoken"].value
    form = {"name": "boss", "password": PASSWORD, "csrfmiddlewaretoken": token}
    assert (await client.post("/ui/sign-in", form)).status_code == 302
    wanted = {"name": "ci", "role": "viewer"}

    without = await client.post("/tokens", wanted, content_type="application/json")
    token = client.cookies["csrftoken"].value
    having = await client.post("/tokens", wanted, content_type="application/json", headers={"X-CSRFToken": token})

    assert (without.status_code, having.status_code) == (403, 201)


async def test_a_header_that_is_no_token_does_not_stand_for_the_csrf_token() -> None:
    await account("boss", Role.ADMIN)
    client = AsyncClient(enforce_csrf_checks=True)
    page = await client.get("/ui/sign-in")
    form = {"name": "boss", "password": PASSWORD, "csrfmiddlewaretoken": page.cookies["csrftoken"].value}
    assert (await client.post("/ui/sign-in", form)).status_code == 302

    wanted = {"name": "ci", "role": "viewer"}
    basic = {"Authorization": "Basic eDp5"}
    answer = await client.post("/tokens", wanted, content_type="application/json", headers=basic)

    assert answer.status_code == 403


async def test_tries_at_once_are_looked_at_one_after_another() -> None:
    await account("mary", Role.VIEWER)
    limit = people.TRIES["account and address"]

    answers = await asyncio.gather(*(signed_in("mary", "wrong") for _ in range(3 * limit)))

    assert sorted(status for _, status in answers) == [403] * limit + [429] * 2 * limit


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 10_000, ""])
async def test_a_name_that_nobody_can_have_is_refused_like_any_other(name: str) -> None:
    with pytest.raises(WrongPassword):
        await people.sign_in(name, PASSWORD, "here")


async def test_the_same_denial_again_and_again_is_noted_once() -> None:
    headers = await bearer(Role.VIEWER)
    for number in range(5):
        assert await ask(f"DELETE /tokens/{number + 1}", headers) == 403
    assert await ask("GET /tokens", headers) == 403

    assert await AuditEntry.objects.filter(verb="request", result="denied").acount() == 2


async def test_a_closed_account_is_shut_out_at_once_and_let_in_again() -> None:
    await account("mary", Role.VIEWER)
    client, _ = await signed_in("mary")

    await sync_to_async(people.change_account)(FOUNDER, "mary", is_open=False)
    shut = (await client.get("/ui/")).status_code, (await signed_in("mary"))[1]
    await sync_to_async(people.change_account)(FOUNDER, "mary", is_open=True)

    assert shut == (302, 403)
    assert (await signed_in("mary"))[1] == 302


async def test_a_role_is_changed_and_payloads_are_a_permission() -> None:
    user = await account("mary", Role.VIEWER)
    seen = [await people.person(await User.objects.aget(pk=user.pk), "here")]
    await sync_to_async(people.change_account)(FOUNDER, "mary", sees_payloads=True)
    seen.append(await people.person(await User.objects.aget(pk=user.pk), "here"))
    await sync_to_async(people.change_account)(FOUNDER, "mary", role=Role.OPERATOR, sees_payloads=False)
    seen.append(await people.person(await User.objects.aget(pk=user.pk), "here"))

    assert [(one.role, one.sees_payloads) for one in seen if one] == [
        (Role.VIEWER, False), (Role.VIEWER, True), (Role.OPERATOR, True),
    ]  # fmt: skip


async def test_a_password_that_is_easily_guessed_is_refused() -> None:
    with pytest.raises(AccountFault, match="too common"):
        await sync_to_async(people.make_account)(FOUNDER, "mary", Role.ADMIN, "password1")

    assert not await User.objects.aexists()


async def test_turned_off_everybody_near_is_an_admin_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_AUTH", "off")
    settings.cache_clear()
    client = AsyncClient()

    near = await client.get("/tokens")
    proxied = await client.get("/tokens", headers={"X-Forwarded-For": "192.0.2.1"})
    beyond = AsyncRequestFactory().get("/tokens")
    beyond.META["SERVER_NAME"] = "192.0.2.7"  # the address that it was received on
    beyond.auser = stranger

    assert (near.status_code, proxied.status_code) == (200, 403)
    with pytest.raises(NotAllowed, match="for this machine only"):
        await door.whose(beyond)
    assert "without a password" in (await client.get("/ui/")).content.decode()


@pytest.mark.parametrize("path", ["/health", "/tokens", "/nothing/here", "/ui/sign-in", "/openapi", "/static/none.js",
                                  "/static/dashboard/dashboard.css"])  # fmt: skip
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
async def test_every_answer_tells_browsers_to_load_and_frame_nothing(path: str, host: str) -> None:
    headers = await headers_of(path, host)

    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
    assert headers["referrer-policy"] == "same-origin"


async def headers_of(path: str, host: str) -> dict[str, str]:
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", host.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    exchange = Exchange([b""])
    await application(scope, exchange.receive, exchange.send)
    return {name.decode().lower(): value.decode() for name, value in exchange.sent[0]["headers"]}


async def test_another_name_than_ours_is_refused() -> None:
    answer = await AsyncClient().get("/health", headers={"Host": "evil.example"})

    assert answer.status_code == 400
