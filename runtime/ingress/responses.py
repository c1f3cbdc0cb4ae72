"""A response: status, headers and bytes, and the one table that says which error is answered how."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from perdure.protocol.ids import format_id
from perdure.protocol.messages import Failure
from runtime.core.lifecycle import CommandRefused, TooLarge
from runtime.core.registry import UnknownHandler, UnknownService
from runtime.errors import DatabaseError, Disconnected, Overloaded
from runtime.ingress.doors import Door, Header
from runtime.ingress.refused import Refused
from runtime.operations import Accepted, Ended, NotServed, UnknownInvocation

log = logging.getLogger(__name__)

JSON = (b"content-type", b"application/json")
OCTETS = (b"content-type", b"application/octet-stream")
BY_INVOCATION = (b"x-restate-error-source", b"invocation")
BY_INGRESS = (b"x-restate-error-source", b"ingress")

_encode = msgspec.json.Encoder().encode


class Response(Struct):
    status: int
    headers: list[Header]
    """All but the content-length."""
    body: bytes = b""


# Results ----------------------------------------------------------------------------------------------------------


def ended(end: Ended, door: Door | None) -> Response:
    """The result of an invocation as its handler's output says; without a door, as its bytes look."""
    result = end.result
    headers = [_restate_id(end.id)]
    if end.expires:
        headers.append((b"idempotency-expires", _moment(end.expires).encode()))
    if isinstance(result, Failure):
        return _failed(result, headers)
    content = result.content
    content_type = _guess(content) if door is None else door.content_type(content)
    if content_type is not None:
        headers.append(content_type)
    return Response(200, headers, content)


def _failed(failure: Failure, headers: list[Header]) -> Response:
    """A terminal error is the handler's word to its caller; as a status only what HTTP knows as an error."""
    status = failure.code if 400 <= failure.code < 600 else 500
    problem = Problem(failure.code, failure.message, "invocation", metadata=dict(failure.metadata))
    return Response(status, [*headers, JSON, BY_INVOCATION], _encode(problem))


def _guess(content: bytes) -> Header | None:
    if not content:
        return None
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return OCTETS
    return JSON


def accepted(answer: Accepted, due: int) -> Response:
    """A send that is durable; `due` is 0 or milliseconds since the epoch."""
    body = {"invocationId": format_id(answer.id), "status": "Accepted" if answer.is_new else "PreviouslyAccepted"}
    if due and answer.is_new:
        body["executionTime"] = _moment(due)
    return Response(202, [JSON, _restate_id(answer.id)], _encode(body))


def found(id: bytes) -> Response:
    return Response(200, [JSON, _restate_id(id)], _encode({"invocationId": format_id(id)}))


SIGNALLED = Response(202, [])


def json(value: Any) -> Response:
    return Response(200, [JSON], _encode(value))


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _restate_id(id: bytes) -> Header:
    return (b"x-restate-id", format_id(id).encode())


# Errors -----------------------------------------------------------------------------------------------------------


class Problem(Struct, omit_defaults=True):
    """The body of every error."""

    code: int
    message: str
    source: str
    """`invocation`: the handler ended with it. `ingress`: it was never asked, or its answer cannot be had."""
    hint: str = ""
    metadata: dict[str, str] = {}


class Told(Struct):
    """How an error is told: with its own words, unless these are not for callers."""

    status: int
    message: str | None = None
    hint: str | None = None
    headers: tuple[Header, ...] = ()


IDEMPOTENT = "It may have been accepted: with an idempotency-key it can be sent again without harm."

ERRORS: dict[type[Exception], Told] = {
    CommandRefused: Told(400),
    TooLarge: Told(413),
    UnknownService: Told(404),
    UnknownHandler: Told(404),
    UnknownInvocation: Told(404),
    NotServed: Told(503, headers=((b"retry-after", b"5"),)),
    Overloaded: Told(503, headers=((b"retry-after", b"1"),)),
    Disconnected: Told(503, "The database cannot be reached at the moment.", IDEMPOTENT),
    DatabaseError: Told(500, "The database refused this; the log of the ingress says why.", ""),
}
UNFORESEEN = Told(500, "Something is wrong in the ingress; its log says what.", "")


def refused(error: Exception) -> Response:
    """The answer to any error; what is nobody's fault but ours is logged."""
    if isinstance(error, Refused):
        told = Told(error.status, headers=error.headers)
    else:
        told = ERRORS.get(type(error), UNFORESEEN)
    if told.status == 500:
        log.error("a request failed", exc_info=error)
    message = str(error) if told.message is None else told.message
    hint = getattr(error, "hint", "") if told.hint is None else told.hint
    return problem(told.status, message, hint, told.headers)


def problem(status: int, message: str, hint: str = "", headers: tuple[Header, ...] = ()) -> Response:
    return Response(status, [JSON, BY_INGRESS, *headers], _encode(Problem(status, message, "ingress", hint)))


def not_ready(id: bytes) -> Response:
    response = problem(470, "The invocation has not ended yet.", "Ask again later, or use /attach to wait for it.")
    response.headers.append(_restate_id(id))
    return response


STOPPING = problem(
    503, "The ingress is stopping; what it had accepted goes on.", IDEMPOTENT, ((b"connection", b"close"),)
)
