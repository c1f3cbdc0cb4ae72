"""Replaying: would other code go on where invocations under way stand? Asked before it takes them over.

Each journal is replayed with the code as an attempt would, but no step is carried out, and as soon as the code asks for
something new it is dropped: what is outside `ctx.run` is executed, as in every replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from perdure import Endpoint
from perdure.attempt import JOURNAL_MISMATCH
from perdure.errors import JournalMismatch, UnknownHandler
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol.codec import decode
from perdure.protocol.ids import format_id
from perdure.protocol.messages import Entry, Error, Message, Start
from perdure.protocol.target import Target
from runtime.core.identity import random_seed
from runtime.store.link import Link
from runtime.store.replay import UnderWay, under_way

PATIENCE = 5.0
"""Seconds that the code has for one replay."""


class Misfit(Struct, frozen=True):
    """An invocation under way that the code would not go on with."""

    invocation_id: str
    handler: str
    """As `Service/handler`."""
    reason: str
    command: int | None = None
    """The place among its commands where they part, the input being 0; None: it comes to none."""


class Replayed(Struct, frozen=True):
    """What the replays of all that is under way have shown."""

    invocations: int
    """How many were replayed: all that have begun and done something."""
    misfits: tuple[Misfit, ...]


async def replay_all(endpoint: Endpoint, services: Sequence[str], link: Link) -> Replayed:
    """Replay what is under way of these services with the code of `endpoint`."""
    count = 0
    misfits: list[Misfit] = []
    async for page in under_way(link, services):
        for invocation in page:
            count += 1
            misfit = await replay(endpoint, invocation)
            if misfit is not None:
                misfits.append(misfit)
    return Replayed(count, tuple(misfits))


async def replay(endpoint: Endpoint, invocation: UnderWay) -> Misfit | None:
    """Why the code would not go on with it; None: it would."""
    entries: list[Entry] = decode(invocation.frames)  # type: ignore[assignment]
    said: list[Message] = []
    start = Start(
        invocation.id,
        format_id(invocation.id),
        len(entries),
        partial_state=True,  # what it has read stands in the journal
        key=invocation.key or "",
        random_seed=random_seed(invocation.id),
    )
    target = Target(invocation.service, invocation.handler, invocation.key)
    name = f"{invocation.service}/{invocation.handler}"
    try:
        attempt = InProcessHost(endpoint).attempt(target, start, entries, said.append, gated=True)
    except UnknownHandler:
        return Misfit(start.debug_id, name, "The code has no such handler.")
    attempt.begin()
    try:
        async with asyncio.timeout(PATIENCE):
            while not (said or attempt.is_at_rest):
                await asyncio.sleep(0)
    except TimeoutError:
        return Misfit(start.debug_id, name, f"It has come nowhere within {PATIENCE:g} s.")
    finally:
        attempt.abort()
    first = said[0] if said else None
    if not isinstance(first, Error):
        return None
    if first.code == JOURNAL_MISMATCH:
        reason = first.message.removesuffix(f" {JournalMismatch.hint}")  # it is known that the code has changed
        return Misfit(start.debug_id, name, reason, first.related_command_index)
    return Misfit(start.debug_id, name, f"The attempt fails: {first.message}")
