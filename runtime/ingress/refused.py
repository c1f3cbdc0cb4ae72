"""A refusal: what a caller asked for in a way that cannot be answered, and how to ask instead."""

from __future__ import annotations

from runtime.errors import RuntimeFault

Headers = tuple[tuple[bytes, bytes], ...]

CLOSE = (b"connection", b"close")


class Refused(RuntimeFault):
    """The request is at fault; nothing was done. `headers` go into the answer.

    `unread`: some of its body is still on its way, and will not be read: its connection is of no more use.
    """

    code = "refused"

    def __init__(
        self, status: int, message: str, hint: str = "", headers: Headers = (), *, unread: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint
        self.headers = (*headers, CLOSE) if unread else headers
        self.unread = unread
