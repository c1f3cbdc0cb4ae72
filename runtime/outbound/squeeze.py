"""What we tell a server in headers, squeezed (HPACK, RFC 7541) in a tenth of the time that a whole encoder takes.

What is the same in most requests goes into the server's table once and is a byte or two from then on; the rest is
written out. The table is never let overflow, so nothing ever leaves it, and a header's number in it is known for ever.
What the server squeezes is read by the `hpack` library.
"""

from __future__ import annotations

from collections.abc import Sequence

REPEATED = frozenset((":authority", ":path", "content-type", "accept", "user-agent", "x-restate-signature-scheme"))
STATIC = {(":method", "GET"): 2, (":method", "POST"): 3, (":scheme", "http"): 6, (":scheme", "https"): 7}
TABLE = 4096
FIRST = 62
"""The number of the youngest header in the table."""


class Squeezer:
    """For one connection. Headers must be given in lower case."""

    __slots__ = ("_count", "_known", "_news", "_room")

    def __init__(self, table: int = TABLE) -> None:
        """`table`: the largest that the server takes, as its settings say."""
        self._room = min(table, TABLE)
        self._known: dict[tuple[str, str], int] = {}
        self._count = 0
        self._news = b"" if self._room == TABLE else _integer(self._room, 5, 0x20)

    def shrink(self, table: int) -> None:
        """The server wants a smaller table: it gets none, for that hardly ever happens."""
        if table < TABLE:
            self._known.clear()
            self._count = self._room = 0
            self._news = _integer(0, 5, 0x20)

    def block(self, headers: Sequence[tuple[str, str]]) -> bytes:
        parts = [self._news]
        self._news = b""
        for header in headers:
            if (number := STATIC.get(header)) is not None:
                parts.append(_integer(number, 7, 0x80))
            elif (place := self._known.get(header)) is not None:
                parts.append(_integer(FIRST + self._count - place, 7, 0x80))
            else:
                parts.append(self._written(header))
        return b"".join(parts)

    def _written(self, header: tuple[str, str]) -> bytes:
        name, value = header[0].encode("latin-1"), header[1].encode("latin-1")
        text = _integer(len(name), 7, 0) + name + _integer(len(value), 7, 0) + value
        size = len(name) + len(value) + 32
        if header[0] not in REPEATED or size > self._room:
            return b"\x10" + text  # never to be put into a table: some of these are secrets
        self._room -= size
        self._count += 1
        self._known[header] = self._count
        return b"\x40" + text


def _integer(value: int, bits: int, pattern: int) -> bytes:
    """
    >>> _integer(10, 5, 0).hex(), _integer(1337, 5, 0).hex()
    ('0a', '1f9a0a')
    """
    most = (1 << bits) - 1
    if value < most:
        return bytes((pattern | value,))
    written = [pattern | most]
    value -= most
    while value >= 128:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)
