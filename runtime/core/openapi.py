"""The OpenAPI 3.1 document of a service: every public handler as a call and as a send, and the result of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.core.delays import FORMATS
from runtime.core.registry import HandlerInfo, ServiceInfo

Json = dict[str, Any]

KEY: Json = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "Which object or workflow: up to 512 bytes of UTF-8, percent-encoded.",
    "schema": {"type": "string", "minLength": 1},
}
IDEMPOTENCY_KEY: Json = {
    "name": "idempotency-key",
    "in": "header",
    "description": "Whatever is sent again with the same key is done once, and answered alike.",
    "schema": {"type": "string", "minLength": 1},
}
DELAY: Json = {"name": "delay", "in": "query", "description": FORMATS, "schema": {"type": "string"}}
RESTATE_ID: Json = {"x-restate-id": {"description": "The invocation.", "schema": {"$ref": "#/components/schemas/Id"}}}
EXPIRES: Json = {
    "idempotency-expires": {
        "description": "Of a result of before: until when the same key is answered with it.",
        "schema": {"type": "string", "format": "date-time"},
    }
}
ERROR: Json = {"$ref": "#/components/responses/Error"}

ID_SCHEMA: Json = {"type": "string", "pattern": "^inv_1[0-9A-Za-z]{22}$"}
ACCEPTED_SCHEMA: Json = {
    "type": "object",
    "required": ["invocationId", "status"],
    "properties": {
        "invocationId": {"$ref": "#/components/schemas/Id"},
        "status": {"enum": ["Accepted", "PreviouslyAccepted"]},
        "executionTime": {"type": "string", "format": "date-time", "description": "When a delayed send is due."},
    },
}
ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["code", "message", "source"],
    "properties": {
        "code": {"type": "integer", "description": "The status; of a terminal error, whatever the handler chose."},
        "message": {"type": "string"},
        "source": {"enum": ["invocation", "ingress"], "description": "Whether the handler ended with it."},
        "hint": {"type": "string", "description": "What to do about it."},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}

# Inside these a `$ref` is data.
_DATA = {"const", "enum", "default", "example", "examples"}


def describe(service: ServiceInfo, *, has_keys: bool = False) -> Json:
    """The document, as JSON values. `has_keys`: callers must show one."""
    handlers = [handler for handler in service.handlers.values() if handler.is_public]
    schemas: Json = {"Id": ID_SCHEMA, "Accepted": ACCEPTED_SCHEMA, "Error": ERROR_SCHEMA}
    paths: Json = {}
    for handler in handlers:
        path = f"/{service.name}/{{key}}/{handler.name}" if service.is_keyed else f"/{service.name}/{handler.name}"
        paths[path] = {"post": _call(service, handler)}
        paths[f"{path}/send"] = {"post": _send(service, handler)}
        schemas |= _schemas(handler)
        if handler.runs_once:
            result = f"/restate/workflow/{service.name}/{{key}}"
            paths[f"{result}/attach"] = {"get": _result(handler, "attach", "The run's result, as soon as it has one.")}
            paths[f"{result}/output"] = {"get": _result(handler, "output", "The run's result; 470: not yet.")}
    document: Json = {
        "openapi": "3.1.0",
        "info": _described({"title": service.name, "version": str(service.revision)}, service.documentation),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Error": {
                    "description": "It was refused, could not be answered, or ended with a terminal error.",
                    "headers": {"x-restate-error-source": {"schema": {"enum": ["invocation", "ingress"]}}},
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
        },
    }
    if has_keys:
        document["components"]["securitySchemes"] = {"Key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"Key": []}]
    return document


def _call(service: ServiceInfo, handler: HandlerInfo) -> Json:
    return _operation(service, handler, handler.name, [], {"200": _answer(handler, "The handler's result.")})


def _result(handler: HandlerInfo, verb: str, description: str) -> Json:
    """Asking for the result of a workflow's run."""
    responses = {"200": _answer(handler, description), "4XX": ERROR, "5XX": ERROR}
    return {"operationId": f"{handler.name}.{verb}", "parameters": [KEY], "responses": responses}


def _answer(handler: HandlerInfo, description: str) -> Json:
    answer: Json = {"description": description, "headers": {**RESTATE_ID, **EXPIRES}}
    content = _content(handler, "output", handler.output)
    if content:
        answer["content"] = content
    return answer


def _send(service: ServiceInfo, handler: HandlerInfo) -> Json:
    answer = {
        "description": "It is durable, and will be done.",
        "headers": RESTATE_ID,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
    }
    return _operation(service, handler, f"{handler.name}.send", [DELAY], {"202": answer})


def _operation(service: ServiceInfo, handler: HandlerInfo, id: str, parameters: list[Json], answers: Json) -> Json:
    names = [KEY] if service.is_keyed else []
    once = [] if handler.runs_once else [IDEMPOTENCY_KEY]
    operation: Json = {
        "operationId": id,
        "parameters": [*names, *once, *parameters],
        "responses": {**answers, "4XX": ERROR, "5XX": ERROR},
    }
    content = _content(handler, "input", handler.input)
    if content:
        operation["requestBody"] = {"required": bool(handler.input.get("required")), "content": content}
    return _described(operation, handler.documentation)


def _content(handler: HandlerInfo, side: str, said: Mapping[str, Any]) -> Json | None:
    if said.get("contentType") is None:
        return None
    schema = {"schema": {"$ref": _component(handler, side)}} if "jsonSchema" in said else {}
    return {said["contentType"]: schema}


def _schemas(handler: HandlerInfo) -> Json:
    sides = {"input": handler.input, "output": handler.output}
    return {
        f"{handler.name}.{side}": _at_home(said["jsonSchema"], _component(handler, side))
        for side, said in sides.items()
        if "jsonSchema" in said
    }


def _component(handler: HandlerInfo, side: str) -> str:
    return f"#/components/schemas/{handler.name}.{side}"


def _at_home(schema: Any, home: str) -> Any:
    """The schema with its references to itself leading to where it stands in the document."""
    if isinstance(schema, list):
        return [_at_home(item, home) for item in schema]
    if not isinstance(schema, Mapping) or "$id" in schema:  # with an id of its own, its references are at home
        return schema
    return {
        name: home + value[1:]
        if name == "$ref" and isinstance(value, str) and value.startswith("#")
        else (value if name in _DATA else _at_home(value, home))
        for name, value in schema.items()
    }


def _described(what: Json, documentation: str) -> Json:
    return {**what, "description": documentation} if documentation else what
