"""The tally: what is counted can be added to what others count, and has a bounded number of names."""

from __future__ import annotations

import doctest

from runtime.core import tally
from runtime.core.invocation import Outcome
from runtime.core.tally import MOST_HANDLERS, OTHER, Tally, name


def test_the_examples_are_true() -> None:
    results = doctest.testmod(tally)
    assert results.attempted > 0
    assert results.failed == 0


def test_what_was_never_counted_has_no_name() -> None:
    counts = Tally("engine")
    counts.handlers["Greeter", "greet"].started += 1

    assert counts.counts() == {name("started", "Greeter", "greet"): 1}


def test_outcomes_and_durations_are_told_apart() -> None:
    counts = Tally("ingress")
    greet = counts.handlers["Greeter", "greet"]
    greet.succeeded += 1
    greet.other_ends[Outcome.FAILED] += 2
    greet.calls.observe(0.0007)
    greet.calls.observe(7)
    counts.flush_sizes.observe(3)

    assert counts.counts() == {
        name("completed", "Greeter", "greet", "failed"): 2,
        name("completed", "Greeter", "greet", "succeeded"): 1,
        name("call_seconds", "Greeter", "greet", "0.001"): 1,
        name("call_seconds", "Greeter", "greet", "10"): 1,
        name("call_seconds", "Greeter", "greet", "sum"): 7.0007,
        name("flush_changes", "ingress", "5"): 1,
        name("flush_changes", "ingress", "sum"): 3.0,
    }


def test_handlers_beyond_the_bound_are_counted_together_and_those_that_have_a_name_keep_it() -> None:
    counts = Tally("engine")
    for n in range(MOST_HANDLERS + 50):
        counts.handlers["Greeter", f"greet{n}"].accepted += 1
    counts.handlers["Greeter", "greet0"].accepted += 1

    found = counts.counts()

    assert len(found) == MOST_HANDLERS + 1
    assert found[name("accepted", "Greeter", "greet0")] == 2
    assert found[name("accepted", *OTHER)] == 50
