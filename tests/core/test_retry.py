"""Backoff: it grows, up to its bound, for as many attempts as there are."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from runtime.core.retry import RetryPolicy

policies = st.builds(
    RetryPolicy,
    initial_ms=st.integers(0, 10**9),
    factor=st.floats(1, 1e12, allow_nan=False),
    max_ms=st.integers(0, 10**12),
    max_attempts=st.none() | st.integers(1, 10**6),
)
failures = st.integers(1, 10**6)


@given(policies, failures)
def test_a_delay_is_between_nothing_and_the_policys_bound(policy: RetryPolicy, count: int) -> None:
    delay = policy.delay_ms(count)
    assert delay is None or 0 <= delay <= policy.max_ms


@given(policies, failures)
def test_no_pause_is_shorter_than_the_one_before(policy: RetryPolicy, count: int) -> None:
    earlier, later = policy.delay_ms(count), policy.delay_ms(count + 1)
    assert later is None or (earlier is not None and later >= earlier)


@given(policies, failures)
def test_attempts_end_exactly_when_they_are_used_up(policy: RetryPolicy, count: int) -> None:
    is_over = policy.max_attempts is not None and count >= policy.max_attempts
    assert (policy.delay_ms(count) is None) == is_over


@given(st.integers(1, 10**6))
def test_the_first_pause_is_the_initial_one(initial: int) -> None:
    assert RetryPolicy(initial_ms=initial, max_ms=10**6).delay_ms(1) == initial


@given(
    st.builds(
        RetryPolicy,
        initial_ms=st.integers(0, 2**64),
        factor=st.floats(allow_nan=False, allow_infinity=False),  # an endpoint may say any number
        max_ms=st.integers(0, 2**64),
        max_attempts=st.none(),
    ),
    st.integers(1, 2**63),
)
@example(RetryPolicy(factor=-3.0, max_attempts=None), 2)
@example(RetryPolicy(factor=-1e308, max_attempts=None), 2)
@example(RetryPolicy(initial_ms=0, factor=1e308, max_attempts=None), 3)
def test_no_number_is_too_much(policy: RetryPolicy, count: int) -> None:
    delay = policy.delay_ms(count)
    assert delay is not None
    assert 0 <= delay <= policy.max_ms


def test_without_a_maximum_there_is_always_another_attempt() -> None:
    policy = RetryPolicy(max_attempts=None)
    assert policy.delay_ms(10**9) == policy.max_ms


def test_a_factor_of_one_is_a_steady_pause() -> None:
    policy = RetryPolicy(initial_ms=30, factor=1.0, max_attempts=None)
    assert {policy.delay_ms(count) for count in (1, 2, 50, 10**6)} == {30}
