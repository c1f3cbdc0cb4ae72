"""Ids of invocations: 16 bytes inside, `inv_1` and 22 base62 characters outside; and of awakeables, made of those.

Fresh ids are time-ordered (48 bits of milliseconds, then randomness), so that they fill an index from one end.
An idempotent call's id, and that of a workflow's run, is a pure function of what it names: same idempotency key, same
invocation.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from perdure.errors import InvalidAwakeableId, InvalidInvocationId

PREFIX = "inv_1"
LENGTH = 22  # base62 digits that hold 128 bits
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGIT = {character: value for value, character in enumerate(ALPHABET)}
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]  # two digits at a time: half the divisions


def fresh_id(now_ms: int, randomness: int) -> bytes:
    """An id for a new invocation; `randomness` is 80 bits from the caller.

    >>> fresh_id(1, 2).hex()
    '00000000000100000000000000000002'
    """
    return ((now_ms & 0xFFFFFFFFFFFF) << 80 | randomness & ((1 << 80) - 1)).to_bytes(16, "big")


def idempotent_id(service: str, key: str | None, handler: str, idempotency_key: str) -> bytes:
    """The id of the one invocation that this idempotency key may start.

    >>> idempotent_id("Greeter", None, "greet", "order-1") == idempotent_id("Greeter", None, "greet", "order-1")
    True
    """
    return _digest(["ik", service, *([] if key is None else [key]), handler, idempotency_key])


def workflow_id(name: str, key: str) -> bytes:
    """The id of a workflow's one run under this key.

    >>> workflow_id("Signup", "mary") == workflow_id("Signup", "john")
    False
    """
    return _digest(["wf", name, key])


def _digest(parts: list[str]) -> bytes:
    # A length before each part: joined by a bare separator, ("a,b", "c") and ("a", "b,c") would be one.
    encoded = (part.encode() for part in parts)
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in encoded)).digest()[:16]


def format_id(id: bytes) -> str:
    """The id as people and programs write it.

    >>> format_id(bytes(16))
    'inv_10000000000000000000000'
    """
    number = int.from_bytes(id, "big")
    pairs: list[str] = []
    for _ in range(LENGTH // 2):
        number, pair = divmod(number, 3844)
        pairs.append(_PAIRS[pair])
    return PREFIX + "".join(reversed(pairs))


def parse_id(text: str) -> bytes:
    """The 16 bytes of a written id; raises InvalidInvocationId.

    >>> parse_id(format_id(bytes(range(16)))) == bytes(range(16))
    True
    """
    digits = text.removeprefix(PREFIX)
    if len(digits) != LENGTH or len(text) != LENGTH + len(PREFIX):
        raise InvalidInvocationId(text)
    number = 0
    for digit in digits:
        if digit not in _DIGIT:
            raise InvalidInvocationId(text)
        number = number * 62 + _DIGIT[digit]
    if number >> 128:
        raise InvalidInvocationId(text)
    return number.to_bytes(16, "big")


AWAKEABLE_PREFIX = "sign_1"
FIRST_AWAKEABLE = 17
"""Awakeables are signals with numbers from here on."""


def format_awakeable(invocation_id: bytes, number: int) -> str:
    """The id of the awakeable that is this invocation's signal with that number, as it is told to others.

    >>> format_awakeable(bytes(16), FIRST_AWAKEABLE)
    'sign_1AAAAAAAAAAAAAAAAAAAAAAAAABE'
    """
    return AWAKEABLE_PREFIX + urlsafe_b64encode(invocation_id + number.to_bytes(4, "big")).rstrip(b"=").decode()


def parse_awakeable(text: str) -> tuple[bytes, int]:
    """The invocation and the number of its signal; raises InvalidAwakeableId.

    >>> parse_awakeable(format_awakeable(bytes(range(16)), 18)) == (bytes(range(16)), 18)
    True
    """
    encoded = text.removeprefix(AWAKEABLE_PREFIX)
    try:
        content = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError) as error:
        raise InvalidAwakeableId(text) from error
    if len(content) != 20 or format_awakeable(content[:16], number := int.from_bytes(content[16:], "big")) != text:
        raise InvalidAwakeableId(text)
    return content[:16], number
