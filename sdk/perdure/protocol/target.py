"""The address of a handler."""

from __future__ import annotations

from msgspec import Struct


class Target(Struct, frozen=True):
    """Which handler, of which service; `key` names the object, where there are objects.

    >>> str(Target("Mailbox", "put", "Mary"))
    'Mailbox/Mary/put'
    """

    service: str
    handler: str
    key: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.service, self.key, self.handler) if part is not None)
