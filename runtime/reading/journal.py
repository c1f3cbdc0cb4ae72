"""A journal for people: what each entry is, what it says, and whether what it asked for has come. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import msgspec
from msgspec import Struct, structs

from perdure.protocol.messages import (
    Call,
    Command,
    Completion,
    Failure,
    Header,
    InvocationRef,
    Message,
    OneWayCall,
    StateKeys,
    Value,
    Void,
)
from perdure.protocol.target import Target
from runtime.reading import calls

_IDS = ("result_completion_id", "invocation_id_notification_idx", "completion_id", "name", "entry_name")


class Entry(Struct, frozen=True):
    """One entry, as the operators' API shows it."""

    index: int
    type: str
    """As in `Command: Sleep` or `Notification: Run`."""
    name: str
    """What the author called it, or what it is about: the handler called, the name of a value."""
    completed: bool | None
    """Whether its result is in the journal; None for what has none."""
    details: Mapping[str, Any]


def payload(content: bytes) -> dict[str, Any]:
    """A payload in the most readable form that says all of it.

    >>> payload(b'{"n": 1}'), payload(b"Hi"), payload(b"\\xff")
    ({'json': {'n': 1}}, {'text': 'Hi'}, {'base64': '/w=='})
    """
    if not content:
        return {}
    try:
        return {"json": msgspec.json.decode(content)}
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": msgspec.to_builtins(content)}


def hidden(content: bytes) -> dict[str, Any]:
    """A payload, for whoever may not see it.

    >>> hidden(b"secret")
    {'hidden': '6 bytes'}
    """
    return {"hidden": f"{len(content)} bytes"} if content else {}


Show = Callable[[bytes], dict[str, Any]]
"""How a payload is shown."""


def read_journal(pieces: Iterable[bytes | memoryview], show: Show = payload) -> list[Entry]:
    """The entries of a journal, from its frames in order, the input first.

    >>> from perdure.protocol.codec import encode
    >>> from perdure.protocol.messages import Input, Run
    >>> entries = read_journal([encode(Input(value=Value(b"1"))), encode(Run(1, "pay"))])
    >>> [(entry.type, entry.completed) for entry in entries]
    [('Command: Input', None), ('Command: Run', False)]
    """
    messages = calls.read(pieces)
    settled = {message.completion_id for message in messages if isinstance(message, Completion)}
    return [_entry(index, message, settled, show) for index, message in enumerate(messages)]


def _entry(index: int, message: Message, settled: set[int], show: Show) -> Entry:
    kind = type(message).__name__
    is_command = isinstance(message, Command)
    awaited = getattr(message, "result_completion_id", None)
    return Entry(
        index=index,
        type=f"Command: {kind}" if is_command else f"Notification: {kind.removesuffix('Completion')}",
        name=_name(message),
        completed=awaited in settled if is_command and awaited is not None else None,
        details={
            field: plain
            for field, value in structs.asdict(message).items()
            if field not in _IDS and (plain := _plain(value, show)) not in (None, "", 0, [], {})
        },
    )


def _name(message: Message) -> str:
    named = getattr(message, "name", "") or getattr(message, "entry_name", "")
    if named:
        return str(named)
    if isinstance(message, Call | OneWayCall):
        return str(Target(message.service_name, message.handler_name, message.key or None))
    return str(getattr(message, "key", ""))


def _plain(value: object, show: Show) -> Any:
    match value:
        case Value(content):
            return show(content)
        case bytes():
            return show(value)
        case Header(key, text):
            return {"key": key} if show is hidden else {"key": key, "value": text}
        case Failure():
            return {"failure": {"code": value.code, "message": value.message, **_plain_pairs(value.metadata)}}
        case Void():
            return None
        case InvocationRef(invocation_id):
            return invocation_id
        case StateKeys(keys):
            return list(keys)
        case IntEnum():
            return value.name.lower()
        case Struct():
            return {field: _plain(part, show) for field, part in structs.asdict(value).items()}
        case tuple():
            return [_plain(part, show) for part in value]
        case _:
            return value


def _plain_pairs(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"metadata": dict(pairs)} if pairs else {}
