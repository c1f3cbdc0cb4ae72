"""Services over the API: what is shown of them, and what operators set."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.test import AsyncClient

from runtime import hall
from runtime.ingress.paths import Paths
from runtime.ingress.refused import Refused

pytestmark = pytest.mark.usefixtures("registered")


async def change(client: AsyncClient, name: str = "Greeter", **options: Any) -> Any:
    return await client.patch(f"/services/{name}", options, content_type="application/json")


async def test_options_are_set_one_by_one_and_taken_back(client: AsyncClient) -> None:
    await change(client, public=False, journal_retention="1h")
    both = (await change(client, queue="slow")).json()
    less = (await change(client, journal_retention=None)).json()

    assert both["set"] == {"public": False, "journal_retention": "1h", "queue": "slow"}
    assert (both["public"], both["journal_retention"], both["queue"]) == (False, "1h", "slow")
    assert both["handlers"][0]["queue"] == "slow"
    assert less["set"] == {"public": False, "queue": "slow"}
    assert less["journal_retention"] == "1d"
    assert less.pop("warnings")[0].startswith("No engine serves the queue 'slow'")
    assert (await client.get("/services/Greeter")).json() == less
    assert (await client.get("/services/Mailbox")).json()["set"] == {}


async def test_a_service_that_is_not_public_is_refused_at_the_doors(client: AsyncClient, our_database: str) -> None:
    here = await hall.operations()
    await change(client, public=False)

    while (registry := await here.refresh_registry()).resolve("Greeter", "greet").is_public:
        pass
    with pytest.raises(Refused, match="Greeter/greet is private"):
        Paths(registry).find(b"/Greeter/greet")
    async with await psycopg.AsyncConnection.connect(our_database, autocommit=True) as sql:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="Greeter/greet is private"):
            await sql.execute("SELECT perdure_send('Greeter', 'greet', '\"Mary\"')")
        rows = await (await sql.execute("SELECT name, public FROM perdure_sql.sys_service ORDER BY 1")).fetchall()
        assert rows == [("Greeter", False), ("Mailbox", True)]
        await change(client, public=True)
        await sql.execute("SELECT perdure_send('Greeter', 'whisper', '\"Mary\"')")


async def test_who_set_what_is_noted(client: AsyncClient, our_database: str) -> None:
    await change(client, queue="slow")

    async with await psycopg.AsyncConnection.connect(our_database) as sql:
        rows = await (await sql.execute("SELECT verb, target, details, result FROM audit")).fetchall()
    assert rows == [("service.set", "Greeter", {"queue": "slow"}, "set")]


@pytest.mark.parametrize(
    ("name", "options", "status", "words"),
    [
        ("Greeter", {"journal_retention": "soon"}, 400, "it takes a duration"),
        ("Greeter", {"publik": True}, 400, "`publik` in the body is not known here."),
        ("Greeter", {"retry_max_attempts": "many"}, 400, "retry_max_attempts"),
        ("Nobody", {"public": True}, 404, "There is no service 'Nobody'."),
        ("a%00b", {"public": True}, 400, "name"),
    ],
)
async def test_what_cannot_be_set_is_refused_in_words(
    client: AsyncClient, name: str, options: dict[str, Any], status: int, words: str
) -> None:
    response = await change(client, name, **options)

    assert response.status_code == status
    assert words in response.json()["message"]


async def test_handlers_are_shown_alone_too(client: AsyncClient) -> None:
    handlers = (await client.get("/services/Mailbox/handlers")).json()["handlers"]

    assert [handler["name"] for handler in handlers] == ["put", "letters"]
    assert (await client.get("/services/Mailbox/handlers/put")).json() == handlers[0]
    assert (await client.get("/services/Mailbox/handlers/get")).status_code == 404
    assert (await client.get("/services/Nobody/handlers")).status_code == 404


async def test_a_service_is_described_as_the_ingress_does(client: AsyncClient) -> None:
    document = (await client.get("/services/Greeter/openapi")).json()

    assert document["info"]["title"] == "Greeter"
    assert set(document["paths"]) == {"/Greeter/greet", "/Greeter/greet/send"}
