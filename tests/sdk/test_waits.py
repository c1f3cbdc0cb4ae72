"""When waits are over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.protocol.messages import (
    CANCEL_SIGNAL,
    VOID,
    CallCompletion,
    Combinator,
    Failure,
    Signal,
    SleepCompletion,
    Value,
    Wait,
)
from perdure.protocol.waits import Known, Standing, leaves, satisfied, standing

ONE = CallCompletion(1, Value(b"1"))
ONE_FAILED = CallCompletion(1, Failure(500, "no"))
TWO = SleepCompletion(2, VOID)
TWO_FAILED = CallCompletion(2, Failure(500, "no"))
PENDING, SUCCEEDED, FAILED, UNDETERMINED = Standing


@pytest.mark.parametrize(
    ("combinator", "notifications", "expected"),
    [
        (Combinator.FIRST_COMPLETED, [], PENDING),
        (Combinator.FIRST_COMPLETED, [ONE], SUCCEEDED),
        (Combinator.FIRST_COMPLETED, [TWO_FAILED], FAILED),
        (Combinator.UNKNOWN, [], PENDING),
        (Combinator.UNKNOWN, [ONE_FAILED], UNDETERMINED),
        (Combinator.ALL_COMPLETED, [ONE], PENDING),
        (Combinator.ALL_COMPLETED, [ONE_FAILED, TWO], SUCCEEDED),
        (Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED, [ONE_FAILED], PENDING),
        (Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED, [ONE_FAILED, TWO], SUCCEEDED),
        (Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED, [ONE_FAILED, TWO_FAILED], FAILED),
        (Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED, [ONE], PENDING),
        (Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED, [ONE, TWO], SUCCEEDED),
        (Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED, [TWO_FAILED], FAILED),
    ],
)
def test_each_combinator_ends_as_the_protocol_says(
    combinator: Combinator, notifications: list[CallCompletion], expected: Standing
) -> None:
    assert standing(Wait((1, 2), combinator=combinator), Known(notifications)) is expected


def test_an_undetermined_part_is_left_to_the_handler() -> None:
    unknown = Wait((1,), combinator=Combinator.UNKNOWN)
    both = Wait((2,), nested=(unknown,), combinator=Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED)
    assert satisfied(both, Known([ONE]))


def test_a_cancellation_ends_every_wait_that_listens_to_it() -> None:
    wait = Wait(signals=(CANCEL_SIGNAL,), nested=(Wait((1, 2), combinator=Combinator.ALL_COMPLETED),))
    assert not satisfied(wait, Known([ONE]))
    assert satisfied(wait, Known([Signal(CANCEL_SIGNAL)]))


def test_named_signals_and_numbered_ones_are_different() -> None:
    assert satisfied(Wait(named_signals=("1",)), Known([Signal("1")]))
    assert not satisfied(Wait(named_signals=("1",)), Known([Signal(1)]))


def test_leaves_are_found_at_every_depth() -> None:
    inner = Wait((3,))
    outer = Wait(nested=(Wait(nested=(inner,)), Wait((4,))))
    assert list(leaves(outer)) == [inner, Wait((4,))]


@given(st.sampled_from(Combinator), st.sets(st.integers(1, 4)), st.integers(1, 4))
def test_knowing_more_never_makes_a_wait_pending_again(combinator: Combinator, ids: set[int], more: int) -> None:
    wait = Wait((1, 2), nested=(Wait((3, 4), combinator=combinator),), combinator=combinator)
    less = [SleepCompletion(id, VOID) for id in ids]
    if satisfied(wait, Known(less)):
        assert satisfied(wait, Known([*less, SleepCompletion(more, VOID)]))
