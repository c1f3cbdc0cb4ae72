"""Callers that leave while they wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime.ingress.departures import Departed, Departures


class Connection:
    """What a server offers to receive: nothing, until the caller leaves."""

    def __init__(self) -> None:
        self.is_listened_to = asyncio.Event()
        self.listeners = 0
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def leave(self) -> None:
        self._events.put_nowait({"type": "http.request", "body": b""})  # a stray one before
        self._events.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        self.listeners += 1
        self.is_listened_to.set()
        try:
            return await self._events.get()
        finally:
            self.listeners -= 1


async def test_a_caller_that_leaves_ends_its_wait() -> None:
    connection, departures = Connection(), Departures(patience=0.001)
    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(departures.watch(answer, connection.receive))
    connection.leave()
    with pytest.raises(Departed):
        await waiting
    assert answer.cancelled()
    assert waiting.cancelling() == 0


async def test_an_answer_ends_the_listening() -> None:
    connection, departures = Connection(), Departures(patience=0.001)
    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(departures.watch(answer, connection.receive))
    await connection.is_listened_to.wait()
    answer.set_result("done")
    assert await waiting == "done"
    await asyncio.sleep(0)
    assert connection.listeners == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_quick_answer_is_never_listened_for() -> None:
    connection, departures = Connection(), Departures(patience=0)
    tasks = asyncio.all_tasks()

    async def answer() -> str:
        assert asyncio.all_tasks() == tasks
        return "done"

    assert await departures.watch(answer(), connection.receive) == "done"
    assert not connection.is_listened_to.is_set()


async def test_a_wait_that_somebody_else_cancels_is_just_cancelled() -> None:
    connection, departures = Connection(), Departures(patience=0.001)
    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(departures.watch(answer, connection.receive))
    await connection.is_listened_to.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert connection.listeners == 0


async def test_each_of_many_callers_leaves_for_itself() -> None:
    departures = Departures(patience=0.001)
    stays, leaves = Connection(), Connection()
    answer = asyncio.get_running_loop().create_future()
    staying = asyncio.create_task(departures.watch(asyncio.shield(answer), stays.receive))
    leaving = asyncio.create_task(departures.watch(asyncio.shield(answer), leaves.receive))
    await asyncio.gather(stays.is_listened_to.wait(), leaves.is_listened_to.wait())
    leaves.leave()
    with pytest.raises(Departed):
        await leaving
    answer.set_result("done")
    assert await staying == "done"
