"""Acts: what an actor did, or was denied, for the audit log."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from runtime.core.access import Actor
from runtime.core.lifecycle import storable


class Act(Struct, frozen=True):
    """Something that an actor asks for; what came of it is noted beside it, in the transaction that does it."""

    actor: Actor
    verb: str
    """As in `invocation.cancel`: the kind of thing, then what is done to it."""
    target: str
    """The id or name of the thing."""
    details: dict[str, Any] = {}
    """What else was said: never a payload, never a secret."""

    @property
    def described(self) -> str:
        """The details as JSON that PostgreSQL takes."""
        return msgspec.json.encode(_storable(self.details)).decode()


def _storable(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable(name): _storable(item) for name, item in value.items()}
        case list() | tuple():
            return [_storable(item) for item in value]
        case _:
            return value
