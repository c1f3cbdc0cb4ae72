"""What a journal says of other invocations, and of what has been asked for and has not come. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from perdure.errors import InvalidInvocationId, SdkError
from perdure.protocol.codec import decode
from perdure.protocol.ids import format_awakeable, parse_id
from perdure.protocol.messages import (
    AttachInvocation,
    Call,
    CallInvocationIdCompletion,
    Command,
    Completion,
    GetPromise,
    InvocationRef,
    Message,
    OneWayCall,
    Sleep,
)
from perdure.protocol.target import Target
from runtime.core import lifecycle, slots
from runtime.errors import RuntimeFault


class Called(Struct, frozen=True):
    """An invocation that a handler has called, or sent something to."""

    id: bytes
    target: str
    name: str
    """What the author called it."""
    is_awaited: bool
    """A call, whose result comes back; else a send."""


class Awaited(Struct, frozen=True):
    """What a handler has asked for and has not got."""

    index: int | None
    """Of its entry in the journal; None: of a signal there is none before it comes."""
    what: str
    """As in `Sleep`, `Call`, `Run` or `Signal`."""
    name: str
    """The handler called, what the author called it, or an awakeable's id."""
    invocation: bytes | None = None
    """Whose result it awaits."""
    until: datetime | None = None
    """When it wakes up."""


def read(pieces: Iterable[bytes | memoryview]) -> list[Message]:
    """The entries of a journal, from its frames in order, the input first."""
    return [message for piece in pieces for message in decode(bytes(piece))]


def called(entries: Sequence[Message]) -> list[Called]:
    """Whom it has called or sent something to, in that order.

    >>> called([OneWayCall("Mailbox", "put", b"", 1, key="Mary"),
    ...         CallInvocationIdCompletion(1, InvocationRef("inv_10000000000000000000000"))])[0].target
    'Mailbox/Mary/put'
    """
    ids = _ids(entries)
    return [
        Called(ids[entry.invocation_id_notification_idx], _target(entry), entry.name, isinstance(entry, Call))
        for entry in entries
        if isinstance(entry, Call | OneWayCall) and entry.invocation_id_notification_idx in ids
    ]


def awaited(entries: Sequence[Message], waits: Collection[int] | None = None) -> list[Awaited]:
    """What has not come, of all that it has asked for, or of certain completion ids. `entries`: all behind the input.

    >>> from perdure.protocol.messages import Run
    >>> [one.what for one in awaited([Sleep(1_000, 1), Run(2, "pay"), Run(3, "ship")], waits=[1, 3])]
    ['Sleep', 'Run']
    """
    settled = {entry.completion_id for entry in entries if isinstance(entry, Completion)}
    ids = _ids(entries)
    found = []
    for index, entry in enumerate(entries, start=1):
        awaits = getattr(entry, "result_completion_id", None)
        if not isinstance(entry, Command) or awaits is None or awaits in settled:
            continue
        if waits is None or awaits in waits:
            found.append(_awaited(index, entry, ids))
    return found


def signals(id: bytes, waits: Collection[int]) -> list[Awaited]:
    """The signals that an invocation waits for, of the slots that would wake it; being cancelled is not among them.

    >>> [one.name for one in signals(bytes(16), [slots.of_signal(1), slots.of_signal(17), 3, slots.NAMED])]
    ['sign_1AAAAAAAAAAAAAAAAAAAAAAAAABE', '']
    """
    numbers = sorted(slots.number_of(slot) for slot in waits if slots.is_signal(slot))
    found = [
        Awaited(None, "Signal", format_awakeable(id, number)) for number in numbers if number >= lifecycle.FIRST_SIGNAL
    ]
    return [*found, Awaited(None, "Signal", "")] if slots.NAMED in waits else found


def _awaited(index: int, entry: Command, ids: dict[int, bytes]) -> Awaited:
    name = str(getattr(entry, "name", ""))
    match entry:
        case Call():
            return Awaited(index, "Call", _target(entry), ids.get(entry.invocation_id_notification_idx))
        case Sleep():
            until = datetime.fromtimestamp(lifecycle.bounded(entry.wake_up_time) / 1000, UTC)
            return Awaited(index, "Sleep", name, until=until)
        case AttachInvocation():
            return Awaited(index, "AttachInvocation", name, _attached(entry))
        case GetPromise():  # by the name under which others complete it, not the one in this handler's code
            return Awaited(index, "GetPromise", entry.key)
        case _:
            return Awaited(index, type(entry).__name__, name or str(getattr(entry, "key", "")))


def _attached(entry: AttachInvocation) -> bytes | None:
    try:
        return lifecycle.target_of(entry.target)
    except (SdkError, RuntimeFault):
        return None


def _ids(entries: Iterable[Message]) -> dict[int, bytes]:
    """The ids of those that were called, by the completion ids under which they came."""
    found = {}
    for entry in entries:
        if isinstance(entry, CallInvocationIdCompletion) and isinstance(entry.result, InvocationRef):
            try:
                found[entry.completion_id] = parse_id(entry.result.invocation_id)
            except InvalidInvocationId:
                continue
    return found


def _target(entry: Call | OneWayCall) -> str:
    return str(Target(entry.service_name, entry.handler_name, entry.key or None))
