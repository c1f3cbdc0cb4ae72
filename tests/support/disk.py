"""The disk of engines: their commits can be held up, refused, or lost before or after they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from runtime.core.changes import Changes
from runtime.errors import DatabaseError, Disconnected
from runtime.store import writer
from runtime.store.commit import Receipt, commit
from runtime.store.link import Link


class Disk:
    """Stands between engines and their database; callers' commits pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuses: Callable[[Changes], bool] = lambda _: False
        """Which changes make the database refuse a commit."""
        self._deadly: tuple[str, int] | None = None
        self._commits = 0
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._holds: Callable[[Changes], bool] = lambda _: True
        self._held = 0
        monkeypatch.setattr(writer, "commit", self._commit)

    def hold(self, which: Callable[[Changes], bool] = lambda _: True) -> None:
        """From now on no commit of an engine with such changes gets through, until `release`."""
        self._holds = which
        self._is_free.clear()

    async def holds_something(self) -> bool:
        """Whether a commit waits for its release."""
        return self._held > 0

    def release(self) -> None:
        self._is_free.set()

    def lose(self, when: Literal["before", "after"], number: int | None) -> None:
        """Cut the connection just before or after a commit is made, the `number`th from now; None: never."""
        self._commits = 0
        self._deadly = None if number is None else (when, number)

    async def _commit(
        self, link: Link, batch: Sequence[Changes], *, engine: bytes | None = None, **extras: Any
    ) -> Receipt:
        if engine is None or not batch:
            return await commit(link, batch, engine=engine, **extras)
        if any(map(self._holds, batch)):
            self._held += 1
            await self._is_free.wait()
            self._held -= 1
        await asyncio.sleep(0)
        if any(map(self.refuses, batch)):
            raise DatabaseError("22021", "no")
        self._commits += 1
        number = self._commits
        if self._deadly == ("before", number):
            raise Disconnected("before the commit")
        receipt = await commit(link, batch, engine=engine, **extras)
        if self._deadly == ("after", number):
            raise Disconnected("after the commit")
        return receipt
