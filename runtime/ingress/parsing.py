"""A request: what a caller wants, read from method, path, query and headers. Values only: nothing is awaited here.

Every request becomes a value, also one that must be refused. Of its headers the handler gets all but those that say
how it travelled (HOP, FORWARDED) and who sent it (SECRETS): what is passed on is journaled. One is added, the path.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from perdure.protocol.messages import Header
from runtime.core.delays import BadDelay, read_delay
from runtime.core.registry import UnknownHandler, UnknownService
from runtime.ingress.paths import Call, Destination, Find, Paths, Send, Verb, no_scopes, read_id
from runtime.ingress.refused import Refused

LONGEST_PATH = 8 * 1024
LONGEST_QUERY = 8 * 1024
MOST_HEADERS = 100
MOST_HEADER_BYTES = 64 * 1024

RawHeaders = list[tuple[bytes, bytes]]

HOP = {b"connection", b"forwarded", b"host", b"idempotency-expires", b"transfer-encoding"}
FORWARDED = (b"x-forwarded-", b"proxy-")
SECRETS = {b"authorization", b"cookie"}
INGRESS_PATH = "x-restate-ingress-path"
"""What the handler may read of the way its caller came: path and query, as they were sent."""
DROPPED = HOP | SECRETS | {INGRESS_PATH.encode()}
READ = {b"content-type", b"content-length", b"idempotency-key", b"x-restate-limit-key"}


class Submit(Struct):
    """A call or a send, all but its body."""

    to: Call
    headers: tuple[Header, ...]
    idempotency_key: str | None
    content_type: bytes | None
    length: int
    """Of the body, as announced; 0: nothing was said."""
    delay: int = 0
    """Milliseconds."""


Request = Submit | Destination
Fault = Refused | UnknownService | UnknownHandler


def parse(method: str, path: bytes, query: bytes, headers: RawHeaders, paths: Paths) -> Request | Fault:
    """What is asked for, or what is wrong with it."""
    try:
        if len(path) > LONGEST_PATH or len(query) > LONGEST_QUERY:
            raise Refused(414, f"Path and query may have {LONGEST_PATH} bytes each.")
        destination = paths.find(path)
        if method not in destination.methods:
            raise _wrong_method(method, destination)
        if not isinstance(destination, Call):
            return destination
        submit = _read_headers(headers, destination, b"%b?%b" % (path, query) if query else path)
        if query:
            submit.delay = _read_query(query, destination)
    except (Refused, UnknownService, UnknownHandler) as fault:
        return fault
    return submit


def _wrong_method(method: str, destination: Destination) -> Refused:
    allowed = ", ".join(destination.methods)
    message = f"{method[:20]} is not answered here, only {allowed}."
    return Refused(405, message, headers=((b"allow", allowed.encode()),))


def _read_headers(raw: RawHeaders, destination: Call, at: bytes) -> Submit:
    if len(raw) > MOST_HEADERS:
        raise _too_many()
    passed = [Header(INGRESS_PATH, at.decode("latin-1"))]
    idempotency_key = content_type = None
    size = length = 0
    for name, value in raw:
        if name in READ:
            if name == b"content-length":
                length = _read_length(value)
                continue
            if name == b"idempotency-key":
                idempotency_key = _read_idempotency_key(value)
                continue
            if name == b"x-restate-limit-key":
                raise no_scopes()
            content_type = value
        elif name in DROPPED or name.startswith(FORWARDED):
            continue
        size += len(name) + len(value)
        passed.append(Header(name.decode("latin-1"), value.decode("latin-1")))
    if size > MOST_HEADER_BYTES:
        raise _too_many()
    return Submit(destination, tuple(passed), idempotency_key, content_type, length)


def _too_many() -> Refused:
    return Refused(431, f"A request may have {MOST_HEADERS} headers of {MOST_HEADER_BYTES} bytes together.")


def _read_length(value: bytes) -> int:
    if not (value.isdigit() and len(value) < 20):
        raise Refused(400, "The content-length is not a number of bytes.")
    return int(value)


def _read_idempotency_key(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused(400, "The idempotency-key is not valid UTF-8.") from None


def _read_query(query: bytes, destination: Call) -> int:
    """The delay in milliseconds, which is all that a query may say."""
    parameters = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    if "limit-key" in parameters:
        raise no_scopes()
    if unknown := parameters.keys() - {"delay"}:
        raise Refused(
            400, f"There is no query parameter {min(unknown)[:50]!r}.", "A send takes `delay`, as in /send?delay=5s."
        )
    if not isinstance(destination, Send):
        raise Refused(400, "A call cannot be delayed, for its caller waits.", "Append /send to the path.")
    try:
        return read_delay(parameters["delay"])
    except BadDelay as error:
        raise Refused(400, str(error), error.hint) from error


def read_reason(body: bytes) -> str:
    """Why an awakeable is rejected; raises Refused."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        hint = "The body is plain text: whoever waits reads it."
        raise Refused(400, "The reason is not valid UTF-8.", hint) from None


# An invocation named by a body ------------------------------------------------------------------------------------


class _Target(Struct, tag_field="target", rename="camel", kw_only=True):
    scope: str | None = None


class _Invocation(_Target, tag="invocation", kw_only=True):
    invocation_id: str


class _Workflow(_Target, tag="workflow", kw_only=True):
    workflow_name: str
    workflow_key: str


class _Once(_Target, tag="idempotentInvocation", kw_only=True):
    service: str
    handler: str
    idempotency_key: str
    key: str | None = None


_read_target = msgspec.json.Decoder(_Invocation | _Workflow | _Once).decode


def parse_target(verb: Verb, body: bytes, paths: Paths) -> Find:
    """The invocation that the body of an attach, output or lookup names; raises Refused."""
    try:
        target: Any = _read_target(body)
    except (ValueError, RecursionError) as error:
        raise Refused(
            400,
            f"The body names no invocation: {error}.",
            'Send {"target": "invocation", "invocationId": "inv_…"}, or {"target": "workflow", "workflowName": "…", '
            '"workflowKey": "…"}, or {"target": "idempotentInvocation", "service": "…", "handler": "…", '
            '"idempotencyKey": "…"} with the "key" of an object.',
        ) from None
    if target.scope is not None:
        raise no_scopes()
    match target:
        case _Invocation():
            return Find(verb, read_id(target.invocation_id))
        case _Workflow():
            return paths.find_run(verb, target.workflow_name, target.workflow_key)
        case _:
            return paths.find_once(verb, target.service, target.key, target.handler, target.idempotency_key)
