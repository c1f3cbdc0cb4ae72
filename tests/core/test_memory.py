"""An engine's room: for newcomers, for what is in the queue, and for what waits."""

from __future__ import annotations

from typing import cast

import pytest

from runtime.engine import memory
from runtime.engine.drive import Drive
from runtime.engine.memory import MAX_DRIVES, Memory, resident_bytes

SOMEBODY = cast(Drive, object())


def filled(count: int, *, most_bytes: int = 2**40) -> Memory:
    """An engine that drives so many."""
    full = Memory([], ["default"], most_bytes)
    full.drives = {number.to_bytes(16): SOMEBODY for number in range(count)}
    return full


def test_a_quarter_of_the_room_is_for_the_queue() -> None:
    empty, three_quarters, full = filled(0), filled(MAX_DRIVES * 3 // 4), filled(MAX_DRIVES)
    assert (empty.newcomers, empty.room) == (MAX_DRIVES * 3 // 4, MAX_DRIVES)
    assert (three_quarters.newcomers, three_quarters.room) == (0, MAX_DRIVES // 4)
    assert (full.newcomers, full.room) == (0, 0)


def test_it_is_crowded_by_three_quarters_of_those_it_may_drive() -> None:
    assert not filled(MAX_DRIVES * 3 // 4 - 1).is_crowded
    assert filled(MAX_DRIVES * 3 // 4).is_crowded


@pytest.mark.parametrize(("resident", "crowded"), [(750, False), (751, True), (0, False)])
def test_it_is_crowded_by_three_quarters_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, resident: int, crowded: bool
) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: resident)
    assert filled(1, most_bytes=1000).is_crowded is crowded


def test_what_a_process_occupies_grows_with_what_it_holds() -> None:
    before = resident_bytes()
    if not before:
        return  # this system does not tell
    held = b"x" * 50_000_000
    assert resident_bytes() - before > len(held) // 2
