"""A loop that has not turned for long: a handler blocks it, and everything that its engine drives waits with it.

Nothing in Python ends such a handler, so its process ends: others take over, and whose fault it was is told. Found out
from another thread, so as well as can be: a handler that holds the interpreter's lock stops that thread as well. Then
the beat stands still, and the other engines bury this one.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable

from perdure.attempt import Attempt
from runtime.engine.drive import Drive


def look(thread: int, drives: Iterable[Drive]) -> tuple[Drive | None, str]:
    """Whose code a thread is in, if it can be told, and its stack."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 -- its only name
    stack = "".join(traceback.format_stack(frame))
    while frame is not None:
        attempt = frame.f_locals.get("self")
        if isinstance(attempt, Attempt):
            return next((drive for drive in drives if drive.attempt is attempt), None), stack
        frame = frame.f_back
    return None, stack
