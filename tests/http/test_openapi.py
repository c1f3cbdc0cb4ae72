"""The OpenAPI document of a service is valid, and what it says is so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from perdure.protocol.messages import Failure
from runtime.core.openapi import describe
from runtime.core.registry import read_service
from runtime.ingress.app import Ingress
from tests.support.asgi import Answer, Caller, started
from tests.support.manifests import GREETER, MAILBOX, SHOP, TEXT, registry
from tests.support.operations import FakeOperations


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations(registry())


@pytest.fixture
async def caller(operations: FakeOperations) -> AsyncIterator[Caller]:
    async with started(Ingress(lambda: operations)) as caller:
        yield caller


async def document(caller: Caller, service: str) -> dict[str, Any]:
    answer = await caller.get(f"/restate/openapi/{service}")
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


def resolve(document: dict[str, Any], what: dict[str, Any]) -> dict[str, Any]:
    """The component that a reference names, or the thing itself."""
    if "$ref" not in what:
        return what
    for step in what["$ref"].removeprefix("#/").split("/"):
        document = document[step]
    return document


def is_as_described(document: dict[str, Any], path: str, answer: Answer, method: str = "post") -> bool:
    """Whether the document tells of this status, and the body fits the schema it gives."""
    responses = document["paths"][path][method]["responses"]
    response = resolve(document, responses.get(str(answer.status)) or responses[f"{answer.status // 100}XX"])
    content = response.get("content")
    if content is None:
        return answer.body == b""
    schema = content[answer.headers["content-type"]].get("schema", True)
    if schema is True:
        return True
    whole = {"components": document["components"], "allOf": [schema]}
    return jsonschema_rs.is_valid(whole, answer.json())


@pytest.mark.parametrize("service", ["Greeter", "Mailbox", "my.Shop", "Sender", "Signup"])
async def test_every_document_is_valid(caller: Caller, service: str) -> None:
    OpenAPIV31SpecValidator(await document(caller, service)).validate()


async def test_every_public_handler_is_there_as_a_call_and_as_a_send(caller: Caller) -> None:
    assert set((await document(caller, "Mailbox"))["paths"]) == {
        "/Mailbox/{key}/put", "/Mailbox/{key}/put/send", "/Mailbox/{key}/letters", "/Mailbox/{key}/letters/send"
    }  # fmt: skip
    paths = (await document(caller, "Greeter"))["paths"]
    assert "/Greeter/greet" in paths
    assert not any("secret" in path for path in paths)


async def test_the_result_of_a_workflow_is_there_too(caller: Caller, operations: FakeOperations) -> None:
    found = await document(caller, "Signup")
    run, result = found["paths"]["/Signup/{key}/run"]["post"], "/restate/workflow/Signup/{key}/output"
    await caller.post("/Signup/me/run/send", b'"Mary"')
    assert "idempotency-key" not in {parameter["name"] for parameter in run["parameters"]}
    for path in (result, "/restate/workflow/Signup/{key}/attach"):
        assert is_as_described(found, path, await caller.get(path.replace("{key}", "me")), "get")
    assert is_as_described(found, result, await caller.get(result.replace("{key}", "nobody")), "get")
    assert is_as_described(found, "/Signup/{key}/run", await caller.post("/Signup/me/run", b'"Mary"'))  # again: 409


async def test_what_people_wrote_about_their_code_is_there(caller: Caller) -> None:
    found = await document(caller, "Greeter")
    assert found["info"]["title"] == "Greeter"
    assert found["info"]["description"] == "Greets."
    assert found["paths"]["/Greeter/greet"]["post"]["description"] == "Says hello."


async def test_answers_are_as_described(caller: Caller, operations: FakeOperations) -> None:
    found = await document(caller, "Greeter")
    assert is_as_described(found, "/Greeter/greet", await caller.post("/Greeter/greet", b'"Mary"'))
    assert is_as_described(found, "/Greeter/greet", await caller.post("/Greeter/greet", b"1"))
    assert is_as_described(found, "/Greeter/nothing", await caller.post("/Greeter/nothing", b"1"))
    assert is_as_described(found, "/Greeter/greet/send", await caller.post("/Greeter/greet/send", b'"Mary"'))
    delayed = await caller.post("/Greeter/greet/send?delay=1h", b'"Mary"')
    assert is_as_described(found, "/Greeter/greet/send", delayed)
    operations.handle = lambda submission: Failure(410, "Sold out", (("item", "chair"),))
    assert is_as_described(found, "/Greeter/greet", await caller.post("/Greeter/greet", b'"Mary"'))


async def test_the_schema_of_an_input_stands_there_with_its_references(caller: Caller) -> None:
    found = await document(caller, "my.Shop")
    content = found["paths"]["/my.Shop/buy"]["post"]["requestBody"]["content"]
    whole = {"components": found["components"], **content["application/json"]["schema"]}
    assert jsonschema_rs.is_valid(whole, {"items": [{"price": 1}]})
    assert not jsonschema_rs.is_valid(whole, {"items": [{"price": "x"}]})


def test_a_reference_inside_data_stays_what_it_is() -> None:
    schema = {"properties": {"$ref": {"type": "string"}}, "default": {"$ref": "#/x"}, "items": {"$ref": "#"}}
    handler = {"name": "buy", "input": {**TEXT, "jsonSchema": schema}}
    found = describe(read_service({"name": "Shop", "ty": "SERVICE", "handlers": [handler]}, "dp_1", 1))
    assert found["components"]["schemas"]["buy.input"] == {
        "properties": {"$ref": {"type": "string"}},
        "default": {"$ref": "#/x"},
        "items": {"$ref": "#/components/schemas/buy.input"},
    }


async def test_an_unknown_service_has_no_document(caller: Caller) -> None:
    assert (await caller.get("/restate/openapi/Nobody")).status == 404


def test_a_document_does_not_change_the_registry() -> None:
    for manifest in (GREETER, MAILBOX, SHOP):
        service = read_service(manifest, "dp_1", 1)
        describe(service)
        assert service == read_service(manifest, "dp_1", 1)
