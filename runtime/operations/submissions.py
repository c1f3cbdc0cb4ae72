"""What callers ask for, and what they are answered."""

from __future__ import annotations

from msgspec import Struct

from perdure.protocol.ids import format_id
from perdure.protocol.messages import Failure, Header, Value
from runtime.core.registry import HandlerInfo
from runtime.errors import RuntimeFault


class Submission(Struct):
    """What a caller wants done."""

    handler: HandlerInfo
    key: str | None
    input: bytes
    headers: tuple[Header, ...] = ()
    idempotency_key: str | None = None
    due: int = 0
    """Milliseconds since the epoch; 0: now."""


class Accepted(Struct):
    """A submission that is durable. Not new: its idempotency key was there already."""

    id: bytes
    is_new: bool


class Ended(Struct):
    id: bytes
    result: Value | Failure
    expires: int = 0
    """Until when it answers whoever asks again with its idempotency key, or its workflow's, in milliseconds since the
    epoch. 0: nobody asked before, or there is no such key."""


class UnknownInvocation(RuntimeFault):
    """There is no invocation of this id, or it ended longer ago than it is kept."""

    code = "unknown_invocation"

    def __init__(self, id: bytes) -> None:
        super().__init__(f"There is no invocation {format_id(id)}, or it is not kept any more.")


class NotServed(RuntimeFault):
    """No engine has had the code of this service for a while, so a call would wait for nobody knows how long."""

    code = "not_served"
    hint = (
        "Nothing was done. A send is accepted, and waits until an engine has the code: ./dev up --services MODULE:APP."
    )

    def __init__(self, service: str, seconds: float) -> None:
        super().__init__(f"No engine has loaded the code of {service!r} for {seconds:g} s.")
