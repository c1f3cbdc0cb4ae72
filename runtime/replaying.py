"""Replaying: would other code go on where invocations under way stand? Asked before it takes them over.

Each journal is replayed as an attempt would, and as soon as the code says something it is dropped. Code in a module
carries out no step meanwhile. A service behind a URL is told the journal up to its last command, and nothing that came
later: so it comes to the place where the old code waited, and no further. Where that was a step under way, it would
carry out that step again, so it is not asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from perdure import Endpoint
from perdure.attempt import JOURNAL_MISMATCH
from perdure.errors import JournalMismatch, UnknownHandler
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol.codec import decode, encode
from perdure.protocol.ids import format_id
from perdure.protocol.messages import Command, Entry, Error, Message, Run, RunCompletion, Start
from perdure.protocol.target import Target
from runtime.core.identity import random_seed
from runtime.engine.remote import RemoteAttempt, RemoteHost
from runtime.store.link import Link
from runtime.store.replay import UnderWay, under_way

PATIENCE = 5.0
"""Seconds that the code has for one replay."""
MISSING = "The code has no such handler."
LATE = f"It has come nowhere within {PATIENCE:g} s."


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
    left_out: int = 0
    """How many stand in the middle of a step, and cannot be replayed by a service behind a URL."""


class Candidate(Protocol):
    """Code that may take over what is under way."""

    async def replay(self, target: Target, start: Start, entries: list[Entry]) -> Message | str | None:
        """What it says first, or in words why it says nothing; None: it waits, as it should."""
        ...

    def can_replay(self, entries: list[Entry]) -> bool: ...


class Module:
    """Code that was imported here."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._host = InProcessHost(endpoint)

    def can_replay(self, entries: list[Entry]) -> bool:
        return True

    async def replay(self, target: Target, start: Start, entries: list[Entry]) -> Message | str | None:
        said: list[Message] = []
        try:
            attempt = self._host.attempt(target, start, entries, said.append, gated=True)
        except UnknownHandler:
            return MISSING
        attempt.begin()
        try:
            async with asyncio.timeout(PATIENCE):
                while not (said or attempt.is_at_rest):
                    await asyncio.sleep(0)
        except TimeoutError:
            return LATE
        finally:
            attempt.abort()
        return said[0] if said else None


class Service:
    """Code behind a URL, which has these handlers."""

    def __init__(self, host: RemoteHost, handlers: set[tuple[str, str]]) -> None:
        self._host = host
        self._handlers = handlers

    def can_replay(self, entries: list[Entry]) -> bool:
        last = next(entry for entry in reversed(entries) if isinstance(entry, Command))
        return not isinstance(last, Run) or any(
            isinstance(entry, RunCompletion) and entry.completion_id == last.result_completion_id for entry in entries
        )

    async def replay(self, target: Target, start: Start, entries: list[Entry]) -> Message | str | None:
        if (target.service, target.handler) not in self._handlers:
            return MISSING
        said: asyncio.Queue[Message] = asyncio.Queue()
        told = _up_to_the_last_command(entries)
        start = Start(
            start.id, start.debug_id, len(told), partial_state=True, key=start.key, random_seed=start.random_seed
        )
        frames = b"".join(map(encode, told))
        attempt = RemoteAttempt(self._host, target, start, told, frames, said.put_nowait, lambda: None, lambda: 0)
        attempt.begin()
        try:
            async with asyncio.timeout(PATIENCE):
                return await said.get()
        except TimeoutError:
            return LATE
        finally:
            attempt.abort()


def _up_to_the_last_command(entries: list[Entry]) -> list[Entry]:
    """What the old code knew when it came to where it waits; the result of its last step it must have known."""
    last = max(index for index, entry in enumerate(entries) if isinstance(entry, Command))
    id = entries[last].result_completion_id if isinstance(entries[last], Run) else None  # type: ignore[union-attr]
    later = [entry for entry in entries[last + 1 :] if isinstance(entry, RunCompletion) and entry.completion_id == id]
    return [*entries[: last + 1], *later]


async def replay_all(candidate: Candidate, services: Sequence[str], link: Link) -> Replayed:
    """Replay what is under way of these services with other code."""
    count = left_out = 0
    misfits: list[Misfit] = []
    async for page in under_way(link, services):
        for invocation in page:
            entries: list[Entry] = decode(invocation.frames)  # type: ignore[assignment]
            if not candidate.can_replay(entries):
                left_out += 1
                continue
            count += 1
            misfit = await _replay(candidate, invocation, entries)
            if misfit is not None:
                misfits.append(misfit)
    return Replayed(count, tuple(misfits), left_out)


async def _replay(candidate: Candidate, invocation: UnderWay, entries: list[Entry]) -> Misfit | None:
    id, name = format_id(invocation.id), f"{invocation.service}/{invocation.handler}"
    start = Start(
        invocation.id,
        id,
        len(entries),
        partial_state=True,  # what it has read stands in the journal
        key=invocation.key or "",
        random_seed=random_seed(invocation.id),
    )
    said = await candidate.replay(Target(invocation.service, invocation.handler, invocation.key), start, entries)
    if isinstance(said, str):
        return Misfit(id, name, said)
    if not isinstance(said, Error):
        return None
    if said.code == JOURNAL_MISMATCH:
        reason = said.message.removesuffix(f" {JournalMismatch.hint}")  # it is known that the code has changed
        return Misfit(id, name, reason, said.related_command_index)
    return Misfit(id, name, f"The attempt fails: {said.message}")
