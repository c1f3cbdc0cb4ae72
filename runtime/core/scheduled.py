"""Scheduled sends as people ask for them, and what moving some of them does to the order of a key's sends."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import Struct

Key = tuple[str, str]
Place = tuple[int, int]
"""When a send is due, and its position: those that are due together begin in the order in which they were sent."""


class ScheduledFilter(Struct, frozen=True, kw_only=True):
    """Which sends are meant, of those that are not due yet; what is None does not matter."""

    service: str | None = None
    handler: str | None = None
    key: str | None = None
    due_after: datetime | None = None
    """This moment, or later."""
    due_before: datetime | None = None
    """Before this moment."""
    services: tuple[str, ...] | None = None
    """The only services whose sends whoever asks may touch."""


class Move(Struct, frozen=True):
    """A send of an object's key that gets another place among the sends of that key."""

    key: Key
    before: Place
    after: Place


def passes(moves: Iterable[Move], others: Mapping[Key, Iterable[Place]]) -> dict[Key, int]:
    """For each key how often a moved send passes one of the key's `others`, which stay where they are.

    >>> one = Move(("Mailbox", "Mary"), before=(300, 2), after=(100, 4))
    >>> passes([one], {("Mailbox", "Mary"): [(200, 3), (300, 1), (400, 0)]})
    {('Mailbox', 'Mary'): 2}
    """
    places = {key: sorted(there) for key, there in others.items()}
    found: Counter[Key] = Counter()
    for move in moves:
        there = places.get(move.key, [])
        found[move.key] += abs(bisect_left(there, move.before) - bisect_left(there, move.after))
    return {key: count for key, count in found.items() if count}
