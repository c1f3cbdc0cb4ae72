"""Keys of a service over the API and in the shell: made, listed, taken back, and nowhere kept."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.test import AsyncClient

from perdure.protocol.ids import parse_id
from runtime import hall
from runtime.core.callers import digest
from runtime.operations import Submission

pytestmark = pytest.mark.usefixtures("registered")


async def made(client: AsyncClient, name: str = "Greeter", **said: Any) -> Any:
    return await client.post(f"/services/{name}/keys", said, content_type="application/json")


async def test_a_key_is_told_once_and_its_digest_is_all_that_is_kept(client: AsyncClient, our_database: str) -> None:
    response = await made(client, note="the shop")
    id, key = response.json()["id"], response.json()["key"]
    (listed,) = (await client.get("/services/Greeter/keys")).json()["keys"]

    assert response.status_code == 201
    assert key.startswith(id)
    assert (listed["id"], listed["note"]) == (id, "the shop")
    assert key not in str(listed)
    async with await psycopg.AsyncConnection.connect(our_database) as sql:
        (kept,) = await (await sql.execute("SELECT digest FROM ingress_key")).fetchall()
        noted = await (await sql.execute("SELECT verb, target, details, result FROM audit")).fetchall()
    assert kept == (digest(key.encode()),)
    assert noted == [("key.create", "Greeter", {"note": "the shop"}, "created")]


async def test_ingresses_learn_of_keys_that_come_and_go(client: AsyncClient) -> None:
    here = await hall.operations()
    first, second = (await made(client)).json(), (await made(client)).json()
    while len((await here.refresh_registry()).keys.get("Greeter", ())) < 2:
        pass
    await client.delete(f"/services/Greeter/keys/{first['id']}")
    while len((await here.refresh_registry()).keys["Greeter"]) > 1:
        pass

    assert here.registry.keys == {"Greeter": {digest(second["key"].encode())}}


async def test_the_last_key_is_taken_back_only_when_that_is_meant(client: AsyncClient) -> None:
    first, second = (await made(client)).json()["id"], (await made(client)).json()["id"]

    left = await client.delete(f"/services/Greeter/keys/{first}")
    refused = await client.delete(f"/services/Greeter/keys/{second}")
    meant = await client.delete(f"/services/Greeter/keys/{second}?open=true")

    assert left.json() == {"id": first, "left": 1}
    assert refused.status_code == 409
    assert "open to everybody" in refused.json()["message"]
    assert meant.json() == {"id": second, "left": 0}
    assert (await client.get("/services/Greeter/keys")).json() == {"keys": []}


async def test_what_is_not_there_is_said_so(client: AsyncClient) -> None:
    id = (await made(client)).json()["id"]

    assert (await made(client, "Nobody")).status_code == 404
    assert (await client.get("/services/Nobody/keys")).status_code == 404
    assert (await client.delete(f"/services/Mailbox/keys/{id}")).status_code == 404
    assert (await made(client, note="a\0b")).status_code == 400


async def test_the_document_says_that_a_key_is_needed(client: AsyncClient) -> None:
    await made(client)

    assert (await client.get("/services/Greeter/openapi")).json()["security"] == [{"Key": []}]


async def test_the_service_of_an_invocation_is_known_wherever_it_stands(client: AsyncClient, our_database: str) -> None:
    here = await hall.operations()
    accepted = await here.send(Submission(here.registry.resolve("Greeter", "greet"), None, b'"Mary"'))
    async with await psycopg.AsyncConnection.connect(our_database, autocommit=True) as sql:
        ((sent,),) = await (await sql.execute("SELECT perdure_send('Mailbox', 'put', '1', key => 'Mary')")).fetchall()

    assert await here.service_of(accepted.id) == "Greeter"
    assert await here.service_of(parse_id(sent)) == "Mailbox"
    assert await here.service_of(bytes(16)) is None
