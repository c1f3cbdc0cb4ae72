"""Ids in order of their making: within a millisecond they count up, so that what was made later sorts later."""

from __future__ import annotations

from collections.abc import Callable

from perdure.protocol.ids import fresh_id


class IdMaker:
    """Makes invocation ids; `randbits(n)` gives n random bits."""

    def __init__(self, randbits: Callable[[int], int]) -> None:
        self._randbits = randbits
        self._millisecond = -1
        self._tail = 0

    def next(self, now_ms: int) -> bytes:
        """An id that sorts after every earlier one of this maker, also when the clock steps back."""
        if now_ms > self._millisecond:
            self._millisecond = now_ms
            self._tail = self._randbits(79)  # the 80th bit is room to count
        else:
            self._tail += 1
        return fresh_id(self._millisecond, self._tail)


def random_seed(id: bytes) -> int:
    """What an invocation's random numbers begin with: the same in every attempt.

    >>> random_seed(bytes(15) + b"\x05")
    5
    """
    return int.from_bytes(id[8:], "big")
