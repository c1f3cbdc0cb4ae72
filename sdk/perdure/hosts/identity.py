"""Identity: whether a request comes from the runtime that it is meant to come from.

The runtime signs each request with an Ed25519 key, and the service knows the public halves of the keys that it trusts.
Several may be trusted at once, so that a key is changed without a moment in which nobody is.
"""

from __future__ import annotations

import binascii
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from perdure.errors import UsageError

PREFIX = "publickeyv1_"
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
SCHEME = "v1"


class Refused(Exception):
    """The request is not signed as it must be; the message says why, for the service's own log."""


class _Header(Struct):
    alg: str
    kid: str


class _Claims(Struct):
    aud: str
    exp: int
    nbf: int


class Identity:
    """The public keys that are trusted, as `publickeyv1_…`; none: every request is.

    >>> key = "publickeyv1_ChjENKeMvCtRnqG2mrBK1HmPKufgFUc98K8B3ononQvp"
    >>> Identity([key]).check("/discover", {})
    Traceback (most recent call last):
        ...
    perdure.hosts.identity.Refused: The request is not signed.
    """

    def __init__(self, keys: Sequence[str], *, clock: Callable[[], float] = time.time) -> None:
        self._keys = {key: _verifier(key) for key in keys}
        self._clock = clock

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Raises Refused. `path` is what is signed: without the prefix under which the service is mounted."""
        if not self._keys:
            return
        token = headers.get("x-restate-jwt-v1")
        if headers.get("x-restate-signature-scheme") != SCHEME or token is None:
            raise Refused("The request is not signed.")
        try:
            signed, _, signature = token.rpartition(".")
            head, _, body = signed.partition(".")
            header = msgspec.json.decode(_unbase64(head), type=_Header)
            claims = msgspec.json.decode(_unbase64(body), type=_Claims)
            proof = _unbase64(signature)
        except (msgspec.DecodeError, binascii.Error, ValueError) as error:
            raise Refused(f"Its signature is malformed: {error}.") from error
        verify = self._keys.get(header.kid)
        if header.alg != "EdDSA" or verify is None:
            raise Refused(f"It is signed with {header.kid}, which is not trusted here.")
        if not verify(proof, signed.encode()):
            raise Refused("Its signature is not that of the key.")
        if claims.aud != path:
            raise Refused(f"It is signed for {claims.aud}, and not for {path}.")
        if not claims.nbf <= self._clock() <= claims.exp:
            raise Refused("Its signature has expired, or is not valid yet: are the clocks right?")


def _verifier(key: str) -> Callable[[bytes, bytes], bool]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise UsageError("To check who asks, install cryptography: pip install 'perdure[identity]'.") from error
    if not key.startswith(PREFIX):
        raise UsageError(f"{key!r} is no public key of a runtime: it begins with {PREFIX}.")
    try:
        public = Ed25519PublicKey.from_public_bytes(_unbase58(key.removeprefix(PREFIX)))
    except ValueError as error:
        raise UsageError(f"{key!r} is no public key of a runtime: {error}") from error

    def verify(signature: bytes, signed: bytes) -> bool:
        try:
            public.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return verify


def _unbase58(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * 58 + ALPHABET.index(character)
    zeros = len(text) - len(text.lstrip(ALPHABET[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _unbase64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
