"""What the measured handlers of all systems share. Imports little, for it is in the processes that are measured."""

from __future__ import annotations

import asyncio

LONG_SLEEP = 3600.0  # seconds a sleeper sleeps: longer than any run
STEP_SECONDS = 0.1


def nothing() -> int:
    """A step whose only cost is that of being journaled."""
    return 0


async def pause() -> None:
    """A step that takes a while."""
    await asyncio.sleep(STEP_SECONDS)


def steps_of(number: int) -> int:
    """How many steps an invocation works: all lengths up to 3 s, so that at any moment one is about to end."""
    return number % 30 + 1
