"""What the clients of Restate's SDKs send, as they send it, is answered in the way that they understand.

Taken down from npm's @restatedev/restate-sdk-clients 1.17.2 and PyPI's restate-sdk 1.3.0.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from perdure.protocol.ids import format_awakeable
from perdure.protocol.messages import Failure, Signal, Value
from runtime.ingress.app import Ingress
from tests.support.asgi import Answer, Caller, started
from tests.support.manifests import registry
from tests.support.operations import FakeOperations

FETCH = {
    "accept": "*/*",
    "accept_language": "*",
    "sec_fetch_mode": "cors",
    "user_agent": "node",
    "accept_encoding": "gzip, deflate",
    "x_restateclient_retry_attempt": "1",
}
HTTPX = {"accept": "*/*", "accept_encoding": "gzip, deflate", "connection": "keep-alive", "user_agent": "python-httpx"}


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations(registry())


@pytest.fixture
async def caller(operations: FakeOperations) -> AsyncIterator[Caller]:
    async with started(Ingress(lambda: operations)) as caller:
        yield caller


async def typescript(caller: Caller, path: str, body: bytes = b"", **headers: str) -> Answer:
    """A POST of its: JSON also where there is nothing to send."""
    return await caller.post(path, body, **FETCH, **headers)


async def python(caller: Caller, path: str, body: bytes = b"", **headers: str) -> Answer:
    """A POST of its; without an argument it has no content-type."""
    given = {"content_type": "application/json"} if body else {}
    return await caller.request("POST", path, body, **HTTPX, **given, **headers)


async def test_both_call_services_and_objects(caller: Caller, operations: FakeOperations) -> None:
    for client in (typescript, python):
        assert (await client(caller, "/Greeter/greet", b'"Mary"')).body == b'"Mary"'
        operations.handle = lambda _: Value(b"")
        assert (await client(caller, "/Greeter/nothing")).body == b""
        operations.handle = lambda submission: Value(submission.input)
    assert (await typescript(caller, "/Mailbox/a%2Fb%20c/put", b'"Hi"')).status == 200
    assert (await python(caller, "/Mailbox/a%20b/put", b'"Hi"')).status == 200
    assert [submission.key for submission in operations.submissions if submission.key] == ["a/b c", "a b"]


async def test_both_delay_their_sends_in_their_own_way(caller: Caller) -> None:
    for client, delay in ((typescript, "5000ms"), (python, "5000")):
        answer = await client(caller, f"/Greeter/greet/send?delay={delay}", b'"Mary"')
        assert (answer.status, answer.json()["status"]) == (202, "Accepted")
        assert answer.json()["invocationId"].startswith("inv_")
        assert datetime.fromisoformat(answer.json()["executionTime"]).utcoffset() is not None


async def test_typescript_attaches_to_what_it_has_sent(caller: Caller) -> None:
    sent = await typescript(caller, "/Greeter/greet/send", b'"Mary"', idempotency_key="order-1")
    result = await caller.get(f"/restate/invocation/{sent.json()['invocationId']}/attach", **FETCH)
    assert (result.status, result.body) == (200, b'"Mary"')


async def test_typescript_submits_a_workflow_and_asks_for_its_result(
    caller: Caller, operations: FakeOperations
) -> None:
    operations.hold()
    first = await typescript(caller, "/Signup/m%2Fe/run/send", b'"Mary"')
    again = await typescript(caller, "/Signup/m%2Fe/run/send", b'"Mary"')
    assert [answer.json()["status"] for answer in (first, again)] == ["Accepted", "PreviouslyAccepted"]
    assert (await caller.get("/restate/workflow/Signup/m%2Fe/output", **FETCH)).status == 470  # it calls that not ready
    operations.release()
    for verb in ("output", "attach"):
        assert (await caller.get(f"/restate/workflow/Signup/m%2Fe/{verb}", **FETCH)).body == b'"Mary"'


async def test_typescript_ends_awakeables(caller: Caller, operations: FakeOperations) -> None:
    awakeable = format_awakeable(bytes(16), 17)
    assert (await typescript(caller, f"/restate/a/{awakeable}/resolve", b'"paid"')).status == 202
    rejection = await caller.post(f"/restate/a/{awakeable}/reject", b"too late", **FETCH, content_type="text/plain")
    assert rejection.status == 202
    assert [signal for _, signal in operations.signals] == [
        Signal(17, Value(b'"paid"')),
        Signal(17, Failure(500, "too late")),
    ]


@pytest.mark.parametrize("code", [418, 503])
async def test_typescript_does_not_repeat_what_a_handler_has_refused(
    caller: Caller, operations: FakeOperations, code: int
) -> None:
    """It repeats what has a key, and whatever is answered with 5xx, unless the header says whose word that is."""
    operations.handle = lambda _: Failure(code, "Sold out")
    answer = await typescript(caller, "/Greeter/greet", b'"Mary"', idempotency_key="order-1")
    assert answer.status == code
    assert answer.headers["x-restate-error-source"] == "invocation"
