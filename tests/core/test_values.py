"""Which values are told with a Start."""

from __future__ import annotations

from runtime.core.values import told_at_first

VALUES = {"a": bytes(10), "b": bytes(20), "c": bytes(5)}


def test_all_are_told_where_nothing_else_is_said() -> None:
    assert told_at_first(VALUES, None) == (VALUES, False)


def test_only_those_that_are_wanted_are_told_and_that_there_may_be_others() -> None:
    assert told_at_first(VALUES, ["c", "d"]) == ({"c": bytes(5)}, True)
    assert told_at_first(VALUES, []) == ({}, True)


def test_what_does_not_fit_is_left_out_and_that_is_said() -> None:
    assert told_at_first(VALUES, None, most=20) == ({"a": bytes(10)}, True)
