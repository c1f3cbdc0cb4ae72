"""Who may do what: roles, tokens and their bounds, and the log of it all."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.test import AsyncClient, AsyncRequestFactory

from runtime.accounts import door, tokens
from runtime.accounts.door import NotAllowed
from runtime.api.app import api
from runtime.conf import settings
from runtime.core.access import Role
from runtime.models import AuditEntry, Token
from runtime.registering import register_module
from runtime.store.link import Link
from tests.support import history
from tests.support.accounts import FOUNDER, account, bearer, last_entry

pytestmark = pytest.mark.usefixtures("guarded")

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


async def test_services_of_a_token_that_are_not_registered_are_named(our_database: str) -> None:
    with closing(await Link.connect(our_database)) as link:
        await register_module("tests.support.endpoints:app", link)

    async def note(*services: str) -> str | None:
        wanted = {"name": "ci", "role": "viewer", "services": services}
        headers = await bearer(Role.ADMIN)
        made = await AsyncClient().post("/tokens", wanted, content_type="application/json", headers=headers)
        assert made.status_code == 201
        said: str | None = made.json()["note"]
        return said

    assert await note("Greeter") is None
    assert (await note("Greeter", "Gretter") or "").startswith("No such service is registered yet: Gretter.")


async def test_what_was_done_and_what_was_denied_is_in_the_log() -> None:
    viewer = await bearer(Role.VIEWER)
    assert await ask("GET /tokens", viewer) == 403

    made, denied = await last_entry(verb="token.create"), await last_entry(result="denied")

    assert (made.actor, made.result, made.details["role"]) == ("founder", "done", "viewer")
    assert (denied.actor, denied.role, denied.verb, denied.target) == (
        "token a viewer's", "viewer", "request", "GET /tokens",
    )  # fmt: skip
    assert denied.origin == "127.0.0.1"


async def test_the_same_denial_again_and_again_is_noted_once() -> None:
    headers = await bearer(Role.VIEWER)
    for number in range(5):
        assert await ask(f"DELETE /tokens/{number + 1}", headers) == 403
    assert await ask("GET /tokens", headers) == 403

    assert await AuditEntry.objects.filter(verb="request", result="denied").acount() == 2


async def test_the_log_is_read_by_operators_page_by_page() -> None:
    for name in ("one", "two", "three"):
        await account(name, Role.VIEWER)
    headers = await bearer(Role.OPERATOR)

    first = (await AsyncClient().get("/audit?verb=account.&limit=2", headers=headers)).json()
    second = (await AsyncClient().get(f"/audit?verb=account.&limit=2&before={first['next']}", headers=headers)).json()

    assert [entry["target"] for entry in first["entries"] + second["entries"]] == ["three", "two", "one"]
    assert second["next"] is None
    assert (await AsyncClient().get("/audit?actr=mary", headers=headers)).status_code == 400


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


async def stranger() -> AnonymousUser:
    return AnonymousUser()
