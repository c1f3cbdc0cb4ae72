"""Restart as new over HTTP: asked again with the same key it makes no second one, and a refusal names its cure."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from perdure.protocol.ids import format_id, parse_id
from perdure.protocol.messages import Call, CallInvocationIdCompletion, Entry, InvocationRef, Run, RunCompletion, Value
from runtime.accounts.tokens import make_token
from runtime.core.access import Role
from runtime.errors import Disconnected
from runtime.operations import Operations
from runtime.store import retention
from tests.support import history
from tests.support.world import TESTER, WITHIN

NEW = "new_invocation_id"


async def restart(client: AsyncClient, id: str, key: str | None = "k1", **headers: str) -> str:
    if key is not None:
        headers["idempotency-key"] = key
    response = await client.patch(f"/invocations/{id}/restart-as-new", headers=headers)
    assert response.status_code == 200, response.content
    new: str = response.json()[NEW]
    return new


async def living(our_database: str) -> list[str]:
    async with await psycopg.AsyncConnection.connect(our_database) as sql:
        rows = await (await sql.execute("SELECT id FROM invocation ORDER BY id")).fetchall()
    return [format_id(id.bytes) for (id,) in rows]


async def test_the_same_key_makes_one_new_invocation(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    id, other = await history.ended(), await history.ended()

    first, again = await restart(client, id), await restart(client, id)
    elsewhere, anew, keyless = (
        await restart(client, other),
        await restart(client, id, "k2"),
        await restart(client, id, None),
    )

    assert first == again
    assert sorted({first, elsewhere, anew, keyless}) == await living(our_database)
    async with await psycopg.AsyncConnection.connect(our_database) as sql:
        log = await (await sql.execute("SELECT result FROM audit ORDER BY id LIMIT 2")).fetchall()
    assert log == [("restarted",), ("repeated",)]


async def test_the_key_is_that_of_whoever_asks(client: AsyncClient, operations: Operations) -> None:
    id = await history.ended()
    _, secret = await sync_to_async(make_token)(TESTER, "ci", Role.OPERATOR)

    mine, theirs = await restart(client, id), await restart(client, id, authorization=f"Bearer {secret}")

    assert mine != theirs


async def test_when_the_answer_was_lost_the_next_one_is_the_same(
    client: AsyncClient, operations: Operations, our_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await history.ended()

    def lose(*_: object) -> None:
        raise Disconnected("after the commit")

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "announce", lose)
        lost = await client.patch(f"/invocations/{id}/restart-as-new", headers={"idempotency-key": "k1"})

    assert lost.status_code == 503
    assert [await restart(client, id)] == await living(our_database)


async def test_who_comes_second_at_the_same_moment_waits_for_the_first(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    id, new = await history.ended(), await history.ended()
    await restart(client, id, "k0")
    async with await psycopg.AsyncConnection.connect(our_database) as first:
        rows = await (await first.execute("DELETE FROM restart_key RETURNING actor")).fetchall()
        ((actor,),) = rows
        await first.commit()
        await first.execute(
            "INSERT INTO restart_key (actor, source, key, invocation) VALUES (%s, %s, 'k1', %s)",
            (actor, parse_id(id).hex(), parse_id(new).hex()),
        )
        second = asyncio.ensure_future(restart(client, id))
        async with asyncio.timeout(WITHIN), await psycopg.AsyncConnection.connect(our_database, autocommit=True) as sql:
            while not await (await sql.execute("SELECT FROM pg_locks WHERE NOT granted")).fetchall():
                await asyncio.sleep(0.01)
        await first.commit()

    assert await second == new
    assert len(await living(our_database)) == 1


async def test_what_was_refused_may_be_asked_for_again_with_its_key(
    client: AsyncClient, operations: Operations
) -> None:
    id = await history.ended()

    refused = await client.patch(f"/invocations/{id}/restart-as-new?from=99", headers={"idempotency-key": "k1"})

    assert refused.status_code == 422
    assert await restart(client, id)


async def test_a_key_is_kept_for_as_long_as_the_new_one(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    id = await history.ended(created_at=datetime.now(UTC))
    first = await restart(client, id)

    await retention.keep_house(our_database)
    assert await restart(client, id) == first
    await client.patch(f"/invocations/{first}/kill")
    await retention.keep_house(our_database)
    assert await restart(client, id) == first
    await client.patch(f"/invocations/{first}/purge")
    await retention.keep_house(our_database)
    assert await restart(client, id) != first


async def test_without_any_code_for_it_the_answer_says_what_to_register(
    client: AsyncClient, operations: Operations
) -> None:
    id = await history.ended("Retired/work")

    refused = await client.patch(f"/invocations/{id}/restart-as-new")

    assert refused.status_code == 409
    assert "has no code any more: register a deployment that has its handler." in refused.json()["message"]


@pytest.mark.parametrize("key", ["", "x" * 513, "a\0b"])
async def test_a_key_that_is_none_is_refused_with_its_place(
    client: AsyncClient, operations: Operations, key: str
) -> None:
    id = await history.ended()

    refused = await client.patch(f"/invocations/{id}/restart-as-new", headers={"idempotency-key": key})

    assert (refused.status_code, refused.json()["where"]) == (400, "header.idempotency-key")


async def test_an_entry_that_awaits_an_end_is_named_with_whose_it_is(
    client: AsyncClient, operations: Operations
) -> None:
    callee = await history.alive("Mailbox/Mary/put")
    entries: list[Entry] = [
        Run(1, "step"),
        RunCompletion(1, Value(b"1")),
        Call("Mailbox", "put", b"", 2, 3, key="Mary"),
        CallInvocationIdCompletion(2, InvocationRef(callee)),
    ]
    id = await history.ended(entries=entries)

    refused = await client.patch(f"/invocations/{id}/restart-as-new?from=4")
    earlier = await client.patch(f"/invocations/{id}/restart-as-new?from=2")

    assert refused.status_code == 422
    assert refused.json()["message"] == (
        f"The entry 3 of {id} awaits the end of {callee}, which has not come yet."
        " Ask again when that has ended, or take over no more than `from=2`."
    )
    assert earlier.status_code == 200
