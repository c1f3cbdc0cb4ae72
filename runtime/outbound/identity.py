"""Identity: what shows a deployment that a request is ours, signed anew for each path.

A service that knows the public key refuses what anybody else asks of it. The key is read again when its file changes,
so it can be exchanged while everything runs: let the services know both public keys, put the new file in place, then
let them forget the old one.
"""

from __future__ import annotations

import json
import logging
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from runtime.conf import SettingError, Settings
from runtime.outbound.exchange import Header

logger = logging.getLogger(__name__)

KEEPS = 10.0
"""Seconds for which the signature of a path is used again. Services take it for 60, from a minute ago on."""
LEEWAY = 60
LOOKS = 1.0
"""Seconds between two looks at the file."""
MOST_PATHS = 1000
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Identity:
    """The private key in a file, and what is signed with it."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises SettingError."""
        self._path = path
        self._clock = clock
        self._looked_at = 0.0
        self._is_spoilt = False
        self._stamp: tuple[int, int] | None = None
        self._signed: dict[str, tuple[float, tuple[Header, ...]]] = {}
        try:
            self._read()
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise SettingError("PERDURE_IDENTITY", str(path), f"{WANTED} ({_short(error)})") from None

    @classmethod
    def of(cls, settings: Settings) -> Identity | None:
        """As the settings say; raises SettingError."""
        return None if settings.identity is None else cls(settings.identity)

    @property
    def public_key(self) -> str:
        """As it is told to services."""
        self._look()
        return self._public

    def sign(self, path: str) -> tuple[Header, ...]:
        """The headers for a request of this path, which begins with `/invoke` or is `/discover`."""
        self._look()
        now = self._clock()
        known = self._signed.get(path)
        if known is None or not 0 <= now - known[0] < KEEPS:
            if len(self._signed) >= MOST_PATHS:
                self._signed.clear()
            known = self._signed[path] = (now, self._headers(path, int(now)))
        return known[1]

    def _headers(self, path: str, now: int) -> tuple[Header, ...]:
        head = {"typ": "JWT", "alg": "EdDSA", "kid": self._public}
        claims = {"aud": path, "exp": now + LEEWAY, "iat": now, "nbf": now - LEEWAY}
        said = f"{_part(json.dumps(head).encode())}.{_part(json.dumps(claims).encode())}"
        token = f"{said}.{_part(self._key.sign(said.encode()))}"
        return (("x-restate-signature-scheme", "v1"), ("x-restate-jwt-v1", token))

    def _look(self) -> None:
        """Read the key again if its file is another one."""
        now = self._clock()
        if 0 <= now - self._looked_at < LOOKS:
            return
        self._looked_at = now
        try:
            self._read()
            self._is_spoilt = False
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            if not self._is_spoilt:
                logger.error("%s is no longer %s (%s): the last key is used on", self._path, WANTED, _short(error))
            self._is_spoilt = True

    def _read(self) -> None:
        found = self._path.stat()
        if (stamp := (found.st_mtime_ns, found.st_ino)) == self._stamp:
            return
        key = load_pem_private_key(self._path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("it is for another algorithm")
        self._stamp = stamp
        self._key = key
        self._public = public_key(key)
        self._signed.clear()


WANTED = "a PEM file with one private key for Ed25519, as `openssl genpkey -algorithm ed25519` makes"


def make_key(file: Path) -> None:
    """Write a new private key, for its owner only; raises OSError, FileExistsError among them."""
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(key)


def public_key(key: Ed25519PrivateKey) -> str:
    """The public half of a key, as services write it down."""
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"publickeyv1_{base58(raw)}"


def base58(data: bytes) -> str:
    """
    >>> base58(bytes([0, 0, 1, 2]))
    '115T'
    """
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(BASE58[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def _part(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _short(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:200]
