"""The address of a deployment: a URL taken apart once, and written in one way only."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from msgspec import Struct

from runtime.outbound.faults import BadAddress

LONGEST = 2000
PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")


class Address(Struct, frozen=True):
    """Where a deployment is."""

    scheme: str
    host: str
    port: int
    path: str
    """What stands before `/invoke` and `/discover`: empty, or begins with a slash and ends without one."""

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """As it stands in the URL and in the request.

        >>> Address("http", "::1", 9080, "").authority, Address("https", "a.b", 443, "").authority
        ('[::1]:9080', 'a.b')
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises BadAddress, in words.

        >>> Address.parse("HTTP://Greeter:80/v1/").url
        'http://greeter/v1'
        """
        said = repr(url[:200])
        if len(url) > LONGEST:
            raise BadAddress(f"A URL of {len(url)} characters is too long: {LONGEST} are the most.")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise BadAddress(f"{said} has characters that a URL may not have.")
        if "://" not in url:
            raise BadAddress(f"{said} has no scheme.", hint=f"Did you mean http://{url[:200]}?")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadAddress(f"{said} is no URL: {error}.") from error
        if parts.scheme not in PORTS:
            raise BadAddress(
                f"{said} begins with {parts.scheme}://, and only http:// and https:// lead to deployments."
            )
        if "@" in parts.netloc:
            raise BadAddress(
                "A URL with a user name or password in it would be shown to everybody.",
                hint='Send it as a header, as in "additional_headers": {"authorization": "Bearer ..."}.',
            )
        if parts.query or parts.fragment or url.endswith(("?", "#")):
            raise BadAddress(f"{said} has a query or a fragment, to which nothing can be added.")
        host = parts.hostname or ""
        if not HOST.fullmatch(host) or port == 0:
            raise BadAddress(f"{said} names no host, or none that can be.")
        path = parts.path.rstrip("/")
        if not PATH.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
            raise BadAddress(f"{said} has a path that a deployment cannot be under.")
        return cls(parts.scheme, host, port or PORTS[parts.scheme], path)
