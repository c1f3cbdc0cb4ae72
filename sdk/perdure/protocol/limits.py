"""Limits: how large things may be. What is larger is refused whole, in words that name the limit and its setting."""

from __future__ import annotations

from msgspec import Struct

MIB = 2**20
TOO_LARGE = 413
"""The code of the terminal error."""


class Limits(Struct, frozen=True):
    """Bytes, each with the setting that changes it; a name's is the database's own."""

    payload: int = 10 * MIB
    """What a handler is called with."""
    result: int = 10 * MIB
    """What a handler, or a function in `ctx.run`, gives."""
    value: int = MIB
    """One value of an object; all of them are in memory while its key is at work."""
    journal: int = 64 * MIB
    """All that one invocation was told and did; each attempt reads it from the beginning."""
    name: int = 512
    """The key of an object, the name of a value, an idempotency key: an index row holds no more."""


SETTINGS = {
    "payload": "PERDURE_LARGEST_PAYLOAD",
    "result": "PERDURE_LARGEST_RESULT",
    "value": "PERDURE_LARGEST_VALUE",
    "journal": "PERDURE_LARGEST_JOURNAL",
}
DEFAULTS = Limits()


def excess(what: str, size: int, limit: str, limits: Limits) -> str:
    """What to say of something that is larger than it may be.

    >>> excess("The argument of Greeter/greet", 10485761, "payload", Limits())
    'The argument of Greeter/greet has 10485761 bytes, and may have 10485760 (PERDURE_LARGEST_PAYLOAD).'
    >>> excess("The name of a value", 600, "name", Limits())
    'The name of a value has 600 bytes, and may have 512.'
    """
    setting = f" ({SETTINGS[limit]})" if limit in SETTINGS else ""
    return f"{what} has {size} bytes, and may have {getattr(limits, limit)}{setting}."
