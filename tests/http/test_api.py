"""The operators' API: what it shows, what it lets people do, and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import jsonschema_rs
import psycopg
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, override_settings
from ninja import Schema

from perdure.protocol.ids import format_id
from perdure.protocol.messages import Failure, Output, Run, RunCompletion, Sleep, Value
from runtime import __version__
from runtime.api.app import RESOURCES
from runtime.api.origin import same_origin
from runtime.core.invocation import Outcome, Status
from runtime.operations import Operations, Submission
from runtime.registering import register_module
from runtime.store.link import Link
from tests.support import history

UNKNOWN = format_id(bytes(16))


async def test_what_no_engine_has_loaded_is_said_of_services_and_invocations(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    id = await sent(operations, "Greeter/greet")
    info = operations.registry.service("Greeter")

    async def look() -> tuple[bool, str | None]:
        service, invocation = await client.get("/services/Greeter"), await client.get(f"/invocations/{id}")
        return service.json()["loaded"], invocation.json()["why"]["missing_code"]

    assert await look() == (False, f"tests.support.endpoints:app ({info.deployment})")
    async with await psycopg.AsyncConnection.connect(our_database, autocommit=True) as sql:
        await sql.execute(
            "INSERT INTO engine (id, host, pid, address, queues, deployments, lock_key) "
            "VALUES (gen_random_uuid(), '', 1, '', '{}', %s, 1)",
            [[info.deployment]],
        )
        assert await look() == (False, f"tests.support.endpoints:app ({info.deployment})")  # its heart does not beat
        await sql.execute("INSERT INTO heartbeat (engine) SELECT id FROM engine")
        assert await look() == (True, None)


async def sent(operations: Operations, target: str) -> str:
    """An invocation that no engine has taken."""
    service, *key, handler = target.split("/")
    info = operations.registry.resolve(service, handler)
    accepted = await operations.send(Submission(info, key[0] if key else None, b'"Mary"'))
    return format_id(accepted.id)


# The house


async def test_health_is_answered_without_a_database() -> None:
    response = await AsyncClient().get("/health")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_a_path_that_nobody_has_is_answered_in_json_and_below_ui_in_html() -> None:
    nothing, page = await AsyncClient().get("/servises"), await AsyncClient().get("/ui/nothing")

    assert (nothing.status_code, page.status_code) == (404, 404)
    assert nothing.json()["message"] == "There is nothing at /servises. GET /openapi says what there is."
    assert page.headers["content-type"].startswith("text/html")


async def test_the_version_is_that_of_the_distribution(client: AsyncClient) -> None:
    response = await client.get("/version")

    assert response.json()["version"] == __version__


@pytest.mark.parametrize("path", ["/services", "/invocations", f"/invocations/{UNKNOWN}", "/workers", "/metrics"])
async def test_without_a_database_the_answer_is_503_and_says_what_to_look_at(
    use_database: Callable[[str], None], path: str
) -> None:
    use_database("postgresql://nobody@127.0.0.1:1/nothing")

    response = await AsyncClient().get(path)

    assert response.status_code == 503
    assert "DATABASE_URL" in response.json()["message"]


async def test_operations_without_a_database_are_tried_anew_the_next_time(
    our_database: str, use_database: Callable[[str], None], client: AsyncClient
) -> None:
    use_database("postgresql://nobody@127.0.0.1:1/nothing")
    without = await client.patch(f"/invocations/{UNKNOWN}/cancel")
    use_database(our_database)

    assert without.status_code == 503
    assert (await client.patch(f"/invocations/{UNKNOWN}/cancel")).status_code == 404


# Services


async def test_services_are_listed_with_their_handlers_and_where_their_code_is(
    client: AsyncClient, operations: Operations
) -> None:
    greeter, mailbox = (await client.get("/services")).json()["services"]

    assert (greeter["name"], greeter["ty"], greeter["revision"]) == ("Greeter", "SERVICE", 1)
    assert greeter["location"] == "tests.support.endpoints:app"
    assert greeter["documentation"] == "Says hello."
    assert {handler["name"]: handler["public"] for handler in greeter["handlers"]} == {"greet": True, "whisper": False}
    assert greeter["handlers"][0]["input_json_schema"] == {"type": "string"}
    assert {handler["name"]: handler["ty"] for handler in mailbox["handlers"]} == {
        "put": "EXCLUSIVE",
        "letters": "SHARED",
    }


async def test_one_service_is_found_by_its_name(client: AsyncClient, operations: Operations) -> None:
    assert (await client.get("/services/Mailbox")).json()["ty"] == "VIRTUAL_OBJECT"


async def test_an_unknown_service_is_a_404_in_words(client: AsyncClient) -> None:
    response = await client.get("/services/Nobody")

    assert response.status_code == 404
    assert response.json()["message"].startswith("There is no service 'Nobody'. `./dev manage services`")


# Invocations


async def test_the_latest_invocations_come_first_whether_they_live_or_ended(client: AsyncClient) -> None:
    oldest = await history.ended(created_at=history.BEGINNING)
    middle = await history.alive("Mailbox/Mary/put", created_at=history.BEGINNING + timedelta(seconds=1))
    newest = await history.ended(created_at=history.BEGINNING + timedelta(seconds=2), outcome=Outcome.KILLED)

    found = (await client.get("/invocations")).json()["invocations"]

    assert [line["id"] for line in found] == [newest, middle, oldest]
    assert [line["status"] for line in found] == ["completed", "running", "completed"]
    assert [line["outcome"] for line in found] == ["killed", None, "succeeded"]
    assert found[1]["target"] == "Mailbox/Mary/put"


async def test_no_more_invocations_are_listed_than_asked_for(client: AsyncClient) -> None:
    for second in range(3):
        await history.ended(created_at=history.BEGINNING + timedelta(seconds=second))
        newest = await history.alive(created_at=history.BEGINNING + timedelta(seconds=second, milliseconds=1))

    found = (await client.get("/invocations?limit=1")).json()["invocations"]

    assert [line["id"] for line in found] == [newest]


async def test_a_list_has_the_first_line_of_a_failure_and_the_invocation_all_of_it(client: AsyncClient) -> None:
    failure = {
        "code": 500,
        "message": f"no money{'!' * 1000}\nnot a cent",
        "stacktrace": "Traceback:\n  shop.py, line 3\n",
    }
    id = await history.alive(status=Status.PAUSED, failure=failure)

    listed = (await client.get("/invocations")).json()["invocations"][0]["failure"]
    in_a_tree = (await client.get(f"/invocations/{id}/tree")).json()["root"]["summary"]["failure"]
    shown = (await client.get(f"/invocations/{id}")).json()["failure"]

    assert listed == in_a_tree
    assert (listed["message"], listed["stacktrace"]) == (f"no money{'!' * 492}", None)
    assert (shown["message"], shown["stacktrace"]) == (failure["message"], failure["stacktrace"])


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
async def test_a_limit_out_of_reason_is_refused(client: AsyncClient, limit: str) -> None:
    response = await client.get(f"/invocations?limit={limit}")

    assert response.status_code == 400
    assert response.json()["message"].startswith("`limit` in the query ")


async def test_an_invocation_is_shown_with_the_entries_of_every_flush_in_order(client: AsyncClient) -> None:
    id = await history.ended(
        entries=[Run(1, "charge"), RunCompletion(1, Value(b'{"paid": 3}'))],
        last=[Sleep(1_767_268_800_000, 2, "nap")],
        result=Output(Failure(410, "sold out")),
        outcome=Outcome.FAILED,
        failure={"code": 410, "message": "sold out"},
    )

    shown = (await client.get(f"/invocations/{id}")).json()

    assert shown["failure"]["message"] == "sold out"
    assert [(entry["index"], entry["type"], entry["name"], entry["completed"]) for entry in shown["journal"]] == [
        (0, "Command: Input", "", None),
        (1, "Command: Run", "charge", True),
        (2, "Notification: Run", "", None),
        (3, "Command: Sleep", "nap", False),
        (4, "Command: Output", "", None),
    ]
    assert shown["journal"][0]["details"]["value"] == {"json": "Mary"}
    assert shown["journal"][2]["details"]["result"] == {"json": {"paid": 3}}
    assert shown["journal"][4]["details"]["result"] == {"failure": {"code": 410, "message": "sold out"}}


async def test_an_invocation_under_way_shows_what_it_has_done_so_far(client: AsyncClient) -> None:
    id = await history.alive(status=Status.BACKING_OFF, entries=[Run(1, "charge")], failed_attempts=3)

    shown = (await client.get(f"/invocations/{id}")).json()

    assert (shown["status"], shown["outcome"], shown["retry_count"]) == ("backing-off", None, 3)
    assert [entry["type"] for entry in shown["journal"]] == ["Command: Input", "Command: Run"]


@pytest.mark.parametrize(
    "path",
    ["/invocations/{}", *(f"/invocations/{{}}/{verb}" for verb in ("cancel", "kill", "pause", "resume", "purge"))],
)
async def test_an_unknown_invocation_is_a_404_and_no_id_at_all_a_400(client: AsyncClient, path: str) -> None:
    ask = client.get if path.endswith("{}") else client.patch

    assert (await ask(path.format(UNKNOWN))).status_code == 404
    assert (await ask(path.format("inv_nonsense"))).status_code == 400


# Verbs


async def test_cancelling_what_has_not_started_ends_it(client: AsyncClient, operations: Operations) -> None:
    id = await sent(operations, "Greeter/greet")

    response = await client.patch(f"/invocations/{id}/cancel")

    assert (response.status_code, response.json()) == (200, {"id": id, "verdict": "done"})
    assert (await client.get(f"/invocations/{id}")).json()["outcome"] == "cancelled"


async def test_cancelling_what_has_started_asks_it_to_end(client: AsyncClient, operations: Operations) -> None:
    id = await history.alive(status=Status.SUSPENDED, entries=[Sleep(1_767_268_800_000, 1)])

    response = await client.patch(f"/invocations/{id}/cancel")

    assert (response.status_code, response.json()) == (202, {"id": id, "verdict": "asked"})
    assert (await client.get(f"/invocations/{id}")).json()["outcome"] is None


async def test_killing_ends_it_and_a_second_time_is_a_409(client: AsyncClient, operations: Operations) -> None:
    id = await sent(operations, "Mailbox/Mary/put")

    first, second = await client.patch(f"/invocations/{id}/kill"), await client.patch(f"/invocations/{id}/kill")

    assert (first.status_code, second.status_code) == (200, 409)
    assert second.json()["message"] == f"The invocation {id} has ended already."
    assert (await client.get(f"/invocations/{id}")).json()["outcome"] == "killed"


async def test_a_paused_one_is_resumed_and_a_second_time_is_a_409(client: AsyncClient, operations: Operations) -> None:
    id = await history.alive(status=Status.PAUSED)

    unheard_of = await client.patch(f"/invocations/{id}/resume?deployment=dp_unheard_of")
    first, second = [await client.patch(f"/invocations/{id}/resume?deployment=latest") for _ in range(2)]

    assert (unheard_of.status_code, first.status_code, second.status_code) == (409, 200, 409)
    assert "cannot go on there: no such deployment has its service." in unheard_of.json()["message"]
    assert first.json() == {"id": id, "verdict": "resumed"}
    assert second.json()["message"] == f"The invocation {id} is neither paused nor backing off."


async def test_one_whose_code_was_deleted_goes_on_with_the_newest_and_is_told_so(
    client: AsyncClient, operations: Operations
) -> None:
    id = await history.alive(status=Status.PAUSED, deployment="dp_deleted")

    kept = await client.patch(f"/invocations/{id}/resume")
    latest = await client.patch(f"/invocations/{id}/resume?deployment=latest")

    assert kept.status_code == 409
    assert "its deployment was deleted. With `deployment=latest` it goes on" in kept.json()["message"]
    assert latest.json() == {"id": id, "verdict": "resumed"}


async def test_one_whose_service_is_gone_waits_for_a_deployment_of_it(
    client: AsyncClient, operations: Operations, our_database: str
) -> None:
    id = await history.alive(status=Status.PAUSED)
    (deployment,) = [one["id"] for one in (await client.get("/deployments")).json()["deployments"]]
    await client.delete(f"/deployments/{deployment}?force=true")

    refused = await client.patch(f"/invocations/{id}/resume?deployment=latest")
    with closing(await Link.connect(our_database)) as link:
        await register_module("tests.support.endpoints:app", link)
    again = await client.patch(f"/invocations/{id}/resume?deployment=latest")

    assert refused.status_code == 409
    assert "has no code any more: register a deployment that has its handler" in refused.json()["message"]
    assert again.json() == {"id": id, "verdict": "resumed"}


async def test_a_queued_one_is_paused_and_resumed(client: AsyncClient, operations: Operations) -> None:
    id = await sent(operations, "Greeter/greet")

    answers = [
        await client.patch(f"/invocations/{id}/{verb}") for verb in ("pause", "pause", "resume", "kill", "pause")
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 409]
    assert [answer.json().get("verdict") for answer in answers[:3]] == ["paused", "already_paused", "resumed"]


async def test_what_has_not_started_cannot_be_paused(client: AsyncClient, operations: Operations) -> None:
    id = await sent(operations, "Mailbox/Mary/put")

    response = await client.patch(f"/invocations/{id}/pause")

    assert response.status_code == 409
    assert response.json()["message"].endswith("has not started yet: there is nothing to pause or resume.")


async def test_one_that_has_ended_is_purged_in_two_steps(client: AsyncClient, operations: Operations) -> None:
    id = await sent(operations, "Greeter/greet")

    too_early = [await client.patch(f"/invocations/{id}/{verb}") for verb in ("purge-journal", "purge")]
    await client.patch(f"/invocations/{id}/kill")
    emptied = await client.patch(f"/invocations/{id}/purge-journal")
    (last,) = (await client.get(f"/invocations/{id}")).json()["journal"]
    purged = await client.patch(f"/invocations/{id}/purge")

    assert [response.status_code for response in too_early] == [409, 409]
    assert (emptied.status_code, last["type"]) == (200, "Command: Output")
    assert purged.json() == {"id": id, "verdict": "purged"}
    assert (await client.get(f"/invocations/{id}")).status_code == 404
    assert (await client.patch(f"/invocations/{id}/purge")).status_code == 404


async def test_what_has_ended_is_done_again_as_a_new_one(client: AsyncClient, operations: Operations) -> None:
    id = await sent(operations, "Greeter/greet")

    too_early = await client.patch(f"/invocations/{id}/restart-as-new")
    await client.patch(f"/invocations/{id}/kill")
    begun = await client.patch(f"/invocations/{id}/restart-as-new")
    beyond = await client.patch(f"/invocations/{id}/restart-as-new?from=1")
    no_number = await client.patch(f"/invocations/{id}/restart-as-new?from=one")
    nowhere = await client.patch(f"/invocations/{id}/restart-as-new?deployment=dp_unheard_of")
    await client.patch(f"/invocations/{id}/purge-journal")
    emptied = await client.patch(f"/invocations/{id}/restart-as-new")

    assert (too_early.status_code, begun.status_code) == (409, 200)
    new = (await client.get(f"/invocations/{begun.json()['new_invocation_id']}")).json()
    assert (new["target"], new["status"]) == ("Greeter/greet", "ready")
    assert (beyond.status_code, no_number.status_code, nowhere.status_code, emptied.status_code) == (422, 400, 409, 410)


async def test_what_has_not_started_cannot_be_resumed(client: AsyncClient, operations: Operations) -> None:
    id = await history.alive(status=Status.SCHEDULED)

    response = await client.patch(f"/invocations/{id}/resume")

    assert response.status_code == 425
    assert response.json()["message"].endswith("has not started yet: there is nothing to pause or resume.")


# Pages from elsewhere


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:8080", "null"])
async def test_a_page_from_elsewhere_can_cancel_nothing(
    client: AsyncClient, operations: Operations, origin: str
) -> None:
    id = await sent(operations, "Greeter/greet")

    response = await client.patch(f"/invocations/{id}/cancel", headers={"origin": origin})

    assert response.status_code == 403
    assert (await client.get(f"/invocations/{id}")).json()["status"] == "ready"


async def test_our_own_pages_can(client: AsyncClient, operations: Operations) -> None:
    id = await sent(operations, "Greeter/greet")

    response = await client.patch(f"/invocations/{id}/cancel", headers={"origin": "http://testserver"})

    assert response.status_code == 200


@pytest.mark.parametrize(("name", "status"), [("localhost:9070", 200), ("evil.example", 400)])
async def test_a_name_that_was_pointed_at_us_reads_nothing(name: str, status: int) -> None:
    request = AsyncRequestFactory().get("/services")
    request.META["HTTP_HOST"] = name

    async def view(_: HttpRequest) -> HttpResponse:
        return HttpResponse()

    assert (await same_origin(view)(request)).status_code == status


async def test_a_body_that_is_too_large_is_refused_in_words(client: AsyncClient) -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
        answer = await client.post("/query", {"query": "x" * 100}, content_type="application/json")

    assert answer.status_code == 413
    assert answer.json()["message"].startswith("The body is larger than 100 bytes")


# The document


async def test_the_openapi_document_names_paths_and_their_refusals(client: AsyncClient) -> None:
    document = (await client.get("/openapi")).json()

    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) >= {"/health", "/services/{name}", "/invocations", "/deployments/{id}", "/query"}
    assert {"200", "202", "400", "401", "403", "404", "409", "503"} == set(
        document["paths"]["/invocations/{id}/cancel"]["patch"]["responses"]
    )


def test_each_schema_of_the_document_has_a_name_of_its_own() -> None:
    """Of two with one name the document would show one, for both."""

    def below(kind: type[Schema]) -> Iterator[type[Schema]]:
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    assert RESOURCES  # loaded, and with them their schemas
    ours = {one for one in below(Schema) if one.__module__.startswith("runtime.api")}
    names = Counter(one.__name__ for one in ours)
    assert len(names) > 20
    assert {name: count for name, count in names.items() if count > 1} == {}


async def test_answers_are_as_the_openapi_document_says(client: AsyncClient, operations: Operations) -> None:
    id = await history.ended(entries=[Run(1, "charge"), RunCompletion(1, Value(b"\xff"))])
    document = (await client.get("/openapi")).json()

    for path, answer in {
        "/services": await client.get("/services"),
        "/services/{name}": await client.get("/services/Greeter"),
        "/invocations": await client.get("/invocations"),
        "/invocations/{id}": await client.get(f"/invocations/{id}"),
    }.items():
        told = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": document["components"],
            **told,
        }
        jsonschema_rs.validate(schema, answer.json())
