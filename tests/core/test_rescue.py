"""What several looks at an engine add up to: dead is who is unlocked, or stands still, for long enough in a row."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.pulse import Pulse
from runtime.engine.rescue import INTERVAL, STILL_LOOKS, UNLOCKED_LOOKS, Seen, compare
from runtime.store.owners import Look

ENGINE = b"e" * 16

looks = st.lists(
    st.builds(Look, st.just(ENGINE), beat=st.integers(0, 3), is_unlocked=st.booleans()), min_size=1, max_size=60
)


def seen(looks: Sequence[Look]) -> Seen:
    """What is known after these looks."""
    known: Seen | None = None
    for look in looks:
        known = compare(known, look)
    assert known is not None
    return known


def beats(*counted: int, unlocked: bool = False) -> list[Look]:
    return [Look(ENGINE, beat, unlocked) for beat in counted]


def test_a_first_look_condemns_nobody() -> None:
    assert seen(beats(7)) == Seen(7, still=0, unlocked=0)
    assert seen(beats(7, unlocked=True)).unlocked < UNLOCKED_LOOKS


def test_one_whose_lock_is_free_twice_in_a_row_is_dead() -> None:
    assert seen(beats(7, 8, unlocked=True)).unlocked == UNLOCKED_LOOKS


def test_one_that_locks_anew_in_between_is_alive() -> None:
    looks = [*beats(7, unlocked=True), *beats(8), *beats(9, unlocked=True)]
    assert seen(looks).unlocked == 1


def test_one_that_stands_still_for_ten_of_its_beats_is_dead_and_not_a_look_sooner() -> None:
    still = beats(*[7] * (STILL_LOOKS + 1))
    assert seen(still[:-1]).still == STILL_LOOKS - 1
    assert seen(still).still == STILL_LOOKS
    assert STILL_LOOKS * INTERVAL == 10 * Pulse.INTERVAL


def test_a_single_beat_ends_its_standing_still() -> None:
    assert seen(beats(7, 7, 7, 8)).still == 0


def test_a_beat_that_went_back_is_a_beat() -> None:
    assert seen(beats(7, 7, 0)) == Seen(0, still=0, unlocked=0)


@given(looks)
def test_only_what_was_seen_last_and_without_a_break_counts(looks: list[Look]) -> None:
    unlocked = still = 0
    for look in reversed(looks):
        if not look.is_unlocked:
            break
        unlocked += 1
    for later, earlier in zip(reversed(looks), reversed(looks[:-1]), strict=False):
        if later.beat != earlier.beat:
            break
        still += 1
    assert seen(looks) == Seen(looks[-1].beat, still, unlocked)
