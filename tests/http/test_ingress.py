"""The ingress answers callers: through its ASGI application, on operations that need no database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from perdure.protocol.ids import format_awakeable, format_id, idempotent_id, workflow_id
from perdure.protocol.limits import Limits
from perdure.protocol.messages import Failure, Header, Signal, Value
from runtime.core.lifecycle import LONGEST_KEY
from runtime.core.registry import Registry
from runtime.errors import DatabaseError, Disconnected, Overloaded
from runtime.ingress.app import Ingress
from tests.support.asgi import Answer, Caller, Exchange, started
from tests.support.manifests import GREETER, registry
from tests.support.operations import FakeOperations

LIMIT = 1000


@pytest.fixture
def operations() -> FakeOperations:
    operations = FakeOperations(registry())
    operations.limits = Limits(payload=LIMIT)
    return operations


@pytest.fixture
async def caller(operations: FakeOperations) -> AsyncIterator[Caller]:
    async with started(Ingress(lambda: operations)) as caller:
        yield caller


def refused(answer: Answer, status: int, words: str) -> None:
    """It is an error of the ingress, and says so everywhere."""
    assert answer.status == status
    assert answer.headers["x-restate-error-source"] == "ingress"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == status
    assert answer.json()["source"] == "ingress"
    assert words in answer.json()["message"]


# Calls and sends --------------------------------------------------------------------------------------------------


async def test_a_call_gets_the_handlers_result(caller: Caller, operations: FakeOperations) -> None:
    answer = await caller.post("/Greeter/greet", b'"Mary"')
    assert (answer.status, answer.body) == (200, b'"Mary"')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-restate-id"].startswith("inv_1")
    (submission,) = operations.submissions
    assert (submission.handler.name, submission.key, submission.input) == ("greet", None, b'"Mary"')
    assert submission.headers == (
        Header("x-restate-ingress-path", "/Greeter/greet"),
        Header("content-type", "application/json"),
    )
    assert submission.idempotency_key is None
    assert submission.due == 0


async def test_a_call_reaches_the_key_of_an_object(caller: Caller, operations: FakeOperations) -> None:
    answer = await caller.post("/Mailbox/Mary%2FAnn/put", b'"Hi"')
    assert answer.status == 200
    assert operations.submissions[0].key == "Mary/Ann"


async def test_a_call_may_be_a_get(caller: Caller) -> None:
    assert (await caller.get("/Mailbox/Mary/letters")).status == 200


async def test_an_empty_result_has_no_content_type(caller: Caller, operations: FakeOperations) -> None:
    operations.handle = lambda submission: Value(b"")
    answer = await caller.post("/Greeter/nothing")
    assert (answer.status, answer.body) == (200, b"")
    assert "content-type" not in answer.headers


async def test_a_body_in_many_chunks_arrives_whole(caller: Caller, operations: FakeOperations) -> None:
    await caller.request("POST", "/Greeter/greet", b'"Ma', b"", b'ry"', content_type="application/json")
    assert operations.submissions[0].input == b'"Mary"'


async def test_a_send_is_answered_when_it_is_durable(caller: Caller, operations: FakeOperations) -> None:
    operations.hold()
    answer = await caller.post("/Greeter/greet/send", b'"Mary"')
    assert answer.status == 202
    assert answer.json() == {"invocationId": answer.headers["x-restate-id"], "status": "Accepted"}


async def test_a_delayed_send_tells_when_it_is_due(caller: Caller, operations: FakeOperations) -> None:
    before = time.time()
    answer = await caller.post("/Greeter/greet/send?delay=1h", b'"Mary"')
    due = operations.submissions[0].due
    assert before + 3599.9 <= due / 1000 <= time.time() + 3600
    told = datetime.fromisoformat(answer.json()["executionTime"])
    assert told.utcoffset() is not None
    assert round(told.timestamp() * 1000) == due


async def test_a_delay_of_nothing_is_no_delay(caller: Caller, operations: FakeOperations) -> None:
    answer = await caller.post("/Greeter/greet/send?delay=0", b'"Mary"')
    assert operations.submissions[0].due == 0
    assert "executionTime" not in answer.json()


async def test_the_newer_form_of_paths_does_the_same(caller: Caller, operations: FakeOperations) -> None:
    assert (await caller.post("/restate/call/Greeter/greet", b'"Mary"')).status == 200
    assert (await caller.post("/restate/send/Mailbox/Mary/put", b'"Hi"')).status == 202
    assert [submission.key for submission in operations.submissions] == [None, "Mary"]


async def test_an_idempotency_key_submits_once_and_attaches_after(caller: Caller, operations: FakeOperations) -> None:
    first = await caller.post("/Greeter/greet", b'"Mary"', idempotency_key="order-1")
    second = await caller.post("/Greeter/greet", b'"Ann"', idempotency_key="order-1")
    third = await caller.post("/Greeter/greet/send", b'"Ann"', idempotency_key="order-1")
    assert first.body == second.body == b'"Mary"'
    assert first.headers["x-restate-id"] == second.headers["x-restate-id"] == third.headers["x-restate-id"]
    assert third.json()["status"] == "PreviouslyAccepted"
    assert len(operations.submissions) == 1


async def test_a_repeated_delayed_send_does_not_tell_a_due_time_it_does_not_know(caller: Caller) -> None:
    await caller.post("/Greeter/greet/send?delay=1h", b'"Mary"', idempotency_key="order-1")
    again = await caller.post("/Greeter/greet/send?delay=2h", b'"Mary"', idempotency_key="order-1")
    assert "executionTime" not in again.json()


# How a call can fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"), [(410, 410), (599, 599), (400, 400), (399, 500), (200, 500), (0, 500), (600, 500)]
)
async def test_a_terminal_error_reaches_the_caller_as_a_status(
    caller: Caller, operations: FakeOperations, code: int, status: int
) -> None:
    operations.handle = lambda submission: Failure(code, "Sold out", (("item", "chair"),))
    answer = await caller.post("/Greeter/greet", b'"Mary"')
    assert answer.status == status
    assert answer.headers["x-restate-error-source"] == "invocation"
    assert answer.headers["x-restate-id"].startswith("inv_1")
    assert answer.json() == {
        "code": code, "message": "Sold out", "source": "invocation", "metadata": {"item": "chair"}
    }  # fmt: skip


async def test_input_that_does_not_fit_is_refused_before_it_is_submitted(
    caller: Caller, operations: FakeOperations
) -> None:
    refused(await caller.post("/my.Shop/buy", b'{"items": [{"price": "x"}]}'), 400, "$.items[0].price")
    refused(await caller.post("/my.Shop/buy/send", b'{"items": [{"price": "x"}]}'), 400, "$.items[0].price")
    refused(await caller.post("/Greeter/greet", b"Mary", content_type="text/plain"), 400, "'text/plain'")
    assert operations.submissions == []


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/Nobody/greet", 404, "There is no service 'Nobody'."),
        ("/Greeter/gret", 404, "no handler 'gret'"),
        ("/Greeter/secret", 400, "private"),
        ("/Mailbox/put", 400, "its key is missing"),
        (f"/Mailbox/{'k' * (LONGEST_KEY + 1)}/put", 400, "512 bytes"),
        ("/Greeter/greet/send?delay=soon", 400, "'soon'"),
        ("/restate/scope/s/call/Greeter/greet", 501, "Scopes"),
    ],
)
async def test_a_request_that_cannot_be_answered_is_told_why(
    caller: Caller, operations: FakeOperations, path: str, status: int, words: str
) -> None:
    refused(await caller.post(path, b'"Mary"'), status, words)
    assert operations.submissions == []


async def test_a_refusal_tells_what_to_do(caller: Caller) -> None:
    answer = await caller.post("/Greeter/greet/send?delay=soon", b'"Mary"')
    assert "PT60S" in answer.json()["hint"]


async def test_an_empty_idempotency_key_is_refused(caller: Caller) -> None:
    refused(await caller.post("/Greeter/greet", b'"Mary"', idempotency_key=""), 400, "must not be empty")


async def test_a_wrong_method_is_told_the_right_one(caller: Caller) -> None:
    answer = await caller.request("PUT", "/Greeter/greet")
    refused(answer, 405, "PUT")
    assert answer.headers["allow"] == "POST, GET"


@pytest.mark.parametrize("path", ["/restate/health", "/restate/openapi/Greeter", "/restate/openapi/Nobody"])
async def test_head_is_answered_like_get_but_for_the_body(caller: Caller, path: str) -> None:
    get, head = [await caller.request(method, path) for method in ("GET", "HEAD")]
    for answer in (get, head):
        answer.headers.pop("x-restate-id", None)
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


@pytest.mark.parametrize(("path", "allowed"), [("/Greeter/nothing", "POST, GET"), ("/Greeter/nothing/send", "POST")])
async def test_head_invokes_nothing(caller: Caller, operations: FakeOperations, path: str, allowed: str) -> None:
    answer = await caller.request("HEAD", path)
    assert (answer.status, answer.headers["allow"], answer.body) == (405, allowed, b"")
    assert operations.submissions == []


async def test_a_large_body_is_refused_before_it_has_all_come(caller: Caller, operations: FakeOperations) -> None:
    exchange = Exchange([b"x" * LIMIT, b"x", b"x", b"x"])
    await caller.exchange(exchange, "POST", "/Greeter/anything")
    refused(exchange.answer, 413, "1000 bytes (PERDURE_LARGEST_PAYLOAD)")
    assert exchange.answer.headers["connection"] == "close"
    assert exchange.unread_when_answered == 2
    assert operations.submissions == []


async def test_a_body_announced_as_too_large_is_refused_before_it_is_read(caller: Caller) -> None:
    exchange = Exchange([b"x"])
    await caller.exchange(exchange, "POST", "/Greeter/anything", content_length=str(LIMIT + 1))
    refused(exchange.answer, 413, "1000 bytes")
    assert exchange.unread_when_answered == 1


async def test_a_large_body_that_has_all_come_costs_nobody_the_connection(caller: Caller) -> None:
    answer = await caller.post("/Greeter/anything", b"x" * (LIMIT + 1))
    refused(answer, 413, "1000 bytes")
    assert "connection" not in answer.headers


async def test_a_body_as_large_as_allowed_is_taken(caller: Caller) -> None:
    assert (await caller.post("/Greeter/anything", b"x" * LIMIT)).status == 200
    refused(await caller.post("/Greeter/anything", b"x" * (LIMIT + 1)), 413, "1000 bytes")


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (Overloaded("Too many calls are waiting to be stored."), 503, "Too many calls"),
        (Disconnected("server at 10.0.0.7 closed the connection"), 503, "The database cannot be reached"),
        (DatabaseError("42P01", 'relation "secrets" does not exist'), 500, "The database refused this"),
        (ZeroDivisionError("secrets"), 500, "Something is wrong in the ingress"),
    ],
)
async def test_trouble_of_ours_is_told_without_internals(
    caller: Caller,
    operations: FakeOperations,
    error: Exception,
    status: int,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    operations.failure = error
    with caplog.at_level(logging.ERROR):
        answer = await caller.post("/Greeter/greet", b'"Mary"')
    refused(answer, status, told)
    assert b"secrets" not in answer.body
    assert b"10.0.0.7" not in answer.body
    assert answer.headers.get("retry-after") == ("1" if isinstance(error, Overloaded) else None)
    assert bool(caplog.records) == (status == 500)


async def test_a_service_registered_a_moment_ago_is_found(caller: Caller, operations: FakeOperations) -> None:
    operations.registry, operations.later = Registry(), registry(GREETER)
    assert (await caller.post("/Greeter/greet", b'"Mary"')).status == 200


async def test_a_changed_registry_changes_what_is_taken(caller: Caller, operations: FakeOperations) -> None:
    refused(await caller.post("/Greeter/greet", b"1"), 400, "does not fit")
    changed = {**GREETER, "handlers": [{"name": "greet"}]}
    operations.registry = registry(changed)
    assert (await caller.post("/Greeter/greet", b"1")).status == 200


# Waiting, and results of before -----------------------------------------------------------------------------------


async def test_a_caller_that_leaves_ends_its_wait_but_not_the_invocation(
    caller: Caller, operations: FakeOperations
) -> None:
    operations.hold()
    exchange = Exchange([b'"Mary"'])
    call = asyncio.create_task(caller.exchange(exchange, "POST", "/Greeter/greet", content_type="application/json"))
    await operations.has_waiter.wait()
    exchange.leave()
    await call
    assert operations.waiting == 0
    assert exchange.sent == []
    assert len(operations.submissions) == 1


async def test_a_caller_that_leaves_in_the_middle_of_its_body_is_forgotten(
    caller: Caller, operations: FakeOperations
) -> None:
    exchange = Exchange([b'"Ma', b'ry"'])
    exchange.unread.pop()
    exchange.leave()
    await caller.exchange(exchange, "POST", "/Greeter/anything")
    assert exchange.sent == []
    assert operations.submissions == []


async def test_a_stopping_server_answers_those_that_still_wait(caller: Caller, operations: FakeOperations) -> None:
    operations.hold()
    call = asyncio.create_task(caller.post("/Greeter/greet", b'"Mary"'))
    await operations.has_waiter.wait()
    call.cancel()
    answer = await call
    refused(answer, 503, "stopping")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/restate/invocation/{id}/attach", "/restate/attach/{id}"])
async def test_attach_waits_for_the_result(caller: Caller, operations: FakeOperations, path: str) -> None:
    operations.hold()
    sent = await caller.post("/Greeter/greet/send", b'"Mary"')
    attached = asyncio.create_task(caller.get(path.format(id=sent.json()["invocationId"])))
    await operations.has_waiter.wait()
    assert not attached.done()
    operations.release()
    answer = await attached
    assert (answer.status, answer.body) == (200, b'"Mary"')
    assert answer.headers["x-restate-id"] == sent.json()["invocationId"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/restate/invocation/{id}/output", "/restate/output/{id}"])
async def test_output_is_there_or_not_yet(caller: Caller, operations: FakeOperations, path: str) -> None:
    operations.hold()
    id = (await caller.post("/Greeter/greet/send", b'"Mary"')).json()["invocationId"]
    early = await caller.get(path.format(id=id))
    refused(early, 470, "not ended yet")
    assert early.headers["x-restate-id"] == id
    operations.release()
    answer = await caller.get(path.format(id=id))
    assert (answer.status, answer.body) == (200, b'"Mary"')


async def test_a_result_found_by_its_id_alone_is_called_json_only_if_it_is(
    caller: Caller, operations: FakeOperations
) -> None:
    operations.handle = lambda submission: Value(b"\x89PNG")
    id = (await caller.post("/Greeter/picture/send", b"x", content_type="image/png")).json()["invocationId"]
    assert (await caller.get(f"/restate/output/{id}")).headers["content-type"] == "application/octet-stream"
    operations.handle = lambda submission: Value(b"")
    id = (await caller.post("/Greeter/nothing/send")).json()["invocationId"]
    assert "content-type" not in (await caller.get(f"/restate/output/{id}")).headers


async def test_a_failed_invocation_is_a_failure_to_all_who_ask_later(
    caller: Caller, operations: FakeOperations
) -> None:
    operations.handle = lambda submission: Failure(409, "cancelled")
    id = (await caller.post("/Greeter/greet/send", b'"Mary"')).json()["invocationId"]
    for verb in ("attach", "output"):
        answer = await caller.get(f"/restate/{verb}/{id}")
        assert answer.status == 409
        assert answer.headers["x-restate-error-source"] == "invocation"


async def test_a_result_is_found_by_its_idempotency_key(caller: Caller, operations: FakeOperations) -> None:
    operations.handle = lambda submission: Value(b"\x89PNG")
    await caller.post("/Greeter/picture", b"x", content_type="image/png", idempotency_key="order 1")
    for verb in ("attach", "output"):
        answer = await caller.get(f"/restate/invocation/Greeter/picture/order%201/{verb}")
        assert (answer.status, answer.body) == (200, b"\x89PNG")
        assert answer.headers["content-type"] == "image/png"
        target = b'{"target":"idempotentInvocation","service":"Greeter","handler":"picture","idempotencyKey":"order 1"}'
        assert (await caller.post(f"/restate/{verb}", target)).body == b"\x89PNG"


async def test_a_lookup_tells_the_id_whether_or_not_it_exists(caller: Caller) -> None:
    target = b'{"target":"idempotentInvocation","service":"Mailbox","key":"Mary","handler":"put","idempotencyKey":"1"}'
    answer = await caller.post("/restate/lookup", target)
    assert answer.status == 200
    assert answer.json() == {"invocationId": format_id(idempotent_id("Mailbox", "Mary", "put", "1"))}


async def test_an_invocation_that_does_not_exist_is_not_found(caller: Caller) -> None:
    id = format_id(bytes(16))
    for verb in ("attach", "output"):
        refused(await caller.get(f"/restate/{verb}/{id}"), 404, id)
        refused(await caller.get(f"/restate/invocation/Greeter/greet/never/{verb}"), 404, "There is no invocation")


async def test_a_result_of_before_says_how_long_it_is_kept(caller: Caller, operations: FakeOperations) -> None:
    assert "idempotency-expires" not in (await caller.post("/Greeter/greet", b'"Mary"')).headers
    operations.expires = 1_767_225_600_500
    for result in (Value(b"1"), Failure(410, "Sold out")):
        operations.handle = lambda submission, result=result: result  # type: ignore[misc]
        id = (await caller.post("/Greeter/greet/send", b'"Mary"')).json()["invocationId"]
        answer = await caller.get(f"/restate/output/{id}")
        assert answer.headers["idempotency-expires"] == "2026-01-01T00:00:00.500+00:00"


# Workflows --------------------------------------------------------------------------------------------------------


async def test_a_workflow_runs_once_per_key(caller: Caller, operations: FakeOperations) -> None:
    first = await caller.post("/Signup/me/run", b'"Mary"')
    again = await caller.post("/Signup/me/run", b'"Mary"')
    other = await caller.post("/Signup/you/run", b'"John"')
    assert (first.status, first.body) == (200, b'"Mary"')
    assert first.headers["x-restate-id"] == format_id(workflow_id("Signup", "me"))
    assert (again.status, again.json()["source"]) == (409, "invocation")
    assert "already invoked" in again.json()["message"]
    assert again.headers["x-restate-id"] == first.headers["x-restate-id"]
    assert (other.status, other.body) == (200, b'"John"')
    assert len(operations.submissions) == 2


async def test_a_workflow_that_is_submitted_again_is_the_one_that_was(
    caller: Caller, operations: FakeOperations
) -> None:
    first = await caller.post("/Signup/me/run/send", b'"Mary"')
    again = await caller.post("/restate/send/Signup/me/run", b'"John"')
    assert (first.status, first.json()["status"]) == (202, "Accepted")
    assert (again.status, again.json()["status"]) == (202, "PreviouslyAccepted")
    assert first.json()["invocationId"] == again.json()["invocationId"] == again.headers["x-restate-id"]
    assert len(operations.submissions) == 1


async def test_a_workflow_takes_no_idempotency_key_for_its_key_is_one(caller: Caller) -> None:
    refused(await caller.post("/Signup/me/run", b'"Mary"', idempotency_key="1"), 400, "runs once for each key")
    assert (await caller.post("/Signup/me/confirm", b'"x"', idempotency_key="1")).status == 200


async def test_the_result_of_a_workflow_is_found_by_its_key(caller: Caller, operations: FakeOperations) -> None:
    refused(await caller.get("/restate/workflow/Signup/me/output"), 404, "There is no invocation")
    operations.hold()
    await caller.post("/Signup/me/run/send", b'"Mary"')
    early = await caller.get("/restate/workflow/Signup/me/output")
    refused(early, 470, "not ended yet")
    operations.release()
    target = b'{"target": "workflow", "workflowName": "Signup", "workflowKey": "me"}'
    for answer in [
        await caller.get("/restate/workflow/Signup/me/output"),
        await caller.get("/restate/workflow/Signup/me/attach"),
        await caller.post("/restate/attach", target),
        await caller.post("/restate/output", target),
    ]:
        assert (answer.status, answer.body) == (200, b'"Mary"')
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-restate-id"] == early.headers["x-restate-id"]
    found = await caller.post("/restate/lookup", target)
    assert found.json() == {"invocationId": early.headers["x-restate-id"]}
    assert found.headers["x-restate-id"] == early.headers["x-restate-id"]


# Awakeables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/restate/awakeables", "/restate/a"])
async def test_an_awakeable_is_resolved_with_the_body_as_its_value(
    caller: Caller, operations: FakeOperations, path: str
) -> None:
    id = bytes(range(16))
    for body in (b'{"paid": true}', b"\xff\0", b""):
        answer = await caller.post(f"{path}/{format_awakeable(id, 17)}/resolve", body)
        assert (answer.status, answer.body) == (202, b"")
        assert "content-type" not in answer.headers
        assert operations.signals.pop() == (id, Signal(17, Value(body)))


@pytest.mark.parametrize("path", ["/restate/awakeables", "/restate/a"])
async def test_an_awakeable_is_rejected_with_the_body_as_the_reason(
    caller: Caller, operations: FakeOperations, path: str
) -> None:
    id = bytes(range(16))
    answer = await caller.post(f"{path}/{format_awakeable(id, 18)}/reject", b"too late", content_type="text/plain")
    assert (answer.status, answer.body) == (202, b"")
    assert operations.signals == [(id, Signal(18, Failure(500, "too late")))]


async def test_what_is_no_awakeable_or_no_reason_is_refused(caller: Caller, operations: FakeOperations) -> None:
    awakeable = format_awakeable(bytes(16), 17)
    refused(await caller.post("/restate/a/sign_1/resolve"), 400, "not the id of an awakeable")
    for number in (0, 1, 16, 2**29 + 1, 2**32 - 1):  # 1 would be a cancel
        wrong = format_awakeable(bytes(16), number)
        refused(await caller.post(f"/restate/a/{wrong}/resolve"), 400, f"There is no signal {number}")
    refused(await caller.post(f"/restate/a/{awakeable}/reject", b"\xff"), 400, "not valid UTF-8")
    refused(await caller.post(f"/restate/a/{awakeable}/resolve", b"x" * (LIMIT + 1)), 413, "1000 bytes")
    operations.failure = Disconnected("gone")
    refused(await caller.post(f"/restate/a/{awakeable}/resolve"), 503, "database")
    assert operations.signals == []


async def test_health_lists_the_services(caller: Caller) -> None:
    answer = await caller.get("/restate/health")
    assert answer.status == 200
    assert answer.json() == {"services": ["Greeter", "Mailbox", "Sender", "Signup", "my.Shop"]}


# Start and stop ---------------------------------------------------------------------------------------------------


async def test_operations_run_from_the_servers_start_to_its_stop(operations: FakeOperations) -> None:
    async with started(Ingress(lambda: operations)):
        assert operations.is_running
    assert not operations.is_running


async def test_a_server_whose_operations_cannot_start_says_why(
    operations: FakeOperations, caplog: pytest.LogCaptureFixture
) -> None:
    operations.failure = Disconnected("no PostgreSQL at port 5432")
    exchange = Exchange([])
    with caplog.at_level(logging.ERROR):
        exchange.leave()
        await Ingress(lambda: operations)({"type": "lifespan"}, exchange.receive, exchange.send)
    assert exchange.sent == [{"type": "lifespan.startup.failed", "message": "no PostgreSQL at port 5432"}]


async def test_a_path_without_its_raw_form_is_taken_as_it_is(operations: FakeOperations) -> None:
    ingress = Ingress(lambda: operations)
    async with started(ingress):
        exchange = Exchange([b""])
        scope = {"type": "http", "method": "GET", "path": "/Mailbox/Märy/letters", "query_string": b"", "headers": []}
        await ingress(scope, exchange.receive, exchange.send)
    assert exchange.answer.status == 200
    assert operations.submissions[0].key == "Märy"
