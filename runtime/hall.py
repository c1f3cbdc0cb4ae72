"""The door to the hall: this process's Operations, made from its settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.conf import settings
from runtime.drains import wake_workers
from runtime.operations import Operations

_starting: asyncio.Task[Operations] | None = None


async def operations() -> Operations:
    """The one of this process, started by whoever asks first. Raises Disconnected, and is asked anew the next time."""
    global _starting
    if _starting is None or _failed(_starting):
        _starting = asyncio.create_task(_start())
    return await asyncio.shield(_starting)  # one impatient caller must not stop it for the others


@asynccontextmanager
async def visit() -> AsyncIterator[Operations]:
    """Operations for as long as one command takes; raises Disconnected."""
    here = await _start()
    try:
        yield here
    finally:
        await here.stop()


async def leave() -> None:
    """Stop this process's Operations, if they were ever started."""
    global _starting
    starting, _starting = _starting, None
    if starting is not None and not _failed(starting):
        await (await starting).stop()


async def _start() -> Operations:
    now = settings()
    here = Operations(now.database_url, now.token, limits=now.limits, wake_workers=wake_workers)
    await here.start()
    return here


def _failed(task: asyncio.Task[Operations]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
