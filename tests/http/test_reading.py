"""A journal as people read it: every message can be shown, and whatever it says is JSON."""

from __future__ import annotations

import doctest
import importlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.protocol.codec import encode
from perdure.protocol.messages import (
    Call,
    CallCompletion,
    Command,
    Failure,
    Header,
    Input,
    Message,
    OneWayCall,
    Run,
    Signal,
    Value,
)
from runtime.reading.journal import Entry, read_journal
from tests.sdk.test_codec import concrete, structs

MESSAGES = st.sampled_from(concrete(Message)).flatmap(structs)


def shown(*messages: Message) -> list[Entry]:
    return read_journal(map(encode, messages))


@given(st.lists(MESSAGES, max_size=6))
def test_whatever_is_in_a_journal_is_shown_in_order_and_as_json(messages: list[Message]) -> None:
    entries = shown(*messages)

    assert [entry.index for entry in entries] == list(range(len(messages)))
    assert all(
        entry.type.startswith("Command: ") == isinstance(message, Command)
        for entry, message in zip(entries, messages, strict=True)
    )
    msgspec.json.decode(msgspec.json.encode(entries))


def test_a_call_is_named_by_its_target() -> None:
    call, send = shown(Call("Mailbox", "put", b'"Hi"', 1, 2, key="Mary"), OneWayCall("Greeter", "greet", b"", 3))

    assert (call.name, send.name) == ("Mailbox/Mary/put", "Greeter/greet")
    assert call.details["parameter"] == {"json": "Hi"}


def test_a_command_is_completed_when_its_own_completion_is_there() -> None:
    entries = shown(Run(1, "first"), Run(2, "second"), CallCompletion(2, Failure(500, "no")))

    assert [entry.completed for entry in entries] == [False, True, None]


@pytest.mark.parametrize(
    ("content", "details"),
    [(b'{"n":0}', {"json": {"n": 0}}), (b"Hi", {"text": "Hi"}), (b"\xff\x00", {"base64": "/wA="})],
)
def test_a_payload_is_shown_in_the_most_readable_form(content: bytes, details: dict[str, object]) -> None:
    (entry,) = shown(Input(Value(content), (Header("accept", "*/*"),)))

    assert entry.details == {"value": details, "headers": [{"key": "accept", "value": "*/*"}]}


def test_what_says_nothing_is_left_out() -> None:
    (entry,) = shown(Signal(1))

    assert entry == Entry(0, "Notification: Signal", "", None, {"signal": 1})


@pytest.mark.parametrize(
    "module",
    [
        "runtime.reading.journal",
        "runtime.management.commands._output",
        "runtime.core.filters",
        "runtime.reading.calls",
        "runtime.reading.words",
        "dashboard.queries",
        "dashboard.templatetags.invocations",
    ],
)
def test_examples_work(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted
    assert not results.failed
