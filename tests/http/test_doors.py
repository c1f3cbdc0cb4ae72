"""What a handler takes and gives, seen from outside."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.registry import Registry, read_service
from runtime.ingress.doors import Door
from runtime.ingress.refused import Refused
from tests.support.manifests import ORDER, TEXT

JSON = b"application/json"


def door(**handler: Any) -> Door:
    manifest = {"name": "Shop", "ty": "SERVICE", "handlers": [{"name": "buy", **handler}]}
    return Door(Registry([read_service(manifest, "dp_1", 1)]).resolve("Shop", "buy"))


def refusal(door: Door, content_type: bytes | None, body: bytes) -> str | None:
    try:
        door.check(content_type, body)
    except Refused as refused:
        assert refused.status == 400
        return str(refused)
    return None


ANY_JSON = {"required": True, "contentType": "application/json"}


@pytest.mark.parametrize(
    ("input", "content_type", "body"),
    [
        (None, None, b""),
        (None, None, b"\xff"),
        (None, b"image/png", b"\xff"),
        ({}, None, b""),
        ({}, JSON, b""),
        ({"required": True}, b"image/png", b"x"),
        (ANY_JSON, JSON, b""),
        (ANY_JSON, JSON, b"not JSON, but nobody asked for a schema"),
        (ANY_JSON, b"application/json; charset=utf-8", b"1"),
        (ANY_JSON, b"Application/JSON", b"1"),
        ({"contentType": "image/*"}, b"image/png", b"x"),
        ({"contentType": "image/*"}, None, b""),
        (TEXT, JSON, b'"Mary"'),
        ({**TEXT, "required": False}, None, b""),
        (ORDER, JSON, b'{"items": [{"price": 1.5}]}'),
        ({**TEXT, "contentType": "*/*"}, b"text/plain", b"not JSON, and not said to be"),
        ({**TEXT, "contentType": "*/*"}, None, b"nor this"),
    ],
)
def test_input_that_fits_is_taken(input: dict[str, Any] | None, content_type: bytes | None, body: bytes) -> None:
    assert refusal(door(input=input), content_type, body) is None


@pytest.mark.parametrize(
    ("input", "content_type", "body", "words"),
    [
        ({}, JSON, b"1", "takes no input"),
        (ANY_JSON, None, b"1", "content-type is missing"),
        (ANY_JSON, b"text/plain", b"1", "'text/plain' does not match 'application/json'"),
        (ANY_JSON, b"application/jsonx", b"1", "does not match"),
        ({"contentType": "image/*"}, b"imagery/png", b"x", "does not match"),
        (TEXT, JSON, b"", "the body is empty"),
        (TEXT, None, b"", "content-type is missing"),
        (TEXT, JSON, b"1", 'at $: 1 is not of type "string"'),
        (TEXT, JSON, b'"Mary', "it is not JSON"),
        (TEXT, JSON, b'"\xff"', "it is not JSON"),
        (TEXT, JSON, b'"\\ud800"', "it is not JSON"),
        (TEXT, JSON, b"[" * 100_000, "nested too deeply"),
        (TEXT, b"application/json;charset=utf-8", b"1", 'not of type "string"'),
        ({**TEXT, "contentType": "*/*"}, b"application/problem+json", b"1", 'not of type "string"'),
        (ORDER, JSON, b'{"items": [{"price": 1}, {"price": "two"}]}', "at $.items[1].price:"),
        (ORDER, JSON, b'{"items": [{}]}', 'at $.items[0]: "price" is a required property'),
    ],
)
def test_input_that_can_never_fit_is_refused_with_its_place(
    input: dict[str, Any], content_type: bytes | None, body: bytes, words: str
) -> None:
    assert words in (refusal(door(input=input), content_type, body) or "")


def test_a_refusal_shows_little_of_a_large_input() -> None:
    words = refusal(door(input=TEXT), JSON, msgspec.json.encode(["x" * 100_000]))
    assert words is not None
    assert len(words) < 500


def test_a_handler_may_look_at_its_input_itself() -> None:
    assert refusal(door(input=TEXT, metadata={"dev.perdure.validate": "false"}), JSON, b"1") is None


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://127.0.0.1:1/schema.json"}, 3, "text", None])
def test_an_unusable_schema_is_logged_and_checks_nothing(schema: Any, caplog: pytest.LogCaptureFixture) -> None:
    shop = door(input={**TEXT, "jsonSchema": schema})
    with caplog.at_level(logging.WARNING):
        assert refusal(shop, JSON, b"1") is None
        assert refusal(shop, JSON, b"2") is None
    assert len(caplog.records) == 1
    assert "Shop/buy" in caplog.text


@given(st.sampled_from([TEXT, ORDER]), st.binary(max_size=100) | st.text(max_size=30).map(msgspec.json.encode))
def test_any_body_is_taken_or_refused(input: dict[str, Any], body: bytes) -> None:
    refusal(door(input=input), JSON, body)


@pytest.mark.parametrize(
    ("output", "result", "content_type"),
    [
        (None, b"1", b"application/json"),
        (None, b"", None),
        ({}, b"1", None),
        ({"contentType": "image/png"}, b"x", b"image/png"),
        ({"contentType": "image/png"}, b"", None),
        ({"contentType": "image/png", "setContentTypeIfEmpty": True}, b"", b"image/png"),
    ],
)
def test_a_result_has_the_content_type_of_its_handler(
    output: dict[str, Any] | None, result: bytes, content_type: bytes | None
) -> None:
    expected = None if content_type is None else (b"content-type", content_type)
    assert door(output=output).content_type(result) == expected
