"""A door: a handler as callers see it, what it takes and what it gives."""

from __future__ import annotations

from functools import cached_property

from runtime.core.registry import HandlerInfo
from runtime.ingress.locks import Lock
from runtime.ingress.refused import Refused
from runtime.ingress.schemas import Schema

Header = tuple[bytes, bytes]
ANYTHING = "*/*"


class Door:
    """Made once per handler and registry; what costs time is made when it is first needed."""

    def __init__(self, handler: HandlerInfo, lock: Lock | None = None) -> None:
        self.handler = handler
        self.lock = lock
        """What a caller must open with a key; None: nothing."""
        self._is_required = bool(handler.input.get("required"))
        wanted = handler.input.get("contentType")
        self._wanted = ANYTHING if wanted is None and self._is_required else wanted
        self._wanted_bytes = None if self._wanted is None else self._wanted.encode()
        self._has_schema = "jsonSchema" in handler.input
        given = handler.output.get("contentType")
        self._given: Header | None = None if given is None else (b"content-type", given.encode())
        self._given_if_empty = self._given if handler.output.get("setContentTypeIfEmpty") else None

    def __str__(self) -> str:
        return f"{self.handler.service}/{self.handler.name}"

    @cached_property
    def _schema(self) -> Schema | None:
        if not (self._has_schema and self.handler.validate):
            return None
        return Schema(self.handler.input["jsonSchema"], str(self))

    def content_type(self, result: bytes) -> Header | None:
        """The content-type of a result."""
        return self._given if result else self._given_if_empty

    def check_as_wanted(self, body: bytes, *, quoting: bool = True) -> None:
        """As `check`, for a body that comes without a content type."""
        self.check(self._wanted_bytes, body, quoting=quoting)

    def check(self, content_type: bytes | None, body: bytes, *, quoting: bool = True) -> None:
        """Raises Refused for an input that the handler can never take; `quoting`: whoever reads why may see it."""
        if not body and not self._is_required:
            return
        if self._wanted is None:
            raise Refused(400, f"{self} takes no input: a body is not expected.")
        if content_type != self._wanted_bytes and not _matches(content_type, self._wanted):
            raise self._wrong_type(content_type)
        if not body:
            if self._has_schema:
                raise Refused(400, f"{self} needs an input: the body is empty.")
        elif self._schema is not None and _is_json(content_type):
            problem = self._schema.problem(body, quoting=quoting)
            if problem is not None:
                hint = f"GET /restate/openapi/{self.handler.service} shows the schema."
                raise Refused(400, f"The input does not fit {self}: {problem}.", hint)

    def _wrong_type(self, content_type: bytes | None) -> Refused:
        hint = f"Send it with the header `content-type: {self._wanted}`."
        if content_type is None:
            return Refused(400, f"{self} takes {self._wanted}, and the content-type is missing.", hint)
        found = content_type.decode("latin-1")
        return Refused(400, f"The content-type {found!r} does not match {self._wanted!r}, which {self} takes.", hint)


def _matches(content_type: bytes | None, wanted: str) -> bool:
    """Whether a content type, its parameters aside, is the wanted one or falls under it (`*/*`, `text/*`)."""
    if wanted == ANYTHING:
        return True
    if content_type is None:
        return False
    found, expected = _media_type(content_type.decode("latin-1")), _media_type(wanted)
    return found == expected or (expected.endswith("/*") and found.startswith(expected[:-1]))


def _is_json(content_type: bytes | None) -> bool:
    if content_type == b"application/json":
        return True
    media_type = _media_type((content_type or b"").decode("latin-1"))
    return media_type == "application/json" or media_type.endswith("+json")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
