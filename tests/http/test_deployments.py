"""Deployments over the API: what may be registered, what is said of what is wrong, and what deleting leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.test import AsyncClient

from runtime import discovery, hall
from runtime.conf import settings
from runtime.operations import Submission
from runtime.registering import register_module
from runtime.store.link import Link
from tests.support import history

APP = "tests.support.endpoints:app"
GREETER = "tests.support.endpoints:greeter"

SERVICE = """
from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
"""
FAREWELL = """
class Greeter(Service):
    @handler
    async def farewell(self, ctx: Context, name: str) -> str:
        return name

app = Endpoint(Greeter)
"""
AS_OBJECT = """
class Greeter(VirtualObject):
    @handler
    async def greet(self, ctx: ObjectContext, name: str) -> str:
        return name

app = Endpoint(Greeter)
"""
SHOP = """
class Shop(Service):
    @handler
    async def buy(self, ctx: Context, name: str) -> str:
        return name

app = Endpoint(Shop)
"""


@pytest.fixture
def client(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> AsyncClient:
    """Where these modules may be registered."""
    monkeypatch.setenv("PERDURE_SERVICES", APP)
    monkeypatch.setenv("PERDURE_MODULES", "tests.support.endpoints:number,written:app")
    settings.cache_clear()
    return client


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write the module `written`."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> None:
        (tmp_path / "written.py").write_text(SERVICE + text)

    return write


async def register(client: AsyncClient, module: str = APP, **said: Any) -> Any:
    return await client.post("/deployments", {"module": module, **said}, content_type="application/json")


async def sent(service: str, handler: str) -> None:
    """An invocation that no engine takes."""
    here = await hall.operations()
    registry = here.registry
    while service not in registry.services:
        registry = await here.refresh_registry()
    await here.send(Submission(registry.resolve(service, handler), None, b'"Mary"'))


# Registering


async def test_a_module_is_registered_and_told_with_its_services(client: AsyncClient) -> None:
    response = await register(client)
    told = response.json()

    assert response.status_code == 201
    assert response.headers["location"] == f"deployments/{told['id']}"
    assert (told["ty"], told["location"], told["dry_run"]) == ("module", APP, False)
    assert [(offer["name"], offer["revision"]) for offer in told["services"]] == [("Greeter", 1), ("Mailbox", 1)]
    assert told["loaded"] is False
    assert told["warnings"][0].startswith("No engine has loaded this code")
    assert (await client.get("/services/Greeter")).json()["deployment_id"] == told["id"]


async def test_registering_it_again_changes_nothing_and_says_so(client: AsyncClient) -> None:
    first, again = await register(client), await register(client)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["services"] == first.json()["services"]


async def test_a_dry_run_tells_what_would_be_and_stores_nothing(client: AsyncClient) -> None:
    response = await register(client, dry_run=True)

    assert response.status_code == 200
    assert [offer["name"] for offer in response.json()["services"]] == ["Greeter", "Mailbox"]
    assert (await client.get("/deployments")).json() == {"deployments": []}


async def test_who_registered_what_is_noted(client: AsyncClient, our_database: str) -> None:
    id = (await register(client)).json()["id"]
    await client.delete(f"/deployments/{id}")

    async with await psycopg.AsyncConnection.connect(our_database) as sql:
        rows = await (await sql.execute("SELECT verb, target, result FROM audit ORDER BY id")).fetchall()
    assert rows == [("deployment.register", id, "registered"), ("deployment.delete", id, "deleted")]


@pytest.mark.parametrize(
    ("module", "status", "words"),
    [
        ("tests.support.endpoints", 400, "is not the name of an endpoint"),
        ("\0:app", 400, "is not the name of an endpoint"),
        (GREETER, 403, "PERDURE_MODULES"),
        ("os:path", 403, f"may be registered here: {APP}"),
        ("tests.support.endpoints:number", 400, "is of type int, not an Endpoint. There is"),
        ("written:app", 400, "written cannot be imported: ModuleNotFoundError: No module named 'written'"),
    ],
)
async def test_what_cannot_be_registered_is_refused_in_words(
    client: AsyncClient, module: str, status: int, words: str
) -> None:
    response = await register(client, module)

    assert response.status_code == status
    assert words in response.json()["message"]


async def test_a_module_that_fails_is_told_with_the_last_line_of_its_traceback(
    client: AsyncClient, write: Callable[[str], None]
) -> None:
    write("print('noise')\nsecond = 1 / 0\n")

    response = await register(client, "written:app")

    assert response.status_code == 400
    assert "ZeroDivisionError: division by zero (written.py, line 4)" in response.json()["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("app = Endpoint()", "written:app has no services."),
        (SHOP.replace("class Shop(Service):", 'class Shop(Service):\n    "with \\0"'), "NUL character"),
        (SHOP.replace("Endpoint(Shop)", "Endpoint(Shop, Shop)"), "DefinitionError: Two services have the name 'Shop'"),
    ],
)
async def test_an_endpoint_that_cannot_be_served_is_refused_in_words(
    client: AsyncClient, write: Callable[[str], None], text: str, words: str
) -> None:
    write(text)

    response = await register(client, "written:app")

    assert response.status_code == 400
    assert words in response.json()["message"]


async def test_a_module_that_ends_its_process_or_never_comes_back_harms_nobody(
    client: AsyncClient, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("import os\nos._exit(3)\n")
    ended = await register(client, "written:app")
    monkeypatch.setattr(discovery, "PATIENCE", 1.0)
    write("import threading\nthreading.Event().wait()\n")
    stuck = await register(client, "written:app")

    assert (ended.status_code, stuck.status_code) == (400, 400)
    assert "ended its process with exit code 3" in ended.json()["message"]
    assert "has not ended after 1 s" in stuck.json()["message"]


async def test_the_module_is_taken_as_it_is_on_disk_now(client: AsyncClient, write: Callable[[str], None]) -> None:
    write(SHOP)
    first = await register(client, "written:app")
    write(SHOP.replace("buy", "sell"))
    second = await register(client, "written:app")

    assert (first.status_code, second.status_code) == (201, 201)
    assert [offer["handlers"][0]["name"] for offer in second.json()["services"]] == ["sell"]


async def test_a_service_of_another_module_moves_only_by_force(
    client: AsyncClient, write: Callable[[str], None]
) -> None:
    await register(client)
    write(FAREWELL)

    refused, forced = await register(client, "written:app"), await register(client, "written:app", force=True)

    assert refused.status_code == 409
    assert f"'Greeter' is served by {APP} and would move to written:app." in refused.json()["message"]
    assert forced.status_code == 201
    assert "would move" in forced.json()["warnings"][0]


async def test_a_handler_that_invocations_need_vanishes_only_by_force(
    client: AsyncClient, write: Callable[[str], None]
) -> None:
    write(SHOP)
    await register(client, "written:app")
    await sent("Shop", "buy")
    write(SHOP.replace("buy", "sell"))

    refused, dry = await register(client, "written:app"), await register(client, "written:app", dry_run=True)
    forced = await register(client, "written:app", force=True)

    assert (refused.status_code, dry.status_code, forced.status_code) == (409, 409, 201)
    assert "Shop/buy is not in this code, and 1 invocation under way needs it." in refused.json()["message"]


async def test_what_the_runtime_does_by_itself_needs_no_handler(
    client: AsyncClient, write: Callable[[str], None]
) -> None:
    write(SHOP)
    await register(client, "written:app")
    await history.alive("Shop/state.edit")
    write(SHOP.replace("sold", "SOLD").replace("return name", "return name * 2"))

    assert (await register(client, "written:app")).status_code == 201


async def test_a_service_never_becomes_an_object(client: AsyncClient, write: Callable[[str], None]) -> None:
    await register(client)
    write(AS_OBJECT)

    response = await register(client, "written:app", force=True)

    assert response.status_code == 409
    assert "'Greeter' is registered as SERVICE and would become VIRTUAL_OBJECT" in response.json()["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [({"uri": "localhost:9080"}, 400), ({}, 400), ({"module": APP, "dryrun": True}, 400), ({"module": 3}, 400)],
)
async def test_what_else_may_be_asked_for_is_answered_in_words(
    client: AsyncClient, body: dict[str, Any], status: int
) -> None:
    response = await client.post("/deployments", body, content_type="application/json")

    assert response.status_code == status
    assert response.json()["message"]


# Looking and deleting


async def test_deployments_are_listed_with_what_they_serve(client: AsyncClient) -> None:
    id = (await register(client)).json()["id"]

    (listed,) = (await client.get("/deployments")).json()["deployments"]
    detail = (await client.get(f"/deployments/{id}")).json()

    assert listed["id"] == id
    assert detail == {**listed, "invocations": 0, "draining": False}


async def test_a_deployment_that_invocations_need_is_deleted_only_by_force(client: AsyncClient) -> None:
    id = (await register(client)).json()["id"]
    await sent("Greeter", "greet")

    refused = await client.delete(f"/deployments/{id}")
    forced = await client.delete(f"/deployments/{id}?force=true")

    assert refused.status_code == 409
    assert f"1 invocation under way needs the deployment {id}." in refused.json()["message"]
    assert forced.status_code == 202
    assert forced.json() == {"id": id, "services": ["Greeter", "Mailbox"], "invocations": 1}
    assert (await client.get("/services")).json() == {"services": []}


async def test_what_waited_for_a_deleted_deployment_goes_on_when_it_comes_again(
    client: AsyncClient, our_database: str
) -> None:
    id = (await register(client)).json()["id"]
    await sent("Greeter", "greet")
    await client.delete(f"/deployments/{id}?force=true")
    invocation = (await client.get("/invocations")).json()["invocations"][0]["id"]

    detail = (await client.get(f"/invocations/{invocation}")).json()
    with closing(await Link.connect(our_database)) as link:
        await register_module(APP, link)

    assert detail["why"]["missing_code"] == "a service 'Greeter' that is registered"
    assert (await client.get(f"/deployments/{id}")).json()["invocations"] == 1


@pytest.mark.parametrize(("id", "status"), [("dp_0", 404), ("a%00b", 400), ("x" * 1000, 400)])
async def test_an_unknown_deployment_is_said_to_be_so(client: AsyncClient, id: str, status: int) -> None:
    looked, deleted = await client.get(f"/deployments/{id}"), await client.delete(f"/deployments/{id}")

    assert (looked.status_code, deleted.status_code) == (status, status)
