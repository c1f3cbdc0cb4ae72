"""Durations and times as authors write them: what could mean several things is refused, with what to write."""

from __future__ import annotations

from datetime import datetime, timedelta

from perdure.errors import SdkError, UsageError


def want_duration(duration: object, where: str, error: type[SdkError] = UsageError) -> None:
    """Raise `error` for what is no timedelta.

    >>> want_duration(5, "ctx.sleep")
    Traceback (most recent call last):
    perdure.errors.UsageError: ctx.sleep takes a timedelta, not 5: write timedelta(seconds=5).
    """
    if not isinstance(duration, timedelta):
        is_number = isinstance(duration, int | float) and not isinstance(duration, bool)
        advice = f"timedelta(seconds={duration!r})" if is_number else "timedelta(seconds=5), for instance"
        raise error(f"{where} takes a timedelta, not {duration!r}: write {advice}.")


def moment(at: object) -> float:
    """The seconds since the epoch of a time that a send is due at; raises UsageError for what is none."""
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise UsageError(
            f"at= takes a datetime with a time zone, as in datetime.now(UTC) + timedelta(days=1), not {at!r}."
        )
    return at.timestamp()
