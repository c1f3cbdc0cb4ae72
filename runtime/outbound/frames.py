"""HTTP/2 frames, as far as a client needs them: RFC 9113, sections 4 and 6."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST = range(
    1, 7
)

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = range(6, 10)
ERRORS = (
    "no error", "protocol error", "internal error", "flow control error", "settings time-out", "stream closed",
    "frame size error", "refused stream", "cancelled", "compression error", "connect error", "calm down",
    "inadequate security", "HTTP/1.1 required",
)  # fmt: skip
"""What the peer's error codes mean."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_FRAME = 16_384
"""Of what we take; nobody may send more, for we do not ask for more."""
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1

_HEAD = Struct(">HBBBL")
_LONG = Struct(">L")
_SETTING = Struct(">HL")
Frame = tuple[int, int, int, bytes]
"""Kind, flags, stream, payload."""


class FrameTooLarge(Exception):
    """The peer sends a frame that is larger than we take."""


class Reader:
    """What comes in, cut into frames."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole by now; raises FrameTooLarge."""
        if self._left:
            data = self._left + data
        at, end = 0, len(data)
        while end - at >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > LARGEST_FRAME:
                raise FrameTooLarge(size)
            if end - at < 9 + size:
                break
            yield kind, flags, stream & 0x7FFFFFFF, data[at + 9 : at + 9 + size]
            at += 9 + size
        self._left = data[at:]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """
    >>> frame(PING, ACK, 0, bytes(8)).hex()
    '0000080601000000000000000000000000'
    """
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def headers(stream: int, block: bytes, most: int, *, is_end: bool) -> bytes:
    """A block of headers, in as many frames as it needs."""
    flags = END_STREAM if is_end else 0
    if len(block) <= most:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [block[at : at + most] for at in range(0, len(block), most)]
    middle = [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    return b"".join(
        [frame(HEADERS, flags, stream, parts[0]), *middle, frame(CONTINUATION, END_HEADERS, stream, parts[-1])]
    )


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _LONG.pack(size))


def reset(stream: int, error: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _LONG.pack(error))


def goaway(error: int) -> bytes:
    return frame(GOAWAY, 0, 0, _LONG.pack(0) + _LONG.pack(error))  # no stream of theirs was ever taken


def number(payload: bytes, at: int = 0) -> int:
    """Four bytes of a payload, without the reserved bit."""
    return int(_LONG.unpack_from(payload, at)[0]) & 0x7FFFFFFF


def error_name(payload: bytes, at: int = 0) -> str:
    code = int(_LONG.unpack_from(payload, at)[0])
    return ERRORS[code] if code < len(ERRORS) else f"error {code}"


def unpadded(payload: bytes, flags: int) -> bytes | None:
    """What is in a frame without its padding; None: more padding than there is room for."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        return None
    return payload[1 : len(payload) - payload[0]]
