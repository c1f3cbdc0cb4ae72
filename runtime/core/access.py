"""Who asks, and what they may: actors and their roles, as values."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Role(IntEnum):
    """What an actor may do; each may what those below it may.

    >>> Role.OPERATOR >= Role.VIEWER
    True
    """

    VIEWER = 1  # sees
    OPERATOR = 2  # acts on invocations, scheduled sends and state
    ADMIN = 3  # registers, configures, looks after people and tokens


class Actor(Struct, frozen=True):
    """Whoever asks for something, as the audit log names them."""

    name: str
    role: Role
    origin: str
    """Where the request came from: an address, or `shell`."""
    sees_payloads: bool = True
    services: frozenset[str] | None = None
    """The only services that this actor may see and touch; None: all."""

    def may_touch(self, service: str) -> bool:
        return self.services is None or service in self.services
