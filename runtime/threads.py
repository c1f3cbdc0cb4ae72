"""Threads for what the runtime waits for itself. Those of the loop belong to `ctx.run`, and all of them may hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


async def in_own_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """Call it in a thread that is made for this: it waits for nobody, and costs 0.1 ms."""
    thread = ThreadPoolExecutor(1, "perdure-own")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)
    finally:
        thread.shutdown(wait=False)


class ClosureThreads(ThreadPoolExecutor):
    """For the functions that `ctx.run` is given: at the end those that hang are left alone, nobody hears of them."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)
