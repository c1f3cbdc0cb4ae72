"""Protobuf's wire format, as far as the protocol needs it: writers and readers compiled from tables of fields.

A row of a table names an attribute, its number and its kind. From a class's rows two functions are generated as source
text and compiled once, at import: straight-line code without a look-up per field, 1 to 2 us a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from perdure.errors import ProtocolError

Writer = Callable[[Any], bytes]
Reader = Callable[[bytes, int, int], Any]

_VARINT, _BYTES = 0, 2  # the wire types that occur; 1 and 5 (fixed width) are only skipped


# Numbers -------------------------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    if not 0 <= number < 1 << 64:
        raise ProtocolError(f"{number} is not an unsigned number of 64 bits.")
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = tuple(map(_varint, range(2048)))


def varint(number: int) -> bytes:
    """An unsigned number in 7 bits a byte, lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    return _SMALL[number] if 0 <= number < 2048 else _varint(number)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that stands at `at`, and where the next thing stands."""
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ProtocolError("A number is longer than ten bytes.")


def read_varints(data: bytes, at: int, end: int) -> list[int]:
    """The packed numbers of `data[at:end]`."""
    numbers: list[int] = []
    while at < end:
        number, at = read_varint(data, at)
        numbers.append(number)
    if at > end:
        raise ProtocolError("A number runs over the end of its field.")
    return numbers


def skip(data: bytes, at: int, tag: int) -> int:
    """Where the next field begins, after one that is not known."""
    wire_type = tag & 7
    if tag < 8:
        raise ProtocolError("There is no field number 0.")
    if wire_type == _VARINT:
        return read_varint(data, at)[1]
    if wire_type == _BYTES:
        length, at = read_varint(data, at)
        return at + length
    if wire_type in (1, 5):
        return at + (8 if wire_type == 1 else 4)
    raise ProtocolError(f"Wire type {wire_type} does not occur in this protocol.")


# Kinds of fields: each knows its source text -------------------------------------------------------------------------

Arm = tuple[int, list[str]]
"""A tag that a field may have on the wire, and the lines that read it: `number`, or `data[at:stop]`, into its name."""


class Kind(Protocol):
    """How one attribute is written and read."""

    @property
    def absent(self) -> str:
        """The value while nothing was read; "None" when that is an error (for Required and OneOf)."""
        ...

    def write(self, number: int) -> list[str]:
        """Lines that append `value` to `parts`."""
        ...

    def read(self, name: str, number: int) -> list[Arm]:
        """An arm for each tag."""
        ...

    def finish(self, name: str, owner: str) -> list[str]:
        """Lines that make the attribute out of what was read."""
        ...


def _tag(number: int, wire_type: int) -> int:
    return number << 3 | wire_type


def _put(number: int, wire_type: int, encoded: str) -> list[str]:
    tag = varint(_tag(number, wire_type))
    if wire_type == _VARINT:
        return [f"parts.append({tag!r} + varint({encoded}))"]
    return [f"body = {encoded}", f"parts.append({tag!r} + varint(len(body)))", "parts.append(body)"]


def _indent(lines: Sequence[str]) -> list[str]:
    return [f" {line}" for line in lines]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value that stands alone and is not written when it is `absent`."""

    encoded: str
    decoded: str
    wire_type: int
    absent: str

    def write(self, number: int) -> list[str]:
        test = "is not None" if self.absent == "None" else f"!= {self.absent}"
        return [f"if value {test}:", *_indent(_put(number, self.wire_type, self.encoded))]

    def read(self, name: str, number: int) -> list[Arm]:
        return [(_tag(number, self.wire_type), [f"{name} = {self.decoded}"])]

    def finish(self, name: str, owner: str) -> list[str]:
        return []


BYTES = Scalar("value", "data[at:stop]", _BYTES, absent='b""')
STRING = Scalar("value.encode()", "data[at:stop].decode()", _BYTES, absent='""')
UINT = Scalar("value", "number", _VARINT, absent="0")
BOOL = Scalar("value", "number != 0", _VARINT, absent="False")
OPTIONAL_STRING = Scalar("value.encode()", "data[at:stop].decode()", _BYTES, absent="None")
OPTIONAL_UINT = Scalar("value", "number", _VARINT, absent="None")


def _require(name: str, owner: str) -> list[str]:
    return [f"if {name} is None:", f' raise ProtocolError("A {owner} without {name}.")']


@dataclass(frozen=True, slots=True)
class Required:
    """A number that must be there, 0 included."""

    absent: str = "None"

    def write(self, number: int) -> list[str]:
        return _put(number, _VARINT, "value")

    def read(self, name: str, number: int) -> list[Arm]:
        return [(_tag(number, _VARINT), [f"{name} = number"])]

    def finish(self, name: str, owner: str) -> list[str]:
        return _require(name, owner)


@dataclass(frozen=True, slots=True)
class Enumerated:
    """An enum counted from 0; a number that it does not know is read as 0."""

    type: type[IntEnum]

    @property
    def absent(self) -> str:
        return "0"

    def write(self, number: int) -> list[str]:
        return UINT.write(number)

    def read(self, name: str, number: int) -> list[Arm]:
        return UINT.read(name, number)

    def finish(self, name: str, owner: str) -> list[str]:
        return [f"{name} = {self.type.__name__}({name} if {name} < {len(self.type)} else 0)"]


@dataclass(frozen=True, slots=True)
class One:
    """A message that is always written; where there is none on the wire, an empty one is meant."""

    type: type

    @property
    def absent(self) -> str:
        return f"{self.type.__name__}()"

    def write(self, number: int) -> list[str]:
        return _put(number, _BYTES, f"write_{self.type.__name__}(value)")

    def read(self, name: str, number: int) -> list[Arm]:
        return [(_tag(number, _BYTES), [f"{name} = read_{self.type.__name__}(data, at, stop)"])]

    def finish(self, name: str, owner: str) -> list[str]:
        return []


class Text(NamedTuple):
    """A text with its key, as a message."""

    key: str
    value: str


class Content(NamedTuple):
    """Bytes with their key, as a message."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Many:
    """Any number of messages, as a tuple; or (Text, Content) what `made` makes of them."""

    type: type
    items: str = "value"
    made: str = "tuple({})"
    absent: str = "[]"

    def write(self, number: int) -> list[str]:
        return [f"for item in {self.items}:", *_indent(_put(number, _BYTES, f"write_{self.type.__name__}(item)"))]

    def read(self, name: str, number: int) -> list[Arm]:
        return [(_tag(number, _BYTES), [f"{name}.append(read_{self.type.__name__}(data, at, stop))"])]

    def finish(self, name: str, owner: str) -> list[str]:
        return [f"{name} = {self.made.format(name)}"]


TEXTS = Many(Text, "starmap(Text, value)", "tuple(map(tuple, {}))")
CONTENTS = Many(Content, "starmap(Content, value.items())", "dict({})")


@dataclass(frozen=True, slots=True)
class Strings:
    """Any number of texts, as a tuple."""

    absent: str = "[]"

    def write(self, number: int) -> list[str]:
        return ["for item in value:", *_indent(_put(number, _BYTES, "item.encode()"))]

    def read(self, name: str, number: int) -> list[Arm]:
        return [(_tag(number, _BYTES), [f"{name}.append({STRING.decoded})"])]

    def finish(self, name: str, owner: str) -> list[str]:
        return [f"{name} = tuple({name})"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Any number of numbers, as a tuple: written packed, read either way."""

    absent: str = "[]"

    def write(self, number: int) -> list[str]:
        return ["if value:", *_indent(_put(number, _BYTES, 'b"".join(map(varint, value))'))]

    def read(self, name: str, number: int) -> list[Arm]:
        packed = (_tag(number, _BYTES), [f"{name} += read_varints(data, at, stop)"])
        return [packed, (_tag(number, _VARINT), [f"{name}.append(number)"])]

    def finish(self, name: str, owner: str) -> list[str]:
        return [f"{name} = tuple({name})"]


@dataclass(frozen=True, slots=True)
class Inline:
    """In a OneOf: a class whose only attribute stands on the wire without a message around it."""

    type: type
    attribute: str
    scalar: Scalar


@dataclass(frozen=True, slots=True)
class OneOf:
    """Exactly one of these, by number: messages, Inline, or plain `int` and `str`."""

    choices: dict[int, type | Inline]
    absent: str = "None"

    def write(self, number: int) -> list[str]:
        lines = ["kind = type(value)"]
        for number, choice in self.choices.items():
            lines.append(f"{'if' if len(lines) == 1 else 'elif'} kind is {_name(choice)}:")
            lines += _indent(_put_choice(number, choice))
        return [*lines, "else:", ' raise ProtocolError(f"{value!r} has no place here.")']

    def read(self, name: str, number: int) -> list[Arm]:
        return [_choose(name, number, choice) for number, choice in self.choices.items()]

    def finish(self, name: str, owner: str) -> list[str]:
        return _require(name, owner) if self.absent == "None" else []


def _name(choice: type | Inline) -> str:
    return choice.type.__name__ if isinstance(choice, Inline) else choice.__name__


def _put_choice(number: int, choice: type | Inline) -> list[str]:
    if isinstance(choice, Inline):
        value = f"value.{choice.attribute}"
        return _put(number, choice.scalar.wire_type, choice.scalar.encoded.replace("value", value))
    if choice is int:
        return _put(number, _VARINT, "value")
    return _put(number, _BYTES, "value.encode()" if choice is str else f"write_{choice.__name__}(value)")


def _choose(name: str, number: int, choice: type | Inline) -> Arm:
    if isinstance(choice, Inline):
        return _tag(number, choice.scalar.wire_type), [f"{name} = {_name(choice)}({choice.scalar.decoded})"]
    if choice is int:
        return _tag(number, _VARINT), [f"{name} = number"]
    decoded = STRING.decoded if choice is str else f"read_{choice.__name__}(data, at, stop)"
    return _tag(number, _BYTES), [f"{name} = {decoded}"]


# The compiler --------------------------------------------------------------------------------------------------------

Rows = Sequence[tuple[str, int, Kind]]


def compile_codec(fields: dict[type, Rows], names: dict[str, Any]) -> dict[type, tuple[Writer, Reader]]:
    """A writer and a reader of `data[at:end]` for each class; `names` holds what the rows mention besides."""
    names = names | {type.__name__: type for type in fields}
    for type, rows in fields.items():
        source = "\n".join([*_writer(type.__name__, rows), *_reader(type.__name__, rows)])
        exec(compile(source, f"<codec of {type.__name__}>", "exec"), names)  # noqa: S102  (our own text)
    return {type: (names[f"write_{type.__name__}"], names[f"read_{type.__name__}"]) for type in fields}


def _writer(owner: str, rows: Rows) -> list[str]:
    lines = [f"def write_{owner}(message):", " parts = []"]
    for name, number, kind in sorted(rows, key=lambda row: row[1]):
        lines += _indent([f"value = message.{name}", *kind.write(number)])
    return [*lines, ' return b"".join(parts)']


def _reader(owner: str, rows: Rows) -> list[str]:
    loop = ["tag = data[at]", "at += 1", "if tag > 127:", " tag, at = read_varint(data, at - 1)"]
    for tag, lines in (arm for name, number, kind in rows for arm in kind.read(name, number)):
        loop += [f"if tag == {tag}:", *_indent([*_open(tag), *lines, *_close(tag), "continue"])]
    loop += ["at = skip(data, at, tag)"]
    lines = [f"{name} = {kind.absent}" for name, _, kind in rows]
    lines += ["while at < end:", *_indent(loop)]
    lines += ["if at != end:", f' raise ProtocolError("A {owner} runs over its end.")']
    lines += [line for name, _, kind in rows for line in kind.finish(name, owner)]
    arguments = ", ".join(f"{name}={name}" for name, _, _ in rows)
    return [f"def read_{owner}(data, at, end):", *_indent(lines), f" return {owner}({arguments})"]


def _open(tag: int) -> list[str]:
    if tag & 7 == _VARINT:
        return ["number, at = read_varint(data, at)"]
    length = ["length = data[at]", "at += 1", "if length > 127:", " length, at = read_varint(data, at - 1)"]
    overrun = ["if stop > end:", ' raise ProtocolError("A field runs over the end of its message.")']
    return [*length, "stop = at + length", *overrun]


def _close(tag: int) -> list[str]:
    return [] if tag & 7 == _VARINT else ["at = stop"]
