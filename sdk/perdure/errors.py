"""What can go wrong in an author's code, and whose fault it is."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import ClassVar


class SdkError(Exception):
    """The docstring is the message; `code` is stable; `hint` says what to do next."""

    code: ClassVar[str] = "sdk_error"
    hint: ClassVar[str] = ""

    def __str__(self) -> str:
        text = super().__str__() or (self.__doc__ or "").strip().partition("\n")[0]
        return f"{text} {self.hint}" if self.hint else text


class InvalidInvocationId(SdkError):
    """This is not the id of an invocation."""

    code = "invalid_invocation_id"
    hint = "An id is `inv_1` and 22 letters or digits, as it was told: changed in one place it is none."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not the id of an invocation.")


class InvalidAwakeableId(SdkError):
    """This is not the id of an awakeable."""

    code = "invalid_awakeable_id"
    hint = "An id is `sign_1` and 27 letters, digits, `-` or `_`, as `ctx.awakeable` told it."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not the id of an awakeable.")


class ProtocolError(SdkError):
    """These bytes are not messages of the protocol."""

    code = "protocol_error"


class DefinitionError(SdkError, TypeError):
    """A service or handler is not written as it must be."""

    code = "definition_error"


class UsageError(SdkError, TypeError):
    """The SDK was used in a way that cannot work."""

    code = "usage_error"


class SerdeError(SdkError, ValueError):
    """A value and its bytes do not fit."""

    code = "serde_error"


class UnknownHandler(SdkError):
    """The endpoint has no such handler."""

    code = "unknown_handler"
    hint = "Is the service given to the Endpoint?"


class JournalMismatch(SdkError):
    """The handler asked for something else than its journal recorded."""

    code = "journal_mismatch"
    hint = "Was the code changed without a new deployment? Is time, randomness or I/O used outside ctx.run()?"


class AttemptEnded(BaseException):
    """Unwinds a handler whose attempt is over; no `except Exception` of an author stops it."""


class TerminalError(Exception):
    """Ends the invocation and reaches the caller; any other exception is retried.

    `code` reads like an HTTP status, and is one for callers over HTTP.

    >>> raise TerminalError("Sold out", code=410)
    Traceback (most recent call last):
    perdure.errors.TerminalError: Sold out
    """

    def __init__(self, message: str = "", *, code: int = 500, metadata: Mapping[str, str] | None = None) -> None:
        message = message or f"{type(self).__name__} without a message"
        super().__init__(message)
        self.message = message
        self.code = code
        self.metadata = dict(metadata or {})


class Cancelled(TerminalError):
    """Somebody cancelled this invocation: undo what was done, then raise again (or end as you like).

    >>> Cancelled().code
    409
    """

    def __init__(self) -> None:
        super().__init__("cancelled", code=409)


class TimeoutError(TerminalError, builtins.TimeoutError):
    """A durable time-out ran out first. What was waited for goes on by itself.

    >>> issubclass(TimeoutError, builtins.TimeoutError), TimeoutError().code
    (True, 408)
    """

    def __init__(self, message: str = "The time-out ran out first") -> None:
        super().__init__(message, code=408)
