"""Ids in order of their making, whatever the clock does."""

from __future__ import annotations

import secrets

from hypothesis import example, given
from hypothesis import strategies as st

from runtime.core.identity import IdMaker

milliseconds = st.integers(min_value=0, max_value=2**48 - 1)


@given(st.lists(milliseconds, min_size=2, max_size=50))
@example([5, 5, 5])  # it stands
@example([5, 3, 4, 5, 6])  # it steps back, and comes again to where it was
def test_what_is_made_later_sorts_later_also_when_the_clock_steps_back(clock: list[int]) -> None:
    maker = IdMaker(secrets.randbits)
    ids = [maker.next(now) for now in clock]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@given(milliseconds)
def test_an_id_begins_with_the_time_of_its_making(now: int) -> None:
    assert int.from_bytes(IdMaker(secrets.randbits).next(now)[:6], "big") == now


def test_there_is_room_to_count_behind_the_highest_randomness() -> None:
    maker = IdMaker(lambda bits: 2**bits - 1)
    ids = [maker.next(7) for _ in range(1_000)]
    assert ids == sorted(ids)
    assert {id[:6] for id in ids} == {ids[0][:6]}, "the count ran over into the time"


@given(milliseconds)
def test_two_makers_at_the_same_moment_make_different_ids(now: int) -> None:
    assert IdMaker(secrets.randbits).next(now) != IdMaker(secrets.randbits).next(now)
