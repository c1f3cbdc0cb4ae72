"""What hints are about."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Protocol

Item = Any


class Kind(IntEnum):
    """What a list of items is about, and what an item is."""

    BORN = 1  # the fields of an invocation that this engine owns: it saves a read; and tell me when it ends
    KEYS = 2  # (service, key): something new in the inbox
    MAIL = 3  # (target, slot, frame)
    READY = 4  # (): the queue has something
    WATCH = 5  # (id,): tell me when it ends
    DONE = 6  # (id, result): it ended; without a result, history has it
    LOOK = 7  # (): something has changed, or there is too much to say
    DUE = 8  # (milliseconds since the epoch,): a timer was set, maybe to an earlier time than all others


class Asker(Protocol):
    """Whoever a hint came from, and can be answered."""

    def send(self, kind: int, item: Item) -> None: ...
