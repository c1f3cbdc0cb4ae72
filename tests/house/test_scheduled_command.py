"""`manage.py scheduled`: what is not due yet, in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from django.core.management.base import CommandError

from tests.house.test_commands import APP, UNKNOWN, manage


@pytest.fixture
def send(our_database: str) -> Callable[..., str]:
    manage("register", APP)

    def send(key: str = "Mary", delay: str = "1h") -> str:
        return manage("invoke", "Mailbox", "put", "--key", key, "--input", '"Hi"', "--delay", delay).out.strip()

    return send


def listed(*filters: str) -> list[str]:
    return [line.split()[2] for line in manage("scheduled", *filters).out.splitlines()[1:]]


def test_they_are_listed_by_due_time_moved_and_taken_back(send: Callable[..., str]) -> None:
    later, sooner = send(delay="2h"), send(delay="1h")
    assert listed() == [sooner, later]
    assert listed("list", "--key", "Tom") == []

    said = manage("scheduled", "move", later, "--delay", "30m")
    assert said.out.startswith(f"{later}  is due at 2")
    assert said.err == "The order of the sends to Mailbox/Mary has changed (1 passed).\n"
    assert listed() == [later, sooner]
    assert manage("scheduled", "cancel", later).out == f"{later}  is taken back\n"
    assert manage("scheduled", "run-now", sooner).out == f"{sooner}  begins now\n"


def test_one_that_cannot_be_told_is_the_exit_code(send: Callable[..., str]) -> None:
    id = send()

    with pytest.raises(CommandError, match="1 of 2 could not be told"):
        manage("scheduled", "cancel", id, UNKNOWN)

    assert listed() == []


def test_those_of_a_filter_are_touched_only_when_asked_in_earnest(
    send: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(), send(), send("Tom")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)

    assert manage("scheduled", "cancel", "--key", "Mary", "--dry-run").out == "2 sends are meant. Nothing was done.\n"
    for command, message in [
        (["cancel"], "Which ones"),
        (["cancel", "--key", "Mary"], "cancel 2 sends. Say --yes"),
        (["move", "--key", "Tom"], "To what time"),
    ]:
        with pytest.raises(CommandError, match=message):
            manage("scheduled", *command)
    assert len(listed()) == 3
    assert manage("scheduled", "cancel", "--key", "Mary", "--yes").out == "cancel: 2 of 2 sends.\n"
    assert len(listed()) == 1
