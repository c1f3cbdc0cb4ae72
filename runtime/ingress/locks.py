"""A lock: whoever calls a service that has keys must show one of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from runtime.core.callers import bearer, digest
from runtime.ingress.refused import Refused

HINT = "Send a key of the service with the header `authorization: Bearer …`; who runs this Perdure gives keys out."


class Lock:
    """Made once per service that has keys, and registry."""

    def __init__(self, service: str, digests: Collection[bytes]) -> None:
        self._service = service
        self._digests = digests

    def open(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises Refused for whoever shows none of the keys."""
        key = next((bearer(value) for name, value in headers if name == b"authorization"), None)
        if key is None:
            raise self._refusal(f"{self._service} is called with a key.", b"Bearer")
        if digest(key) not in self._digests:
            raise self._refusal(f"This is no key of {self._service}.", b'Bearer error="invalid_token"')

    def _refusal(self, message: str, challenge: bytes) -> Refused:
        return Refused(401, message, HINT, ((b"www-authenticate", challenge),))
