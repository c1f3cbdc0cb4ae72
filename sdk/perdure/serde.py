"""Values as bytes, and back: chosen once per type hint, JSON unless the hint says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import isawaitable
from typing import Any

import msgspec

from perdure.errors import DefinitionError, SerdeError

JSON = "application/json"
OCTETS = "application/octet-stream"
MOST_PROBLEMS = 5
"""Of a value that does not fit a model, told at once."""


class Serde(msgspec.Struct, frozen=True):
    """How values of one type travel.

    >>> serde_for(list[int]).encode([1, 2])
    b'[1,2]'
    """

    encode: Callable[[Any], bytes]
    """Raises SerdeError."""
    decode: Callable[[bytes], Any]
    """Raises SerdeError."""
    content_type: str | None
    """None: there is nothing to send."""
    schema: Any = None
    """JSON schema, where the type says more than "anything"."""


@lru_cache(maxsize=1024)
def serde_for(hint: Any) -> Serde:
    """The serde of a type: bytes travel as they are, None as nothing, the rest as JSON by msgspec or pydantic.

    A number without a fraction is an integer however it is written, as in JSON Schema, which is what callers are told.

    >>> serde_for(list[int]).decode(b"[1, 2.0, 3e2]")
    [1, 2, 300]

    Raises DefinitionError when neither can read such values from JSON.
    """
    if hint is None or hint is type(None):
        return Serde(_encode_nothing, _decode_nothing, None)
    if hint is bytes:
        return Serde(_encode_octets, bytes, OCTETS)
    if hint is Any:
        return Serde(_encode_anything, _decode_anything, JSON)
    try:
        schema = msgspec.json.schema(hint)
    except (TypeError, RuntimeError) as unknown_to_msgspec:
        return _pydantic(hint, unknown_to_msgspec)
    return Serde(encode_json, _decoder(_with_whole_floats(hint)), JSON, schema)


@lru_cache(maxsize=1024)
def stored_serde(hint: Any) -> Serde:
    """The serde of an object's value, which may have been set to None."""
    return serde_for(hint if hint in (Any, bytes) else hint | None)


def encode_stored(value: Any) -> bytes:
    """A value of which no type was declared: bytes as they are, the rest as JSON."""
    return value if isinstance(value, bytes) else encode_json(value)


def _as_builtins(value: Any) -> Any:
    """What JSON knows, for what msgspec does not: a pydantic model."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError("it was not awaited, so write `await` before it" if isawaitable(value) else "its type is not known")


_write_json = msgspec.json.Encoder(enc_hook=_as_builtins).encode
_read_json = msgspec.json.Decoder().decode


def encode_json(value: Any) -> bytes:
    try:
        return _write_json(value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise SerdeError(f"{type(value).__name__} cannot be written as JSON: {error}.") from error


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def checked(content: bytes) -> Any:
        try:
            return decode(content)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise SerdeError(f"{error}.") from error

    return checked


decode_json = _decoder(_read_json)


def _with_whole_floats(hint: Any) -> Callable[[bytes], Any]:
    """msgspec's decoder, which takes no `1.0` for an int: what does not fit is read once more with `1` in its place."""
    decode = msgspec.json.Decoder(hint).decode

    def lenient(content: bytes) -> Any:
        try:
            return decode(content)
        except msgspec.ValidationError:
            return msgspec.convert(_read_whole(content), hint, str_keys=True)

    return lenient


def _whole(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


_read_whole = msgspec.json.Decoder(float_hook=_whole).decode


def _encode_anything(value: Any) -> bytes:
    return b"" if value is None else encode_json(value)


def _decode_anything(content: bytes) -> Any:
    return decode_json(content) if content else None


def _encode_octets(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise SerdeError(f"bytes are expected here, not {type(value).__name__}.")


def _encode_nothing(value: Any) -> bytes:
    if value is not None:
        advice = "Is an `await` missing?" if isawaitable(value) else "Is the return type annotated?"
        raise SerdeError(f"None is expected here, not {type(value).__name__}. {advice}")
    return b""


def _decode_nothing(content: bytes) -> None:
    if content:
        raise SerdeError("No body is expected here.")


def _pydantic(hint: Any, unknown_to_msgspec: Exception) -> Serde:
    try:
        from pydantic import TypeAdapter, ValidationError
        from pydantic.errors import PydanticUserError
    except ImportError:
        raise DefinitionError(f"{hint} cannot be read from JSON: {unknown_to_msgspec}") from unknown_to_msgspec
    try:
        adapter = TypeAdapter[Any](hint)
        schema = adapter.json_schema()
    except PydanticUserError as error:
        raise DefinitionError(f"{hint} cannot be read from JSON: {error.message}") from error

    def encode(value: Any) -> bytes:
        try:
            return adapter.dump_json(value)
        except ValueError as error:
            raise SerdeError(f"{type(value).__name__} cannot be written as JSON: {error}.") from error

    def decode(content: bytes) -> Any:
        try:
            return adapter.validate_json(content)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise SerdeError(_unfit(problems)) from None  # a stack trace would show the values
        except (ValueError, RecursionError) as error:
            raise SerdeError(f"{error}.") from error

    return Serde(encode, decode, JSON, schema)


def _unfit(problems: Sequence[Mapping[str, Any]]) -> str:
    """What does not fit a model, without the values: it becomes a failure, which more people see than payloads."""
    told = []
    for problem in problems[:MOST_PROBLEMS]:
        place = ".".join(["$", *map(str, problem["loc"])])
        told.append(f"{problem['msg']} - at `{place}`")
    if len(problems) > MOST_PROBLEMS:
        told.append(f"{len(problems) - MOST_PROBLEMS} more")
    return f"{'; '.join(told)}."
