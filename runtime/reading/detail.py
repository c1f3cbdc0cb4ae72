"""One invocation: all that it did, and what keeps it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from msgspec import Struct

from runtime.models import Done, Invocation, Journal
from runtime.reading.invocations import Summary, summaries
from runtime.reading.journal import Entry, Show, payload, read_journal
from runtime.reading.why import Why, why


class Detail(Struct, frozen=True):
    """An invocation and all that it did."""

    summary: Summary
    why: Why
    """What keeps it."""
    journal: Sequence[Entry]


async def find(id: bytes, *, services: Collection[str] | None = None, show: Show = payload) -> Detail | None:
    """One invocation with its journal; None: there is none, or none any more.

    `services`: it is of one of these; None: of any. `show`: how the payloads in its journal are shown.
    """
    found = await summaries([id], services)
    reason = await why(id, services)
    if not found or reason is None:
        return None
    (summary,) = found.values()
    return Detail(summary, reason, read_journal(await _pieces(UUID(bytes=id)), show))


async def _pieces(id: UUID) -> list[bytes | memoryview]:
    """Its journal's frames in order, the input first."""
    flushes = Journal.objects.filter(invocation=id).order_by("first").values_list("frames", flat=True)
    alive = await Invocation.objects.filter(id=id).values_list("input", flat=True).afirst()
    if alive is not None:
        return [alive, *[frames async for frames in flushes]]
    ended = await Done.objects.filter(id=id).values_list("input", "frames", "result").afirst()
    if ended is None:
        return []
    input, frames, result = ended
    return [input, *[frames async for frames in flushes], frames, result]
