"""`manage.py objects` and `manage.py state`: virtual objects in a terminal."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from django.core.management.base import CommandError

from perdure.protocol.messages import Output
from runtime.core import edits
from runtime.operations import Ended, Operations
from tests.house.test_commands import APP, manage


@pytest.fixture
def mary(our_database: str) -> None:
    """An object with values, and one that waits for it."""
    manage("register", APP)
    with psycopg.connect(our_database) as connection:
        for name, value in (("count", b"7"), ("raw", b"\xff")):
            connection.execute("INSERT INTO state VALUES ('Mailbox', 'Mary', %s, %s)", [name, value])
    manage("invoke", "Mailbox", "put", "--key", "Mary", "--input", '"Hi"', "--send")


def ending(monkeypatch: pytest.MonkeyPatch, values: dict[str, bytes], **wanted: Any) -> None:
    """Let every edit end as an engine would have it end that finds these values: there are no engines here."""
    (output,) = (one for one in edits.carry_out(edits.Edit(by="x", **wanted), values) if isinstance(one, Output))

    async def attach(_: Operations, id: bytes) -> Ended:
        return Ended(id, output.result)

    monkeypatch.setattr(Operations, "attach", attach)


def test_keys_are_listed_with_their_inboxes_and_one_is_shown(mary: None) -> None:
    assert manage("objects").out.splitlines()[1].split() == ["Mailbox", "Mary", "1", "yes"]
    assert json.loads(manage("objects", "--busy", "--json").out)[0]["inbox_length"] == 1
    assert "No key that is meant" in manage("objects", "Greeter").err
    shown = manage("objects", "Mailbox", "Mary").out.splitlines()
    assert shown[:3] == [
        "key     Mailbox/Mary", "held    by nobody", "values  manage.py state Mailbox Mary shows them",
    ]  # fmt: skip
    assert shown[-1].split()[0] == "pending"
    with pytest.raises(CommandError, match="nobody waits for it"):
        manage("objects", "Mailbox", "Tom")


def test_values_are_shown_with_their_version(mary: None) -> None:
    version = edits.version({"count": b"7", "raw": b"\xff"})

    assert [line.split() for line in manage("state", "Mailbox", "Mary").out.splitlines()] == [
        ["NAME", "VALUE"], ["count", "7"], ["raw", "/w==", "(base64)"], ["version", version],
    ]  # fmt: skip
    assert manage("state", "Mailbox", "Mary", "--json").json() == {
        "version": version, "state": {"count": {"json": 7}, "raw": {"base64": "/w=="}},
    }  # fmt: skip


def test_a_change_tells_the_new_version_or_that_the_values_are_others(
    mary: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, {}, set={"a": b"1"})
    said = manage("state", "Mailbox", "Mary", "--set", "a=1", "--expect", edits.version({}))
    assert said.out == f"version {edits.version({'a': b'1'})}\n"

    ending(monkeypatch, {"a": b"2"}, expected="other")
    with pytest.raises(CommandError, match=f"{edits.version({'a': b'2'})}. Nothing was changed"):
        manage("state", "Mailbox", "Mary", "--clear", "a", "--expect", "other")


def test_a_change_whose_turn_does_not_come_goes_on_waiting(mary: None) -> None:
    with pytest.raises(CommandError, match="waits for its turn still") as error:
        manage("state", "Mailbox", "Mary", "--set", 'text="ß"', "--timeout", "0.01")

    assert error.value.returncode == 4
    assert len(manage("objects", "Mailbox", "Mary").out.splitlines()) == 7


@pytest.mark.parametrize("value", ["a", "=1", "a=one", "a="])
def test_what_is_no_value_is_refused(mary: None, value: str) -> None:
    with pytest.raises(CommandError, match="JSON"):
        manage("state", "Mailbox", "Mary", "--set", value)


def test_an_unknown_history_says_how_one_begins(mary: None) -> None:
    assert "--set state_history=true" in manage("state", "Mailbox", "Mary", "--history").err


def test_a_history_is_shown(mary: None, our_database: str) -> None:
    with psycopg.connect(our_database) as connection:
        connection.execute(
            "INSERT INTO state_history (service, key, name, invocation, handler, actor, before, after, expires_on)"
            " VALUES ('Mailbox', 'Mary', 'count', gen_random_uuid(), 'put', NULL, NULL, '7', 'tomorrow'),"
            "        ('Mailbox', 'Mary', 'count', gen_random_uuid(), 'state.edit', 'ann', '7', NULL, 'tomorrow')"
        )

    lines = manage("state", "Mailbox", "Mary", "--history").out.splitlines()[1:]

    assert [line.split()[2:5] for line in lines] == [["count", "7", "ann"], ["count", "7", "put"]]
