"""A first call to try: a line for curl or for the shell, with an argument that fits the handler's schema. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import msgspec

from runtime.core.registry import HandlerInfo

DEEPEST = 6  # levels of an example; a type that contains itself has more

TEXTS = {"date-time": "2030-01-01T12:00:00Z", "date": "2030-01-01", "time": "12:00:00", "duration": "PT5S",
         "uuid": "00000000-0000-4000-8000-000000000000"}  # fmt: skip
BY_TYPE: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}


def call(handler: HandlerInfo, url: str) -> str:
    """The command that calls a handler.

    >>> from runtime.core.invocation import Mode
    >>> schema = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
    >>> add = HandlerInfo("Basket", "add", Mode.EXCLUSIVE, "dp_1", input={"jsonSchema": schema, "required": True})
    >>> print(call(add, "http://localhost:8080"))
    curl http://localhost:8080/Basket/my-key/add -H 'content-type: application/json' -d '{"item":"text"}'
    """
    place = f"{handler.service}/my-key/{handler.name}" if handler.is_keyed else f"{handler.service}/{handler.name}"
    match _argument(handler):
        case None:
            return f"curl -X POST {url}/{place}"
        case "":
            content_type = handler.input["contentType"]
            return f"curl {url}/{place} -H 'content-type: {content_type}' --data-binary @FILE"
        case body:
            return f"curl {url}/{place} -H 'content-type: application/json' -d {shlex.quote(body)}"


def command(handler: HandlerInfo, key: str | None = None) -> str:
    """The same in a terminal.

    >>> from runtime.core.invocation import Mode
    >>> print(command(HandlerInfo("Shop", "close", Mode.SERVICE, "dp_1", input={})))
    ./dev manage invoke Shop close
    >>> schema = {"type": "string"}
    >>> put = HandlerInfo("Mailbox", "put", Mode.EXCLUSIVE, "dp_1", input={"jsonSchema": schema, "required": True})
    >>> print(command(put, "Mary Jane"))
    ./dev manage invoke Mailbox put --key 'Mary Jane' --input '"text"'
    """
    words = ["./dev manage invoke", handler.service, handler.name]
    if handler.is_keyed:
        words += ["--key", shlex.quote(key or "my-key")]
    match _argument(handler):
        case None:
            pass
        case "":
            words += ["--file", "FILE"]
        case body:
            words += ["--input", shlex.quote(body)]
    return " ".join(words)


def _argument(handler: HandlerInfo) -> str | None:
    """JSON that it takes; empty: it takes something else; None: it takes nothing."""
    schema = handler.input.get("jsonSchema")
    content_type = handler.input.get("contentType", "application/json")
    if not handler.input or not content_type:
        return None
    if content_type not in ("application/json", "*/*"):
        return ""
    return msgspec.json.encode(example({} if schema is None else schema)).decode()


def example(schema: Any, definitions: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """A value that fits a JSON schema as types make them; without their finer limits, such as a smallest number.

    >>> example({"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"enum": ["x", "y"]}}}})
    ['x']
    """
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return None
    definitions = {**(definitions or {}), **schema.get("$defs", {})}
    if reference := schema.get("$ref"):
        return example(definitions.get(str(reference).rpartition("/")[2]), definitions, depth + 1)
    for said in ("const", "default"):
        if said in schema:
            return schema[said]
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    for choices in ("anyOf", "oneOf", "allOf"):
        if schema.get(choices):
            return example(schema[choices][0], definitions, depth + 1)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {name: example(fields.get(name), definitions, depth + 1) for name in schema.get("required", fields)}
        case "array":
            if schema.get("prefixItems"):
                return [example(item, definitions, depth + 1) for item in schema["prefixItems"]]
            return [example(schema["items"], definitions, depth + 1)] if schema.get("items") else []
        case "string":
            return TEXTS.get(schema.get("format", ""), "text")
        case type:
            return BY_TYPE.get(str(type))
