"""Deployments behind a URL, as engines need to know them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

OLDEST_PROTOCOL, NEWEST_PROTOCOL = 5, 7
"""Versions of the invocation protocol that engines speak."""


class HttpVersion(StrEnum):
    """Which HTTP a deployment is driven over: the one in which it was discovered."""

    HTTP_1_1 = "HTTP/1.1"
    HTTP_2 = "HTTP/2"


class Reached(Struct, frozen=True):
    """How code behind a URL is reached, and what it said of itself besides its manifest."""

    http_version: HttpVersion
    protocol_version: int
    sdk: str | None = None
    headers: Mapping[str, str] | None = None
    """Secrets. None: those that are kept of it already."""
    metadata: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"Reached({self.http_version}, V{self.protocol_version})"


class HttpDeployment(Struct, frozen=True):
    """Code behind a URL."""

    id: str
    url: str
    http_version: HttpVersion
    protocol_version: int
    """Of the invocation protocol; chosen at registration, and then for ever."""
    protocol_mode: str
    """BIDI_STREAM or REQUEST_RESPONSE."""
    headers: Mapping[str, str]
    """What is sent to it with every request. Secrets: never shown, never logged."""
    manifest: bytes

    @property
    def is_streaming(self) -> bool:
        """Whether it is driven on streams; over HTTP/1.1 that is never so, whatever it offers."""
        return self.protocol_mode == "BIDI_STREAM" and self.http_version is HttpVersion.HTTP_2

    def __repr__(self) -> str:
        return f"HttpDeployment({self.id!r}, {self.url!r})"
