"""While the broker does not answer nobody can be sent a drain: an engine that was attached stays so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from perdure.protocol.limits import DEFAULTS
from runtime.engine import runner
from runtime.engine.runner import Runner
from tests.support.servers import wait_until


class Broker:
    """Answers, or not; knows how often it was asked."""

    def __init__(self) -> None:
        self.is_there = True
        self.asked = 0

    def answers(self) -> bool:
        answer = self.is_there
        self.asked += 1
        return answer

    def wait_until_asked(self) -> None:
        """By who has seen how it is now."""
        before = self.asked
        wait_until(lambda: self.asked > before + 1)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def child(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """A worker's child process without an engine, which had no drain yet."""
    monkeypatch.setattr(runner, "ASK", 0.01)
    monkeypatch.setattr(runner, "IDLE", 0.0)
    monkeypatch.setattr(runner, "REUNION", 0.0)
    child = Runner(
        "",
        queues=["default"],
        services=[],
        sockets="",
        token=b"",
        stuck_after=60,
        most_bytes=2**26,
        limits=DEFAULTS,
    )
    keeper = threading.Thread(target=child.keep_attached, args=(broker.answers,))
    keeper.start()
    yield child
    child._stopping.set()
    keeper.join()


def test_while_the_broker_answers_only_a_drain_attaches(broker: Broker, child: Runner) -> None:
    broker.wait_until_asked()
    assert not child.is_attached
    child.drain()
    broker.wait_until_asked()
    assert not child.is_attached


def test_who_was_attached_stays_so_until_the_broker_is_back(broker: Broker, child: Runner) -> None:
    child.drain()
    broker.is_there = False
    wait_until(lambda: child.is_attached)
    broker.wait_until_asked()
    assert child.is_attached
    broker.is_there = True
    wait_until(lambda: not child.is_attached)


def test_who_is_born_without_a_broker_is_attached(broker: Broker, child: Runner) -> None:
    broker.is_there = False
    wait_until(lambda: child.is_attached)


def test_the_broker_is_back_before_drains_are(broker: Broker, child: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "REUNION", 3600.0)
    broker.is_there = False
    wait_until(lambda: child.is_attached)
    broker.is_there = True
    reached = broker.asked
    wait_until(lambda: broker.asked > reached)
    assert child.is_attached


def test_who_has_had_no_drain_for_long_goes_on_without_a_queue(broker: Broker, child: Runner) -> None:
    child._detached_at = time.monotonic() - runner.RECENT
    broker.is_there = False
    broker.wait_until_asked()
    assert not child.is_attached
