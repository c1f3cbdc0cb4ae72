"""A lease: a key while this engine owns its row, with its inbox and its state in memory.

The inbox is read in order above a watermark, by nobody else. A successor may start as soon as its predecessor has
ended in memory: until that is committed it computes on uncommitted state, starts no closure and is answered nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from perdure.protocol.messages import ClearAllState, ClearState, Command, SetState
from runtime.core.invocation import Invocation, Status
from runtime.engine.drive import Drive
from runtime.store.claim import Inbox, Key, Loaded

LONGEST_CHAIN = 500
"""Invocations of one key between two commits."""


class Lease:
    __slots__ = (
        "is_careful",
        "is_loaded",
        "is_parked",
        "is_pumping",
        "is_releasing",
        "is_wanted",
        "key",
        "letters",
        "running",
        "state",
        "uncommitted",
        "used_at",
        "watermark",
    )

    def __init__(self, key: Key, *, is_careful: bool = False) -> None:
        self.key = key
        self.letters: OrderedDict[bytes, Loaded] = OrderedDict()
        self.state: dict[str, bytes] = {}
        self.running: Drive | None = None
        self.uncommitted = 0
        """Invocations that ended in memory and not yet in the database."""
        self.watermark = 0
        self.used_at = 0.0
        self.is_loaded = False
        self.is_parked = False
        """The head of its inbox sleeps: whoever wakes that brings the key along."""
        self.is_pumping = False
        self.is_releasing = False
        """Being given back by the flush under way: nothing starts until that is known."""
        self.is_wanted = False
        """Something came while it was being given back."""
        self.is_careful = is_careful
        """One at a time: a flush with several of them was refused, and whose fault it was is to be found out."""

    def is_at_rest(self, since: float) -> bool:
        """Nothing has happened since then, or nothing will while its holder sleeps."""
        return self.is_idle and (self.is_parked or (not self.letters and self.used_at < since))

    @property
    def is_idle(self) -> bool:
        """Known, and nothing is under way."""
        return self.running is None and not self.uncommitted and self.is_loaded

    def is_held_back(self, held_back: Callable[[Invocation], bool]) -> bool:
        """Whether who is next has not begun, and may not."""
        head = self._head
        if head is None:
            return False
        return head.status in (Status.PENDING, Status.READY) and held_back(head.invocation)

    def take(self, inbox: Inbox, now: float) -> None:
        """What was read from the database."""
        if not self.is_loaded:
            self.state = inbox.state
            self.is_loaded = True
        if inbox.letters:
            self.letters.update((letter.invocation.id, letter) for letter in inbox.letters)
            self.watermark = inbox.letters[-1].position or 0
            self.used_at = now

    def next(self, speculates: Callable[[Invocation], bool]) -> Loaded | None:
        """Take the one that may start now out of the inbox, if there is one.

        Before its predecessors are committed only one may that `speculates`, and that has no journal to replay.
        """
        head = self._head
        if self.running is not None or head is None or self.uncommitted >= LONGEST_CHAIN:
            return None
        if self.uncommitted and (self.is_careful or head.frames or not speculates(head.invocation)):
            return None
        return self.letters.popitem(last=False)[1]

    def put_back(self, letter: Loaded) -> None:
        """It may not start yet after all, and is the next one still."""
        self.letters[letter.invocation.id] = letter
        self.letters.move_to_end(letter.invocation.id, last=False)

    @property
    def _head(self) -> Loaded | None:
        """Who is next."""
        return next(iter(self.letters.values()), None)

    def apply(self, command: Command) -> None:
        """State as the running one sees it, and its successor will."""
        if type(command) is SetState:
            self.state[command.key] = command.value.content
        elif type(command) is ClearState:
            self.state.pop(command.key, None)
        elif type(command) is ClearAllState:
            self.state.clear()
