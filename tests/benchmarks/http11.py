"""Just enough HTTP/1.1 to load a server: requests as ready bytes, answers cut out of what arrives.

Hand-written because the generator shares the cores with what it measures: a client library's 100 us per request would
halve the figure.
"""

from __future__ import annotations

from typing import NamedTuple

END_OF_HEAD = b"\r\n\r\n"


class Answer(NamedTuple):
    status: int
    body: bytes


class AnswerError(Exception):
    """The server answered something that is not HTTP/1.1."""


def request(path: str, body: bytes) -> bytes:
    """The bytes of a POST with a JSON body, on a connection that stays open."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Reader:
    """Cuts the answers of one connection out of the bytes that arrive, however these are split.

    >>> Reader().feed(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nhi")
    [Answer(status=200, body=b'hi')]
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[Answer]:
        """The answers that `data` completes; raises AnswerError when it cannot be one."""
        if self._pending:
            data = self._pending + data
        answers: list[Answer] = []
        start = 0
        while start < len(data):
            cut = _cut(data, start)
            if cut is None:
                break
            answer, start = cut
            answers.append(answer)
        self._pending = data[start:]
        return answers


def _cut(data: bytes, start: int) -> tuple[Answer, int] | None:
    """The first answer at `start` and where it ends, or None while it is incomplete."""
    end = data.find(END_OF_HEAD, start)
    if end < 0:
        return None
    head = data[start:end].lower()
    if head[:7] != b"http/1." or not head[9:12].isdigit():
        raise AnswerError(head[:80].decode("latin-1"))
    status = int(head[9:12])
    body_start = end + len(END_OF_HEAD)
    length = _field(head, b"content-length")
    if length is not None:
        body_end = body_start + int(length)
        return (Answer(status, data[body_start:body_end]), body_end) if len(data) >= body_end else None
    if _field(head, b"transfer-encoding") == b"chunked":
        chunks = _chunks(data, body_start)
        return (Answer(status, chunks[0]), chunks[1]) if chunks else None
    return Answer(status, b""), body_start


def _field(head: bytes, name: bytes) -> bytes | None:
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    value_start = at + len(name) + 3
    value_end = head.find(b"\r\n", value_start)
    return head[value_start : value_end if value_end >= 0 else len(head)].strip()


def _chunks(data: bytes, start: int) -> tuple[bytes, int] | None:
    """A chunked body and where it ends, or None while it is incomplete. Trailers are not expected."""
    body: list[bytes] = []
    while (end := data.find(b"\r\n", start)) >= 0:
        try:
            size = int(data[start:end].split(b";")[0], 16)
        except ValueError as error:
            raise AnswerError(f"chunk size {data[start:end]!r}") from error
        chunk_start = end + 2
        start = chunk_start + size + 2
        if len(data) < start:
            return None
        if size == 0:
            return b"".join(body), start
        body.append(data[chunk_start : chunk_start + size])
    return None
