"""Keys with which callers may call a service: what of them is kept, and how one is told from others."""

from __future__ import annotations

from hashlib import sha256


def digest(key: bytes) -> bytes:
    """All that is kept of a key. Keys are long and random, so nobody finds one by trying: a plain hash will do."""
    return sha256(key).digest()


def bearer(authorization: bytes) -> bytes | None:
    """The key in an Authorization header; None: there is none.

    >>> bearer(b"Bearer pk_1"), bearer(b"Basic Zm9v")
    (b'pk_1', None)
    """
    scheme, _, key = authorization.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None
