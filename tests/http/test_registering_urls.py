"""Registering what is behind a URL: over the API and in the shell, again and anew, and what must not be registered."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections
from django.test import AsyncClient

from perdure.protocol.ids import parse_id
from runtime import checks
from runtime.conf import settings
from runtime.core.invocation import Status
from runtime.management.commands import doctor
from runtime.reading.health import Condition, Finding
from runtime.reading.why import Reason, why
from tests.support import history
from tests.support.deployed import TYPESCRIPT, Deployed, deployed, one_service

SECRET = "Bearer my-very-secret"


@pytest.fixture
async def there() -> AsyncIterator[Deployed]:
    async with deployed() as one:
        yield one


async def register(client: AsyncClient, uri: str, **said: Any) -> Any:
    return await client.post("/deployments", {"uri": uri, **said}, content_type="application/json")


async def begun(database: str, deployment: str) -> None:
    """An invocation that has begun on a deployment, and waits."""
    async with await psycopg.AsyncConnection.connect(database) as sql:
        await sql.execute(
            "INSERT INTO invocation (id, service, handler, mode, status, queue, deployment, input)"
            " VALUES (gen_random_uuid(), 'Greeter', 'greet', 'service', 'suspended', 'default', %s, '')",
            (deployment,),
        )


async def test_a_url_is_registered_and_told_with_its_services(client: AsyncClient, there: Deployed) -> None:
    there.manifest = TYPESCRIPT
    response = await register(client, there.url + "/", metadata={"team": "core"})
    told = response.json()

    assert response.status_code == 201
    assert response.headers["location"] == f"deployments/{told['id']}"
    assert (told["ty"], told["uri"], told["location"]) == ("http", there.url, there.url)
    assert (told["http_version"], told["protocol_version"], told["protocol_mode"]) == ("HTTP/2", 7, "BIDI_STREAM")
    assert (told["sdk_version"], told["metadata"]) == ("restate-sdk-python/1.3.0", {"team": "core"})
    assert [(offer["name"], offer["ty"], offer["revision"]) for offer in told["services"]] == [
        ("Greeter", "SERVICE", 1),
        ("Cnt", "VIRTUAL_OBJECT", 1),
        ("Wf", "WORKFLOW", 1),
    ]
    assert told["warnings"] == ["No engine lives: what is invoked waits until one does."]
    service = (await client.get("/services/Greeter")).json()
    assert (service["deployment_id"], service["location"]) == (told["id"], there.url)


async def test_registering_it_again_changes_nothing_and_says_so(client: AsyncClient, there: Deployed) -> None:
    first, again = await register(client, there.url), await register(client, there.url)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["services"] == first.json()["services"]


async def test_a_dry_run_tells_what_would_be_and_stores_nothing(client: AsyncClient, there: Deployed) -> None:
    response = await register(client, there.url, dry_run=True)

    assert response.status_code == 200
    assert (response.json()["sdk_version"], response.json()["protocol_version"]) == ("restate-sdk-python/1.3.0", 7)
    assert (await client.get("/deployments")).json() == {"deployments": []}


async def test_other_code_behind_the_same_url_is_a_conflict_unless_forced(client: AsyncClient, there: Deployed) -> None:
    first = (await register(client, there.url)).json()
    there.manifest = one_service("Greeter", "SERVICE", "greet", "wave")
    refused = await register(client, there.url)
    forced = await register(client, there.url, force=True)
    listed = (await client.get("/deployments")).json()["deployments"]

    assert refused.status_code == 409
    assert "URL of its own" in refused.json()["message"]
    assert forced.status_code == 201
    assert first["id"] in forced.json()["warnings"][0]
    assert [(one["id"], bool(one["services"][0]["revision"])) for one in listed] == [
        (forced.json()["id"], True),
        (first["id"], False),
    ]


async def test_a_new_revision_behind_another_url_takes_what_is_new_and_the_old_one_drains(
    client: AsyncClient, there: Deployed, our_database: str
) -> None:
    old = (await register(client, there.url)).json()
    await begun(our_database, old["id"])
    there.manifest = one_service("Greeter", "SERVICE", "wave")
    new = await register(client, there.url + "/v2")
    detail = (await client.get(f"/deployments/{old['id']}")).json()
    refused = await client.delete(f"/deployments/{old['id']}")

    assert (new.status_code, new.json()["services"][0]["revision"]) == (201, 2)
    assert (detail["invocations"], detail["draining"]) == (1, True)
    assert refused.status_code == 409
    assert "1 invocation under way needs" in refused.json()["message"]


async def test_a_service_that_changes_its_type_is_a_conflict(client: AsyncClient, there: Deployed) -> None:
    await register(client, there.url)
    there.manifest = one_service("Greeter", "VIRTUAL_OBJECT")
    response = await register(client, there.url + "/v2", force=True)

    assert response.status_code == 409
    assert "'Greeter' is registered as SERVICE and would become VIRTUAL_OBJECT" in response.json()["message"]


async def test_additional_headers_are_sent_kept_and_never_shown(
    client: AsyncClient, there: Deployed, our_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    response = await register(client, there.url, additional_headers={"Authorization": SECRET})
    shown = [response.content]
    for path in ("/deployments", f"/deployments/{response.json()['id']}", "/services/Greeter", "/audit"):
        shown.append((await client.get(path)).content)
    query = {"query": "SELECT * FROM sys_deployment"}
    shown.append((await client.post("/query", query, content_type="application/json")).content)
    async with await psycopg.AsyncConnection.connect(our_database) as sql:
        (kept,) = await (await sql.execute("SELECT headers FROM deployment")).fetchall()

    assert there.asked[0]["authorization"] == SECRET
    assert kept == ({"authorization": SECRET},)
    assert all(b"secret" not in content for content in shown)
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Type": "text/plain"}, "Perdure's own to send"),
        ({"x-restate-jwt-v1": "x"}, "Perdure's own to send"),
        ({"host": "elsewhere"}, "Perdure's own to send"),
        ({"a b": "x"}, "is not the name of a header"),
        ({":path": "/admin"}, "is not the name of a header"),
        ({"a": "secret\r\nhost: elsewhere"}, "cannot be sent"),
        ({"a": "secret\0"}, "cannot be sent"),
        ({"a": "secr\u00e9t"}, "cannot be sent"),
        ({"a": "secret", "A": "secret"}, "is there twice"),
        ({f"h{number}": "secret" for number in range(40)}, "too many"),
    ],
)
async def test_a_header_that_cannot_be_sent_is_refused_without_its_value(
    client: AsyncClient, there: Deployed, headers: dict[str, str], words: str
) -> None:
    response = await register(client, there.url, additional_headers=headers)

    assert response.status_code == 400
    assert words in response.json()["message"]
    assert "secr" not in response.json()["message"]
    assert not there.asked


@pytest.mark.parametrize(
    ("uri", "status", "words"),
    [
        ("greeter:9080", 400, "Did you mean http://greeter:9080"),
        ("ftp://greeter", 400, "only http:// and https://"),
        ("http://a\0b", 400, "characters that a URL may not have"),
        ("http://" + "x" * 5000, 400, "too long"),
        (
            "http://169.254.169.254/latest",
            403,
            "link-local address, which is not allowed. PERDURE_DEPLOYMENT_ADDRESSES",
        ),
        ("http://10.0.0.1:9080", 403, "private address"),
        ("http://0.0.0.0:9080", 403, "unspecified address"),
        ("http://[::ffff:10.0.0.1]:9080", 403, "private address"),
    ],
)
async def test_a_url_that_cannot_be_asked_is_refused_in_words(
    client: AsyncClient, uri: str, status: int, words: str
) -> None:
    response = await register(client, uri)

    assert response.status_code == status
    assert words in response.json()["message"]


@pytest.mark.parametrize(
    "said",
    [
        {"uri": "\ud800"},
        {"uri": "http://\ud800"},
        {"uri": "\0"},
        {"uri": ["http://a"]},
        {"uri": "http://a", "additional_headers": {"\ud800": "x"}},
        {"uri": "http://a", "additional_headers": {"x": "\ud800"}},
        {"uri": "http://a", "additional_headers": {"x": None}},
        {"uri": "http://a", "metadata": {"\ud800": "x"}},
        {"uri": "http://a", "metadata": {"x": "\ud800"}},
        {"uri": "http://a", "metadata": {str(number): "" for number in range(100)}},
        {"uri": "http://a", "max_protocol_version": 10**30},
        {"uri": "http://a", "password": "x"},
    ],
)
async def test_whatever_is_asked_for_is_answered_in_words(client: AsyncClient, said: dict[str, Any]) -> None:
    response = await client.post("/deployments", said, content_type="application/json")

    assert response.status_code == 400
    assert response.json()["message"]


async def test_what_does_not_answer_as_a_deployment_does_is_a_bad_gateway(client: AsyncClient, there: Deployed) -> None:
    there.kind, there.manifest = "text/html", b"<h1>secret</h1>"
    response = await register(client, there.url)

    assert response.status_code == 502
    assert "a page for people. Is that the port of the service?" in response.json()["message"]
    assert "secret" not in response.text


async def test_either_a_module_or_a_url_is_named(client: AsyncClient, there: Deployed) -> None:
    for said in ({}, {"uri": there.url, "module": "a:b"}):
        response = await client.post("/deployments", said, content_type="application/json")
        assert response.status_code == 400
        assert "Name the endpoint" in response.json()["message"]


@pytest.mark.parametrize("said", [{"max_protocol_version": 4}, {"max_protocol_version": 8}, {"metadata": {"a": "\0"}}])
async def test_options_that_make_no_sense_are_refused(client: AsyncClient, there: Deployed, said: Any) -> None:
    assert (await register(client, there.url, **said)).status_code == 400


async def test_an_older_version_of_the_protocol_can_be_asked_for(client: AsyncClient, there: Deployed) -> None:
    assert (await register(client, there.url, max_protocol_version=6)).json()["protocol_version"] == 6


async def test_what_waits_for_an_engine_does_not_wait_for_code_when_that_is_behind_a_url(
    client: AsyncClient, there: Deployed
) -> None:
    await register(client, there.url)

    found = await why(parse_id(await history.alive(status=Status.READY)), None)

    assert found is not None
    assert found.missing_code is None
    assert found.reason is Reason.NO_ENGINE


# In the shell


def shell(*words: str) -> str:
    out = io.StringIO()
    try:
        call_command(*words, stdout=out, stderr=out)
    finally:
        connections.close_all()  # this thread's
    return out.getvalue()


async def manage(*words: str) -> str:
    return await sync_to_async(shell, thread_sensitive=False)(*words)


async def test_the_shell_registers_a_url_with_the_same_options(client: AsyncClient, there: Deployed) -> None:
    said = await manage(
        *("register", there.url, "--header", f"Authorization: {SECRET}", "--metadata", "team=core"),
        *("--max-protocol-version", "6"),
    )
    (told,) = (await client.get("/deployments")).json()["deployments"]
    shown = await manage("deployments", told["id"])

    assert f"{there.url}: registered as {told['id']}, serving Greeter" in said
    assert there.asked[0]["authorization"] == SECRET
    assert (told["metadata"], told["protocol_version"]) == ({"team": "core"}, 6)
    assert "restate-sdk-python/1.3.0, V6 over HTTP/2, on streams" in shown
    assert "restate-sdk-python/1.3.0, V6 over HTTP/2, on streams" in (await client.get("/ui/")).content.decode()
    assert "secret" not in said + shown


async def test_the_shell_reads_a_secret_from_a_file(client: AsyncClient, there: Deployed, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    await manage("register", there.url, "--header", f"authorization: @{tmp_path / 'token'}")

    assert there.asked[0]["authorization"] == SECRET


async def test_the_shell_says_what_is_wrong_with_a_url(client: AsyncClient) -> None:
    with pytest.raises(CommandError, match=r"has no scheme.\sDid you mean http://greeter:9080"):
        await manage("register", "greeter:9080")


async def test_the_doctor_asks_what_is_behind_urls_and_finds_what_has_changed_there(
    client: AsyncClient, there: Deployed
) -> None:
    async def look() -> Finding:
        return await sync_to_async(doctor.look_at_urls, thread_sensitive=False)(settings())

    before = await look()
    await register(client, there.url, additional_headers={"authorization": SECRET})
    well = await look()
    asked = there.asked[-1]["authorization"]
    there.manifest = TYPESCRIPT
    changed = await look()
    there.status = 404
    gone = await look()

    assert (before.condition, before.words) == (Condition.OK, "no service is behind one")
    assert (well.condition, well.words) == (Condition.OK, f"all answer: {there.url}")
    assert asked == SECRET
    assert changed.condition is Condition.DOWN
    assert "other services, handlers or options than were registered" in changed.words
    assert "has nothing at /discover" in gone.words
    assert gone.hint


@pytest.mark.parametrize(
    ("name", "value"), [("PERDURE_DEPLOYMENT_ADDRESSES", "10.0.0.0/99"), ("PERDURE_IDENTITY", "/no/such/file")]
)
async def test_a_setting_that_makes_no_sense_is_said_before_anything_starts_and_to_who_registers(
    client: AsyncClient, there: Deployed, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    settings.cache_clear()
    (found,) = checks.deployments_can_be_asked(None)
    response = await register(client, there.url)

    assert found.id == "perdure.E003"
    assert name in found.msg
    assert response.status_code == 503
    assert name in response.json()["message"]


async def test_requests_are_signed_when_there_is_a_key(
    client: AsyncClient, there: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await manage("identity", "--new", str(tmp_path / "identity.pem"))
    monkeypatch.setenv("PERDURE_IDENTITY", str(tmp_path / "identity.pem"))
    settings.cache_clear()
    await register(client, there.url)
    public = (await manage("identity")).strip()

    assert public.startswith("publickeyv1_")
    assert public in made
    assert there.asked[0]["x-restate-signature-scheme"] == "v1"
    assert there.asked[0]["x-restate-jwt-v1"].count(".") == 2
    assert (tmp_path / "identity.pem").stat().st_mode & 0o077 == 0
