"""What operators may do to an object's values, whichever face they come through; each act is in the audit log."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct

from perdure.protocol.ids import format_id
from perdure.protocol.messages import Failure, Input, Value
from runtime.conf import settings
from runtime.core import edits
from runtime.core.access import Actor
from runtime.core.audit import Act
from runtime.core.changes import Creation
from runtime.core.edits import VERSION, Edit
from runtime.core.lifecycle import CommandRefused, new_invocation
from runtime.core.registry import HandlerInfo
from runtime.errors import DatabaseError
from runtime.operations import Operations
from runtime.store import edits as store
from runtime.store.commit import Receipt

PATIENCE = 2.0
"""Seconds for which an edit's turn is waited for, unless it is said otherwise."""


class Edited(Struct, frozen=True):
    """What has come of an edit."""

    id: bytes
    """The invocation that it is."""
    version: str | None = None
    """Of the values now; None: it waits for its turn, or has failed for another reason."""
    failure: Failure | None = None
    """With a version: the values had another one than was expected."""

    @property
    def is_under_way(self) -> bool:
        return self.version is None and self.failure is None


async def edit(
    here: Operations, service: str, key: str, wanted: Edit, by: Actor, *, patience: float = PATIENCE
) -> Edited:
    """Change an object's values when its key's turn comes; waits for that no longer than `patience`.

    Raises UnknownService, CommandRefused, Disconnected, DatabaseError.
    """
    handler = await _handler(here, service)
    wanted.check(here.limits)
    wanted = msgspec.structs.replace(wanted, version_key=settings().version_key(service, key))
    new = new_invocation(handler, key, here.new_id(), Input(Value(edits.encode(wanted))))
    creation = Creation(new)
    receipt = await _submit(here, creation, handler, _act(by, new.id, service, key, wanted))
    here.announce(creation, receipt)
    try:
        async with asyncio.timeout(patience):
            ended = await here.attach(new.id)
    except TimeoutError:
        return Edited(new.id)
    if isinstance(ended.result, Value):
        return Edited(new.id, msgspec.json.decode(ended.result.content)[VERSION])
    return Edited(new.id, dict(ended.result.metadata).get(VERSION), ended.result)


async def _handler(here: Operations, service: str) -> HandlerInfo:
    """What stands in for a handler. Raises UnknownService, CommandRefused."""
    if service not in here.registry.services:
        await here.refresh_registry()
    info = here.registry.service(service)
    if not info.is_keyed:
        raise CommandRefused(f"{service!r} is no object: it has no values.")
    return edits.handler(info)


async def _submit(here: Operations, creation: Creation, handler: HandlerInfo, act: Act) -> Receipt:
    here.seats.place(creation, handler)
    try:
        return await here.run(lambda link: store.submit(link, creation, act))
    except DatabaseError as error:
        if not error.is_vouch:
            raise
    creation.owner = None  # the engine it was given to has died: the queue takes it
    here.seats.forget()
    return await here.run(lambda link: store.submit(link, creation, act))


def _act(by: Actor, id: bytes, service: str, key: str, wanted: Edit) -> Act:
    verb = "state.replace" if wanted.replaces else "state.edit"
    details = {
        "invocation": format_id(id),
        "expected": wanted.expected,
        "set": sorted(wanted.set),
        "cleared": sorted(wanted.clear),
    }
    return Act(by, verb, f"{service}/{key}", details)
