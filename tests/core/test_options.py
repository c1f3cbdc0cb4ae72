"""Options: what operators may set on a service, and what is said of what they may not."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from runtime.core import options
from runtime.core.options import OPTIONS, BadOption, read_options, write_options
from runtime.core.registry import read_service

GREETER: dict[str, Any] = {"name": "Greeter", "ty": "SERVICE", "handlers": [{"name": "greet"}]}

VALUES: dict[str, tuple[Any, Any]] = {
    "public": (False, False),
    "idempotency_retention": ("PT1H", "1h"),
    "journal_retention": ("1h 30m", "1h 30m"),
    "inactivity_timeout": (500, "500ms"),
    "abort_timeout": ("2 days", "2d"),
    "retry_initial_interval": ("10ms", "10ms"),
    "retry_factor": ("1.5", 1.5),
    "retry_max_interval": ("120s", "2m"),
    "retry_max_attempts": ("7", 7),
    "retry_on_max_attempts": ("Kill", "kill"),
    "queue": ("slow.1", "slow.1"),
    "state_history": ("true", True),
    "deadlock_policy": ("refuse", "refuse"),
}


def test_the_examples_hold() -> None:
    assert doctest.testmod(options).failed == 0


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_can_be_set_read_back_and_makes_a_difference(name: str) -> None:
    said, told = VALUES[name]
    stored = read_options({name: said})

    assert write_options(stored) == {name: told}
    assert read_service(GREETER, "dp_1", 1, stored).handlers != read_service(GREETER, "dp_1", 1).handlers


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("publik", True, "has no option 'publik'. It has public, "),
        ("public", "perhaps", "public is 'perhaps': it takes true or false."),
        ("public", 1, "true or false"),
        ("journal_retention", "soon", "it takes a duration as in"),
        ("journal_retention", "11 years", "a duration"),
        ("journal_retention", -1, "a duration"),
        ("journal_retention", True, "a duration"),
        ("retry_factor", "nan", "a number from 1 to 1000"),
        ("retry_factor", 10**400, "a number from 1 to 1000"),
        ("retry_factor", [2], "a number from 1 to 1000"),
        ("retry_max_attempts", 0, "a whole number from 1"),
        ("retry_max_attempts", True, "a whole number from 1"),
        ("retry_on_max_attempts", "stop", "it takes pause or kill."),
        ("queue", "a/b", "the name of a queue"),
        ("queue", "a" * 101, "the name of a queue"),
        ("queue", "a\n", "the name of a queue"),
        ("queue", 3, "the name of a queue"),
        ("deadlock_policy", "ignore", "report or refuse or cancel-youngest"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(name: str, value: Any, words: str) -> None:
    with pytest.raises(BadOption) as refusal:
        read_options({name: value})

    assert words in str(refusal.value)
