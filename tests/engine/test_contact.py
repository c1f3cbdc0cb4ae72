"""While the broker does not answer nobody can attach an engine, or take its queue away: it goes on with what it had."""

from __future__ import annotations

from runtime.engine.contact import RECENT, REUNION, SILENCE, Contact


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def answers() -> None:
    pass


def fails() -> None:
    raise ConnectionError


def made() -> tuple[Contact, Clock]:
    clock = Clock()
    return Contact(clock), clock


def test_a_broker_that_answers_is_not_missed() -> None:
    contact, clock = made()
    for _ in range(5):
        contact.ask(answers)
        clock.now += SILENCE
        assert not contact.is_missed


def test_one_that_fails_for_a_while_is_missed_until_workers_had_time_to_come_back_to_it() -> None:
    contact, clock = made()
    contact.ask(fails)
    assert not contact.is_missed
    clock.now += SILENCE + 1
    contact.ask(fails)
    assert contact.is_lost
    clock.now += 10_000
    assert contact.is_missed
    contact.ask(answers)
    assert contact.is_missed
    assert not contact.is_lost
    clock.now += REUNION + 1
    assert not contact.is_missed


def test_one_that_lets_us_wait_is_missed_meanwhile() -> None:
    contact, clock = made()
    missed = []

    def hangs() -> None:
        clock.now += SILENCE + 1
        missed.append(contact.is_missed)

    contact.ask(hangs)
    assert missed == [True]


def test_an_engine_that_had_no_drain_for_long_goes_on_without_a_queue() -> None:
    contact, clock = made()
    clock.now += RECENT + 1
    contact.ask(fails)
    clock.now += SILENCE + 1
    assert contact.is_lost
    assert not contact.is_missed


def test_what_was_lost_twice_in_a_row_is_missed_all_along() -> None:
    contact, clock = made()
    contact.ask(fails)
    clock.now += RECENT + 1
    contact.ask(answers)
    contact.ask(fails)
    clock.now += REUNION + 1
    assert contact.is_missed
