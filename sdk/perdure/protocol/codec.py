"""Messages as frames, and back: the numbers of the wire stand here, once.

A frame is 8 bytes (type, flags, length of the payload) and a protobuf payload. Fields that are not known are skipped.
"""

from __future__ import annotations

from itertools import starmap
from struct import Struct
from typing import Any

from msgspec import structs

from perdure.errors import ProtocolError
from perdure.protocol import messages as m
from perdure.protocol.wire import (
    BOOL,
    BYTES,
    CONTENTS,
    OPTIONAL_STRING,
    OPTIONAL_UINT,
    STRING,
    TEXTS,
    UINT,
    Content,
    Enumerated,
    Inline,
    Kind,
    Many,
    Numbers,
    One,
    OneOf,
    Reader,
    Required,
    Rows,
    Strings,
    Text,
    compile_codec,
    read_varint,
    read_varints,
    skip,
    varint,
)

LARGEST_PAYLOAD = 32 << 20
"""Longer messages are refused before they are read."""

OLDEST_VERSION, NEWEST_VERSION = 5, 7
"""Of the protocol, as far as they are spoken here."""
METADATA = 6
"""The version in which failures carry metadata."""
TREES = 7
"""The version in which waits are trees, and the results of steps are confirmed instead of sent back."""

_HEADER = Struct(">HHI")
_ACK = b"\x80\x00"  # the flag of a message that is to be confirmed

# The fields of each message ------------------------------------------------------------------------------------------

_NAME = ("name", 12, STRING)
_ID = ("result_completion_id", 11, UINT)
_KEY_TEXT = ("key", 1, STRING)
_RESULT = ("result", 14, OneOf({14: m.Value, 15: m.Failure}))
_COMPLETION = ("completion_id", 1, Required())
_AWAITING_ON = ("awaiting_on", 1, One(m.Wait))
_TARGET: Kind = OneOf(
    {
        1: Inline(m.InvocationTarget, "invocation_id", STRING),
        3: m.IdempotentRequestTarget,
        4: m.WorkflowTarget,
    }
)


def _settles(*choices: type) -> Rows:
    numbers: dict[type, int] = {m.Void: 4, m.Value: 5, m.Failure: 6, m.StateKeys: 17}
    return (_COMPLETION, ("result", 4, OneOf({numbers[choice]: choice for choice in choices})))


_PARTS: dict[type, Rows] = {
    Text: (_KEY_TEXT, ("value", 2, STRING)),
    Content: (_KEY_TEXT, ("value", 2, BYTES)),
    m.Void: (),
    m.Value: (("content", 1, BYTES),),
    m.Failure: (("code", 1, UINT), ("message", 2, STRING), ("metadata", 3, TEXTS)),
    m.Header: (_KEY_TEXT, ("value", 2, STRING)),
    m.StateKeys: (("keys", 1, Strings()),),
    m.Wait: (
        ("completions", 1, Numbers()),
        ("signals", 2, Numbers()),
        ("named_signals", 3, Strings()),
        ("nested", 4, Many(m.Wait)),
        ("combinator", 5, Enumerated(m.Combinator)),
    ),
    m.WorkflowTarget: (("workflow_name", 1, STRING), ("workflow_key", 2, STRING), ("scope", 3, OPTIONAL_STRING)),
    m.IdempotentRequestTarget: (
        ("service_name", 1, STRING),
        ("service_key", 2, OPTIONAL_STRING),
        ("handler_name", 3, STRING),
        ("idempotency_key", 4, STRING),
        ("scope", 5, OPTIONAL_STRING),
    ),
}

_MESSAGES: dict[type[m.Message], Rows] = {
    m.Start: (
        ("id", 1, BYTES),
        ("debug_id", 2, STRING),
        ("known_entries", 3, UINT),
        ("state_map", 4, CONTENTS),
        ("partial_state", 5, BOOL),
        ("key", 6, STRING),
        ("retry_count_since_last_stored_entry", 7, UINT),
        ("duration_since_last_stored_entry", 8, UINT),
        ("random_seed", 9, UINT),
        ("scope", 10, OPTIONAL_STRING),
        ("limit_key", 11, OPTIONAL_STRING),
        ("idempotency_key", 12, OPTIONAL_STRING),
    ),
    m.Suspension: (("awaiting_on", 4, One(m.Wait)),),
    m.Error: (
        ("code", 1, UINT),
        ("message", 2, STRING),
        ("stacktrace", 3, STRING),
        ("related_command_index", 4, OPTIONAL_UINT),
        ("related_command_name", 5, OPTIONAL_STRING),
        ("related_command_type", 6, OPTIONAL_UINT),
        ("next_retry_delay", 8, OPTIONAL_UINT),
        ("behavior", 9, Enumerated(m.Behavior)),
    ),
    m.End: (),
    m.ProposeRunCompletion: (
        ("result_completion_id", 1, UINT),
        ("result", 14, OneOf({14: Inline(m.Value, "content", BYTES), 15: m.Failure})),
    ),
    m.AwaitingOn: (_AWAITING_ON, ("executing_side_effects", 2, BOOL)),
    m.ProposeRunCompletionAck: (("completion_id", 1, UINT),),
    m.Input: (("headers", 1, Many(m.Header)), ("value", 14, One(m.Value)), _NAME),
    m.Output: (_RESULT, _NAME),
    m.GetLazyState: (_KEY_TEXT, _ID, _NAME),
    m.SetState: (_KEY_TEXT, ("value", 3, One(m.Value)), _NAME),
    m.ClearState: (_KEY_TEXT, _NAME),
    m.ClearAllState: (_NAME,),
    m.GetLazyStateKeys: (_ID, _NAME),
    m.GetEagerState: (_KEY_TEXT, ("result", 13, OneOf({13: m.Void, 14: m.Value})), _NAME),
    m.GetEagerStateKeys: (("keys", 14, One(m.StateKeys)), _NAME),
    m.GetPromise: (_KEY_TEXT, _ID, _NAME),
    m.PeekPromise: (_KEY_TEXT, _ID, _NAME),
    m.CompletePromise: (_KEY_TEXT, ("completion", 2, OneOf({2: m.Value, 3: m.Failure})), _ID, _NAME),
    m.Sleep: (("wake_up_time", 1, UINT), _ID, _NAME),
    m.Call: (
        ("service_name", 1, STRING),
        ("handler_name", 2, STRING),
        ("parameter", 3, BYTES),
        ("headers", 4, Many(m.Header)),
        ("key", 5, STRING),
        ("idempotency_key", 6, OPTIONAL_STRING),
        ("scope", 7, OPTIONAL_STRING),
        ("limit_key", 8, OPTIONAL_STRING),
        ("invocation_id_notification_idx", 10, UINT),
        _ID,
        _NAME,
    ),
    m.OneWayCall: (
        ("service_name", 1, STRING),
        ("handler_name", 2, STRING),
        ("parameter", 3, BYTES),
        ("invoke_time", 4, UINT),
        ("headers", 5, Many(m.Header)),
        ("key", 6, STRING),
        ("idempotency_key", 7, OPTIONAL_STRING),
        ("scope", 8, OPTIONAL_STRING),
        ("limit_key", 9, OPTIONAL_STRING),
        ("invocation_id_notification_idx", 10, UINT),
        _NAME,
    ),
    m.SendSignal: (
        ("target_invocation_id", 1, STRING),
        ("signal", 2, OneOf({2: int, 3: str})),
        ("result", 4, OneOf({4: m.Void, 5: m.Value, 6: m.Failure}, absent="Void()")),
        ("entry_name", 12, STRING),
    ),
    m.Run: (_ID, _NAME),
    m.AttachInvocation: (("target", 1, _TARGET), _ID, _NAME),
    m.GetInvocationOutput: (("target", 1, _TARGET), _ID, _NAME),
    m.CompleteAwakeable: (
        ("awakeable_id", 1, STRING),
        ("result", 2, OneOf({2: m.Value, 3: m.Failure})),
        _NAME,
    ),
    m.GetLazyStateCompletion: _settles(m.Void, m.Value),
    m.GetLazyStateKeysCompletion: _settles(m.StateKeys),
    m.GetPromiseCompletion: _settles(m.Value, m.Failure),
    m.PeekPromiseCompletion: _settles(m.Void, m.Value, m.Failure),
    m.CompletePromiseCompletion: _settles(m.Void, m.Failure),
    m.SleepCompletion: _settles(m.Void),
    m.CallCompletion: _settles(m.Value, m.Failure),
    m.CallInvocationIdCompletion: (
        _COMPLETION,
        ("result", 16, OneOf({16: Inline(m.InvocationRef, "invocation_id", STRING)})),
    ),
    m.RunCompletion: _settles(m.Value, m.Failure),
    m.AttachInvocationCompletion: _settles(m.Value, m.Failure),
    m.GetInvocationOutputCompletion: _settles(m.Void, m.Value, m.Failure),
    m.Signal: (
        ("signal", 2, OneOf({2: int, 3: str})),
        ("result", 4, OneOf({4: m.Void, 5: m.Value, 6: m.Failure})),
    ),
}


_HELPERS: dict[str, Any] = {
    "ProtocolError": ProtocolError,
    "read_varint": read_varint,
    "read_varints": read_varints,
    "skip": skip,
    "starmap": starmap,
    "varint": varint,
}
_TYPES = [m.InvocationRef, m.InvocationTarget, m.Combinator, m.Behavior]
_CODECS = compile_codec(_PARTS | _MESSAGES, _HELPERS | {type.__name__: type for type in _TYPES})


def _read_suspension(data: bytes, at: int, end: int) -> m.Suspension:
    # Since version 7 it holds a wait, as its field 4. Before, it was one: it has the numbers of a wait's lists.
    wait: m.Wait = _read_wait(data, at, end)
    return m.Suspension(wait.nested[0] if wait.nested else m.Wait(wait.completions, wait.signals, wait.named_signals))


_write_wait, _read_wait = _CODECS[m.Wait]
_WRITERS = {type: (type.CODE, _CODECS[type][0]) for type in _MESSAGES}
_READERS: dict[int, Reader] = {type.CODE: _CODECS[type][1] for type in _MESSAGES}
_READERS[m.Suspension.CODE] = _read_suspension


# Frames --------------------------------------------------------------------------------------------------------------


def encode(message: m.Message) -> bytes:
    """The frame of a message.

    >>> encode(m.Sleep(wake_up_time=5, result_completion_id=1)).hex(" ", -4)
    '040c0000 00000004 08055801'
    """
    code, write = _WRITERS[type(message)]
    payload = write(message)
    return _HEADER.pack(code, 0, len(payload)) + payload


def encode_for(message: m.Message, version: int) -> bytes:
    """The frame of a handler's message as a version of the protocol has it; nothing where that has no such message.

    >>> encode_for(m.Suspension(m.Wait(completions=(1,), signals=(1,))), 6).hex(" ", -4)
    '00010000 00000006 0a010112 0101'
    """
    if version >= TREES:
        frame = encode(message)
        return frame[:2] + _ACK + frame[4:] if isinstance(message, m.ProposeRunCompletion) else frame
    if isinstance(message, m.AwaitingOn):
        return b""
    if isinstance(message, m.Suspension):
        payload = _write_wait(_flat(message.awaiting_on))
        return _HEADER.pack(message.CODE, 0, len(payload)) + payload
    if version < METADATA and isinstance(getattr(message, "result", None), m.Failure):
        message = structs.replace(message, result=structs.replace(message.result, metadata=()))  # type: ignore[attr-defined]
    return encode(message)


def _flat(wait: m.Wait) -> m.Wait:
    """All that a wait mentions, as one: before version 7 whatever comes first wakes up who waits."""
    parts = [wait, *map(_flat, wait.nested)]
    return m.Wait(
        tuple(dict.fromkeys(id for part in parts for id in part.completions)),
        tuple(dict.fromkeys(signal for part in parts for signal in part.signals)),
        tuple(dict.fromkeys(name for part in parts for name in part.named_signals)),
        combinator=m.Combinator.UNKNOWN,
    )


def decode(frames: bytes) -> list[m.Message]:
    """The messages of whole frames; raises ProtocolError on anything else.

    >>> decode(encode(m.End()) + encode(m.Run(1, "charge")))
    [End(), Run(result_completion_id=1, name='charge')]
    """
    messages, rest = _decode(frames, len(frames))
    if rest != len(frames):
        raise ProtocolError("The last frame is cut off.")
    return messages


class Decoder:
    """Messages out of a stream whose chunks end anywhere.

    >>> decoder = Decoder()
    >>> decoder.feed(encode(m.End())[:3]), decoder.feed(encode(m.End())[3:])
    ([], [End()])
    """

    __slots__ = ("_buffer", "_largest", "_needed")

    def __init__(self, largest_payload: int = LARGEST_PAYLOAD) -> None:
        self._largest = largest_payload
        self._buffer = bytearray()
        self._needed = _HEADER.size  # looked at before, a long frame in small chunks would be copied over and over

    def feed(self, chunk: bytes) -> list[m.Message]:
        """What this chunk completes; raises ProtocolError, after which the stream is of no more use."""
        buffer = self._buffer
        buffer += chunk
        if len(buffer) < self._needed:
            return []
        messages, at = _decode(bytes(buffer), self._largest)
        del buffer[:at]
        self._needed = _HEADER.size + (_HEADER.unpack_from(buffer)[2] if len(buffer) >= _HEADER.size else 0)
        return messages

    @property
    def drained(self) -> bool:
        """Whether the stream may end here: no frame is cut off."""
        return not self._buffer


def _decode(data: bytes, largest: int) -> tuple[list[m.Message], int]:
    """The messages of all whole frames, and where the first that is not whole begins."""
    messages: list[m.Message] = []
    at, end = 0, len(data)
    try:
        while end - at >= 8:
            code, _, length = _HEADER.unpack_from(data, at)
            if length > largest:
                raise ProtocolError(f"A message of {length} bytes is longer than {largest}.")
            if code not in _READERS:
                raise ProtocolError(f"There is no message of type 0x{code:04x}.")
            stop = at + 8 + length
            if stop > end:
                break
            messages.append(_READERS[code](data, at + 8, stop))
            at = stop
    except (IndexError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"A message is malformed: {error}.") from error
    return messages, at
