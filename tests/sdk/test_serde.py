"""Values and their bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from perdure import DefinitionError, SerdeError
from perdure.serde import encode_json, serde_for, stored_serde


@dataclass
class Point:
    x: int
    y: int = 0


class Named(TypedDict):
    name: str


class Packed(msgspec.Struct):
    parts: list[Point]


class Model(pydantic.BaseModel):
    count: int = pydantic.Field(ge=0)


@dataclass
class Holder:
    model: Model


VALUES: list[tuple[Any, Any]] = [
    (int, 3),
    (str, "Grüße\x00"),
    (list[str], ["a"]),
    (dict[str, int], {"a": 1}),
    (int | None, None),
    (Point, Point(1, 2)),
    (Named, {"name": "Ann"}),
    (Packed, Packed([Point(1)])),
    (datetime, datetime(2030, 1, 2, tzinfo=UTC)),
    (date, date(2030, 1, 2)),
    (UUID, UUID(int=7)),
    (Decimal, Decimal("1.50")),
    (bytes, b"\x00\xff"),
    (None, None),
    (Any, {"any": ["thing"]}),
    (Any, None),
    (Model, Model(count=3)),
    (list[Model], [Model(count=3)]),
    (Holder, Holder(Model(count=3))),
]


@pytest.mark.parametrize(("hint", "value"), VALUES, ids=lambda value: str(value)[:30])
def test_values_come_back_as_they_went(hint: Any, value: Any) -> None:
    serde = serde_for(hint)
    assert serde.decode(serde.encode(value)) == value


@pytest.mark.parametrize(
    ("hint", "content"),
    [
        (int, b'"3"'),
        (int, b""),
        (Point, b'{"y":1}'),
        (Model, b'{"count":-1}'),
        (Any, b"{"),
        (None, b"1"),
        (str, b"\xff"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(hint: Any, content: bytes) -> None:
    with pytest.raises(SerdeError):
        serde_for(hint).decode(content)


@pytest.mark.parametrize(("hint", "value"), [(bytes, "text"), (None, 1), (Any, object()), (str, "\ud800")])
def test_values_that_do_not_fit_are_refused(hint: Any, value: Any) -> None:
    with pytest.raises(SerdeError):
        serde_for(hint).encode(value)


def test_a_nesting_without_end_is_refused() -> None:
    with pytest.raises(SerdeError):
        serde_for(Any).decode(b"[" * 100_000)


def test_types_that_no_library_reads_are_refused() -> None:
    with pytest.raises(DefinitionError, match="cannot be read from JSON"):
        serde_for(Callable[[], int])


def test_schemas_are_json_schemas() -> None:
    assert serde_for(list[int]).schema == {"type": "array", "items": {"type": "integer"}}
    assert serde_for(Model).schema["properties"]["count"]["minimum"] == 0
    assert serde_for(bytes).schema is None
    assert serde_for(Any).schema is None


def test_models_are_written_where_no_type_is_known() -> None:
    assert encode_json({"models": [Model(count=1)]}) == b'{"models":[{"count":1}]}'


def test_a_stored_none_is_read_as_none() -> None:
    assert stored_serde(int).decode(b"null") is None
    assert stored_serde(bytes).decode(b"null") == b"null"
