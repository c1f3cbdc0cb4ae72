"""Edits: what a person wants an object's values to be, as an invocation of its key that needs no handler.

It waits in the key's inbox like any other, and is carried out by the engine that leases the key: so it never comes
between the steps of a running handler, and what the engine has in memory stays what the database has.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from perdure.protocol.limits import Limits, excess
from perdure.protocol.messages import ClearState, End, Failure, Message, Output, SetState, Value
from runtime.core.invocation import Mode
from runtime.core.lifecycle import TooLarge, check_key
from runtime.core.registry import HandlerInfo, ServiceInfo
from runtime.core.retry import OnMaxAttempts, RetryPolicy
from runtime.errors import RuntimeFault

HANDLER = "state.edit"
"""The name of what stands in for the handler; with a dot, which no handler's name has."""
VERSION = "version"
"""Under which an edit's end says what the values' version is then: in its result, or beside its failure."""
CONFLICT = 409
"""The failure of an edit that expected another version."""


class NoEdit(RuntimeFault):
    """An invocation's input is not what an edit of this version says."""

    code = "no_edit"


class Edit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be changed, and in whose name."""

    by: str
    """An actor's name."""
    expected: str | None = None
    """The version that the values must have; None: whatever they are."""
    set: dict[str, bytes] = {}
    clear: list[str] = []
    replaces: bool = False
    """All values that are not set are cleared."""
    version_key: bytes = b""
    """What versions are made with: whoever is shown one must not find out values by trying."""

    def check(self, limits: Limits) -> None:
        """Raises CommandRefused for names that no value can have, TooLarge for values of a size that none may have."""
        for name in (*self.set, *self.clear):
            check_key(name, "The name of a value")
        for name, value in self.set.items():
            if len(value) > limits.value:
                raise TooLarge(excess(f"The value {name!r}", len(value), "value", limits))
        size = sum(map(len, self.set.values()))
        if size > limits.payload:
            raise TooLarge(excess("What is set", size, "payload", limits))


def version(values: Mapping[str, bytes], key: bytes = b"") -> str:
    """What tells an object's values from others: a digest, so that nobody must count changes.

    Without the key nobody can tell which values it is of.

    >>> version({"a": b"1", "b": b"2"}) == version({"b": b"2", "a": b"1"}) != version({"a": b"1"})
    True
    """
    digest = hmac.new(key, digestmod="sha256")
    for name, value in sorted(values.items()):
        for part in (name.encode(), value):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()[:32]


def encode(edit: Edit) -> bytes:
    return msgspec.json.encode(edit)


def decode(content: bytes) -> Edit:
    """Raises NoEdit."""
    try:
        return msgspec.json.decode(content, type=Edit)
    except msgspec.MsgspecError as error:
        raise NoEdit(f"This is no edit: {error}.") from error


def carry_out(edit: Edit, values: Mapping[str, bytes]) -> list[Message]:
    """What an attempt would emit that finds these values: the changes, and the end."""
    present = version(values, edit.version_key)
    if edit.expected not in (None, present):
        failure = Failure(CONFLICT, f"The values have changed: their version is {present}.", ((VERSION, present),))
        return [Output(failure), End()]
    wanted = dict(edit.set) if edit.replaces else {**values, **edit.set}
    for name in edit.clear:
        wanted.pop(name, None)
    changes: list[Message] = [ClearState(name) for name in values if name not in wanted]
    changes += [SetState(name, Value(value)) for name, value in wanted.items() if values.get(name) != value]
    return [*changes, Output(Value(msgspec.json.encode({VERSION: version(wanted, edit.version_key)}))), End()]


def handler(service: ServiceInfo) -> HandlerInfo:
    """Stands in for a handler of an object. What an edit asks for is taken or refused once: no other try is better.

    It goes through the queue of the service's own handlers, and is remembered as long as they are.
    """
    own = [one for one in service.handlers.values() if one.mode is Mode.EXCLUSIVE] or [*service.handlers.values()]
    return HandlerInfo(
        service.name,
        HANDLER,
        Mode.EXCLUSIVE,
        service.deployment,
        queue=own[0].queue,
        retry=RetryPolicy(max_attempts=1, on_max_attempts=OnMaxAttempts.KILL),
        retention=max(one.retention for one in own),
        keeps_history=True,
        validate=False,
    )
