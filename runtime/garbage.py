"""Garbage: what a process that answers in milliseconds tells Python's collector.

A full collection walks everything that was ever imported: a pause of a tenth of a second, and much more often than
there is anything to find.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 20_000, 20, 100  # allocations until a young collection, then collections until the next older one


def spare_the_collector() -> None:
    """To be called when everything is loaded: all of that is here to stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
