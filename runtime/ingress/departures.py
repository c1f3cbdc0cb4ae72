"""Departures: callers that leave while their call waits, noticed without a task per call.

Only a call that has waited for a while gets a task that listens for its caller's leaving; most have ended by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec import Struct

T = TypeVar("T")
Receive = Callable[[], Awaitable[dict[str, Any]]]

PATIENCE = 0.25
"""Seconds between two looks. A call is listened to from the second one that finds it waiting."""


class Departed(Exception):
    """The caller has left: there is nobody to answer."""


class Waiting(Struct, eq=False):
    receive: Receive
    was_seen: bool = False
    listener: asyncio.Task[None] | None = None
    has_left: bool = False


class Departures:
    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._waiting: dict[asyncio.Task[Any], Waiting] = {}
        self._is_looking = False

    async def watch(self, answer: Awaitable[T], receive: Receive) -> T:
        """The answer; raises Departed, having cancelled it, when `receive` says that the caller has left."""
        task = asyncio.current_task()
        assert task is not None
        waiting = self._waiting[task] = Waiting(receive)
        if not self._is_looking:
            self._look_later()
        try:
            return await answer
        except asyncio.CancelledError:
            if not waiting.has_left or task.uncancel():
                raise
            raise Departed from None
        finally:
            del self._waiting[task]
            if waiting.listener is not None:
                waiting.listener.cancel()

    def _look_later(self) -> None:
        self._is_looking = True
        asyncio.get_running_loop().call_later(self._patience, self._look)

    def _look(self) -> None:
        self._is_looking = False
        for task, waiting in self._waiting.items():
            if waiting.was_seen and waiting.listener is None:
                waiting.listener = asyncio.create_task(_listen(task, waiting))
            waiting.was_seen = True
        if self._waiting:
            self._look_later()


async def _listen(task: asyncio.Task[Any], waiting: Waiting) -> None:
    while (await waiting.receive())["type"] != "http.disconnect":
        pass
    waiting.has_left = True
    task.cancel()
