"""Values and their bytes."""

from __future__ import annotations

import traceback
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
from runtime.ingress.schemas import Schema


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


def test_what_does_not_fit_a_model_is_told_with_its_place_and_without_the_value() -> None:
    content = b'[{"count":1},{"count":"secret"},{}]'
    with pytest.raises(SerdeError) as error:
        serde_for(list[Model]).decode(content)
    assert str(error.value) == (
        "Input should be a valid integer, unable to parse string as an integer - at `$.1.count`;"
        " Field required - at `$.2.count`."
    )
    assert "secret" not in "".join(traceback.format_exception(error.value))


def test_of_very_much_that_does_not_fit_a_model_some_is_told() -> None:
    with pytest.raises(SerdeError, match=r"at `\$\.4\.count`; 95 more\.$"):
        serde_for(list[Model]).decode(b"[" + b",".join([b"{}"] * 100) + b"]")


@dataclass
class Order:
    count: int
    price: float = 0.0
    due: datetime | None = None
    stock: dict[int, int] | None = None


ORDER = Order(2, 3.0, datetime(2030, 1, 2, tzinfo=UTC), {7: 100})


@pytest.mark.parametrize(
    ("hint", "content", "value"),
    [
        (int, b"1.0", 1),
        (int, b"-0.0", 0),
        (list[int], b"[1, 2.0, 3e2]", [1, 2, 300]),
        (int | str, b"1.0", 1),
        (Order, b'{"count":2.0,"price":3.0,"due":"2030-01-02T00:00:00Z","stock":{"7":1e2}}', ORDER),
        (Model, b'{"count":3.0}', Model(count=3)),
    ],
)
def test_a_number_without_a_fraction_is_an_integer_however_it_is_written(hint: Any, content: bytes, value: Any) -> None:
    serde = serde_for(hint)
    assert Schema(serde.schema, "a handler").problem(content) is None
    read = serde.decode(content)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("hint", [float, int | float, Any])
def test_a_number_that_may_have_a_fraction_stays_what_it_is(hint: Any) -> None:
    assert type(serde_for(hint).decode(b"1.0")) is float


@pytest.mark.parametrize("content", [b"1.5", b"[1.0]", b'"1.0"', b"true", b"1e400"])
def test_what_is_no_integer_is_refused_at_the_door_and_by_the_handler(content: bytes) -> None:
    serde = serde_for(int)
    assert Schema(serde.schema, "a handler").problem(content) is not None
    with pytest.raises(SerdeError):
        serde.decode(content)


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
