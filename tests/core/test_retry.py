"""Backoff: it grows, up to its bound, for as many attempts as there are."""

from __future__ import annotations

from hypothesis import given
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
