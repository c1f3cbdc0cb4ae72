"""Verbs by filter over HTTP: counted first, begun with one request, and looked at afterwards."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.http import HttpRequest
from django.test import AsyncClient

from perdure.protocol.ids import format_id
from runtime import bulk, tasks
from runtime.api import guard
from runtime.core.access import Actor, Role
from runtime.core.filters import InvocationFilter
from runtime.core.invocation import Status
from runtime.operations import Operations, Submission
from runtime.steering import Verb
from runtime.store import bulk as store
from runtime.store import verbs
from tests.support import history
from tests.support.world import TESTER

WITHIN = 15.0


async def sent(operations: Operations, number: int) -> list[str]:
    """Invocations that no engine has taken."""
    info = operations.registry.resolve("Greeter", "greet")
    accepted = await asyncio.gather(*(operations.send(Submission(info, None, b'"Mary"')) for _ in range(number)))
    return [format_id(one.id) for one in accepted]


async def begin(client: AsyncClient, verb: str, filter: dict[str, Any], **more: Any) -> Any:
    body = {"verb": verb, "filter": filter, **more}
    return await client.post("/bulk", data=body, content_type="application/json")


async def finished(client: AsyncClient, id: str) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN):
        while True:
            found: dict[str, Any] = (await client.get(f"/bulk/{id}")).json()
            if found["finished_at"]:
                return found
            await asyncio.sleep(0.01)


async def status(client: AsyncClient, id: str) -> str:
    found = (await client.get(f"/invocations/{id}")).json()
    return str(found["outcome"] or found["status"])


async def test_a_dry_run_counts_and_touches_nothing(client: AsyncClient, operations: Operations) -> None:
    ids = await sent(operations, 5)

    counted = await begin(client, "kill", {"service": "Greeter"}, dry_run=True, at_most=2)

    assert (counted.status_code, counted.json()) == (200, {"matched": 5})
    assert {await status(client, id) for id in ids} == {"ready"}
    assert (await client.get("/bulk")).json() == {"bulk": []}


async def test_more_than_were_reckoned_with_are_not_touched(client: AsyncClient, operations: Operations) -> None:
    ids = await sent(operations, 3)

    refused = await begin(client, "kill", {}, at_most=2)

    assert refused.status_code == 409
    assert refused.json()["message"] == (
        "The filter means more than 2 invocations. Narrow the filter, or say `at_most`."
    )
    assert {await status(client, id) for id in ids} == {"ready"}


async def test_all_verbs_one_after_the_other(client: AsyncClient, operations: Operations) -> None:
    ids = await sent(operations, 3)
    mine = {"id": ids[:2]}

    for verb, word, after in (
        ("pause", "paused", "paused"),
        ("resume", "resumed", "ready"),
        ("cancel", "done", "cancelled"),
        ("restart-as-new", "restarted", "cancelled"),
        ("purge-journal", "purged", "cancelled"),
    ):
        begun = await begin(client, verb, mine)
        found = await finished(client, begun.json()["id"])

        assert begun.status_code == 202
        assert (found["total"], found["told"], found["refused"], found["came"]) == (2, 2, 0, {word: 2})
        assert [await status(client, id) for id in ids] == [after, after, "ready"]

    await finished(client, (await begin(client, "purge", mine)).json()["id"])
    assert [(await client.get(f"/invocations/{id}")).status_code for id in ids] == [404, 404, 200]
    latest = (await client.get("/bulk?limit=2")).json()["bulk"]
    assert [one["verb"] for one in latest] == ["purge", "purge-journal"]
    assert latest[0]["filter"] == mine


async def test_those_whose_code_was_deleted_go_on_with_the_newest(client: AsyncClient, operations: Operations) -> None:
    ids = [await history.alive(status=Status.PAUSED, deployment="dp_deleted") for _ in range(2)]

    kept = await finished(client, (await begin(client, "resume", {})).json()["id"])
    latest = await finished(client, (await begin(client, "resume", {}, deployment="latest")).json()["id"])

    assert (kept["refused"], kept["came"]) == (2, {"code_deleted": 2})
    assert (latest["refused"], latest["came"]) == (0, {"resumed": 2})
    assert {await status(client, id) for id in ids} == {"ready"}


async def test_a_verb_is_for_those_it_can_be_done_to(client: AsyncClient, operations: Operations) -> None:
    living, ended = await sent(operations, 2)
    await client.patch(f"/invocations/{ended}/kill")

    totals = [(await begin(client, verb, {}, dry_run=True)).json()["matched"] for verb in Verb]
    contradicting = await begin(client, "purge", {"status": ["ready"]})

    assert dict(zip(Verb, totals, strict=True)) == {
        **dict.fromkeys(Verb, 1), Verb.RESUME: 0,
    }  # fmt: skip
    assert contradicting.json()["total"] == 0
    assert contradicting.json()["finished_at"]
    assert await status(client, living) == "ready"


async def test_each_invocation_and_the_whole_are_in_the_audit_log(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    ids = await sent(operations, 2)

    id = (await begin(client, "cancel", {"service": "Greeter"})).json()["id"]
    await finished(client, id)

    async with await psycopg.AsyncConnection.connect(our_database) as sql:
        log = await (await sql.execute("SELECT verb, target, details, result FROM audit ORDER BY id")).fetchall()
    assert log[0] == ("invocations.cancel", id, {"filter": {"service": "Greeter"}, "total": 2}, "begun")
    assert log[1:] == [("invocation.cancel", one, {"bulk": id}, "done") for one in sorted(ids)]


async def test_what_nobody_goes_on_with_is_taken_up_by_the_chores(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    ids = await sent(operations, 2)
    id = await bulk.begin(
        operations, Verb.KILL, await bulk.meant(Verb.KILL, InvocationFilter(service="Greeter"), 10), TESTER, {}
    )

    await tasks._carry_on()
    fresh = await status(client, ids[0])
    async with await psycopg.AsyncConnection.connect(our_database, autocommit=True) as sql:
        await sql.execute(f"UPDATE bulk SET moved_at = now() - interval '{store.ABANDONED_AFTER + 1} seconds'")
    await tasks._carry_on()

    assert fresh == "ready", "whoever began it may be just about to"
    assert {await status(client, one) for one in ids} == {"killed"}
    assert (await finished(client, str(UUID(bytes=id))))["came"] == {"done": 2}


async def test_one_that_somebody_has_locked_does_not_keep_the_others(
    client: AsyncClient, operations: Operations, our_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "TRIES", 1)
    ids = sorted(await sent(operations, 4))
    async with await psycopg.AsyncConnection.connect(our_database) as holder:
        await holder.execute("SELECT FROM invocation ORDER BY id LIMIT 1 FOR UPDATE")
        found = await finished(client, (await begin(client, "kill", {})).json()["id"])

    assert (found["told"], found["refused"], found["came"]) == (3, 1, {"done": 3, "locked": 1})
    assert [await status(client, id) for id in ids] == ["ready", "killed", "killed", "killed"]


async def test_one_that_is_stopped_tells_nobody_else(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    ids = await sent(operations, 2)
    meant = await bulk.meant(Verb.KILL, InvocationFilter(service="Greeter"), 10)
    begun = await bulk.begin(operations, Verb.KILL, meant, TESTER, {})
    path = f"/bulk/{UUID(bytes=begun)}"

    stopped = await client.patch(f"{path}/stop")
    await bulk.carry_out(operations, begun)

    assert (stopped.status_code, stopped.json()["stopped_by"]) == (200, "anyone")
    found = (await client.get(path)).json()
    assert (found["told"], found["total"], bool(found["finished_at"])) == (0, 2, True)
    assert {await status(client, one) for one in ids} == {"ready"}
    again = await client.patch(f"{path}/stop")
    assert (again.status_code, "finished already" in again.json()["message"]) == (409, True)
    assert (await client.patch(f"/bulk/{uuid4()}/stop")).status_code == 404
    async with await psycopg.AsyncConnection.connect(our_database) as sql:
        log = await (await sql.execute("SELECT result FROM audit WHERE verb = 'bulk.stop' ORDER BY id")).fetchall()
    assert log == [("stopped",), ("finished already",)]


async def test_a_step_and_a_stop_that_meet_leave_each_told_or_not(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    """Whoever is second to the rows waits for the first, and sees what it did."""
    ids = await sent(operations, 20)
    meant = await bulk.meant(Verb.KILL, InvocationFilter(service="Greeter"), 100)
    begun = await bulk.begin(operations, Verb.KILL, meant, TESTER, {})

    await asyncio.gather(bulk.carry_out(operations, begun), bulk.stop(operations, begun, TESTER))

    found = (await client.get(f"/bulk/{UUID(bytes=begun)}")).json()
    ended = [one for one in ids if await status(client, one) == "killed"]
    assert found["told"] == len(ended)
    assert found["finished_at"]
    assert len(ended) in (0, 20)


async def test_who_may_touch_some_services_only_sees_what_is_about_no_other(
    client: AsyncClient, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_services = (await begin(client, "purge", {})).json()["id"]
    elsewhere = (await begin(client, "purge", {"service": "Mailbox"})).json()["id"]
    greetings = (await begin(client, "purge", {"service": "Greeter"})).json()["id"]
    scoped = Actor("scoped", Role.OPERATOR, "tests", services=frozenset({"Greeter"}))

    async def whose(_: HttpRequest) -> Actor:
        return scoped

    monkeypatch.setattr(guard, "whose", whose)
    own = (await begin(client, "purge", {})).json()["id"]
    own_of_none = (await begin(client, "purge", {"service": "Mailbox"})).json()["id"]

    assert [one["id"] for one in (await client.get("/bulk")).json()["bulk"]] == [own_of_none, own, greetings]
    every = (all_services, elsewhere, greetings, own, own_of_none)
    assert [(await client.get(f"/bulk/{id}")).status_code for id in every] == [404, 404, 200, 200, 200]
    assert (await client.patch(f"/bulk/{elsewhere}/stop")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"verb": "explode", "filter": {}},
        {"verb": "kill"},
        {"verb": "kill", "filter": {"servise": "Greeter"}},
        {"verb": "kill", "filter": {"id": ["inv_1"]}},
        {"verb": "kill", "filter": {"service": "\0"}},
        {"verb": "kill", "filter": {}, "at_most": 0},
    ],
)
async def test_what_is_not_understood_is_refused(client: AsyncClient, operations: Operations, body: Any) -> None:
    answer = await client.post("/bulk", data=body, content_type="application/json")

    assert answer.status_code == 400
    assert (await client.get("/bulk")).json() == {"bulk": []}


async def test_an_unknown_one_is_a_404_and_no_id_a_400(client: AsyncClient, operations: Operations) -> None:
    assert (await client.get(f"/bulk/{uuid4()}")).status_code == 404
    assert (await client.get("/bulk/everything")).status_code == 400
