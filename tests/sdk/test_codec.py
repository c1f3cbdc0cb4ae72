"""Messages and their frames: golden bytes of official SDKs, every message there and back, and no bytes that crash."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import ProtocolError
from perdure.protocol import messages as m
from perdure.protocol.codec import Decoder, decode, encode

# What a runtime and a Python service of the reference implementation were seen to say to each other.
START = m.Start(
    id=bytes(8) + b"\1" * 16, debug_id="inv_1debugid", known_entries=1, state_map={}, partial_state=True, random_seed=7
)
GOLDEN = [
    (
        START,
        f"000000000000002e 0a18 {'00' * 8} {'01' * 16} 120c 696e765f3164656275676964 1801 2801 4807",
    ),
    (m.Input(m.Value(b'"bob"')), "0400000000000009 72070a0522626f6222"),
    (m.Run(1, "side"), "0411000000000008 5801 6204 73696465"),
    (m.ProposeRunCompletion(1, m.Value(b'"hi bob"')), "000500000000000c 0801 7208 22686920626f6222"),
    (m.Suspension(m.Wait((1,), (1,))), "000100000000000a 2208 0a0101 120101 2801"),
    (m.RunCompletion(1, m.Value(b'"hi bob"')), "801100000000000e 0801 2a0a 0a08 22686920626f6222"),
    (m.SleepCompletion(2, m.VOID), "800c000000000004 0802 2200"),
    (m.Output(m.Value(b'"hi bob"')), "040100000000000c 720a 0a08 22686920626f6222"),
    (m.Output(m.Value()), "0401000000000002 7200"),
    (m.End(), "0003000000000000"),
]


@pytest.mark.parametrize(("message", "frame"), GOLDEN)
def test_frames_are_those_of_the_reference(message: m.Message, frame: str) -> None:
    assert encode(message).hex() == frame.replace(" ", "")
    assert decode(bytes.fromhex(frame)) == [message]


def test_a_flat_suspension_of_older_versions_is_read_as_first_completed() -> None:
    assert decode(bytes.fromhex("0001000000000006 0a0101 120101")) == [m.Suspension(m.Wait((1,), (1,)))]


def test_a_proposal_that_asks_for_an_ack_is_read_like_one_that_does_not() -> None:
    assert decode(bytes.fromhex("000580000000000c 0801 7208 22686920626f6222")) == [GOLDEN[3][0]]


def test_repeated_numbers_are_read_packed_and_unpacked() -> None:
    assert decode(bytes.fromhex("0001000000000009 0a020102 0803 120101")) == [m.Suspension(m.Wait((1, 2, 3), (1,)))]


def test_a_terminal_failure_keeps_its_metadata() -> None:
    output = m.Output(m.Failure(418, "nope", (("k", "v"),)))
    assert decode(encode(output)) == [output]


def test_absent_and_empty_are_two_things() -> None:
    absent = m.Call("S", "h", b"", 1, 2)
    empty = m.Call("S", "h", b"", 1, 2, idempotency_key="")
    assert decode(encode(absent) + encode(empty)) == [absent, empty]


def test_unknown_fields_are_skipped() -> None:
    # A run with fields 99 (number), 98 (bytes), 97 (fixed 64) and 96 (fixed 32) around its own.
    payload = bytes.fromhex("980601 9206 03616263 5801 8906 0102030405060708 8506 01020304 6204 73696465")
    assert decode(bytes.fromhex("04110000") + len(payload).to_bytes(4, "big") + payload) == [m.Run(1, "side")]


def test_numbers_that_an_enum_does_not_know_are_read_as_its_first() -> None:
    [error] = decode(bytes.fromhex("0002000000000004 0801 4863"))
    assert isinstance(error, m.Error)
    assert error.behavior is m.Behavior.RETRY


@pytest.mark.parametrize(
    "frame",
    [
        "0004000000000000",  # a type that nobody sends
        "fc00000000000000",
        "0003000000000001",  # cut off
        "00030000000000",
        "0401000000000000",  # an output without a result
        "800c0000000000022200",  # a completion without an id
        "800c0000000000020801",  # ... without a result
        "fbff0000000000022200",  # a signal without a name
        "041100000000000458ffffff",  # a number that does not end
        "04110000000000026204",  # a text that runs over the end
        "0411000000000003 6201ff",  # a text that is none
        "0411000000000001 07",  # a wire type that is none
        "0411000000000002 5b00",
        "0411000000000002 0000",  # field 0
        "041100000000000c 58 ffffffffffffffffffff01",  # eleven bytes
        "0001" + "0000" + "00000002" + "0a05",
        "0003000002000001" + "00",  # longer than allowed
    ],
)
def test_malformed_frames_are_refused(frame: str) -> None:
    with pytest.raises(ProtocolError):
        decode(bytes.fromhex(frame))


def test_a_wait_nested_too_deeply_is_refused() -> None:
    payload = b""
    for _ in range(5000):
        length = len(payload)
        size = b""
        while length > 127:
            size += bytes([length & 127 | 128])
            length >>= 7
        payload = b"\x22" + size + bytes([length]) + payload
    with pytest.raises(ProtocolError):
        decode(bytes.fromhex("00010000") + len(payload).to_bytes(4, "big") + payload)


def test_numbers_that_do_not_fit_are_not_written() -> None:
    with pytest.raises(ProtocolError):
        encode(m.Sleep(-1, 1))
    with pytest.raises(ProtocolError):
        encode(m.Sleep(1 << 64, 1))


def test_a_message_longer_than_the_limit_is_refused_by_its_header_alone() -> None:
    decoder = Decoder(largest_payload=100)
    with pytest.raises(ProtocolError):
        decoder.feed(encode(m.Output(m.Value(b"x" * 200)))[:8])


# Every message -------------------------------------------------------------------------------------------------------

LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
UINT = st.integers(0, 2**32 - 1) | st.sampled_from([0, 127, 128, 2047, 2048, 2**64 - 1])
WAITS = st.recursive(
    st.builds(m.Wait, st.lists(UINT).map(tuple), st.lists(UINT).map(tuple), st.lists(LETTERS).map(tuple)),
    lambda inner: st.builds(
        m.Wait,
        st.lists(UINT).map(tuple),
        nested=st.lists(inner, max_size=3).map(tuple),
        combinator=st.sampled_from(m.Combinator),
    ),
    max_leaves=8,
)
BY_HINT: dict[Any, st.SearchStrategy[Any]] = {
    int: UINT,
    str: LETTERS,
    bytes: st.binary(max_size=300),
    m.Wait: WAITS,
    m.Failure: st.builds(m.Failure, UINT, LETTERS, st.lists(st.tuples(LETTERS, LETTERS), max_size=3).map(tuple)),
    Mapping[str, bytes]: st.dictionaries(LETTERS, st.binary(max_size=300), max_size=3),
}


def concrete(kind: type[m.Message]) -> list[type[m.Message]]:
    below = [found for child in kind.__subclasses__() for found in concrete(child)]
    return below if kind.CODE < 0 else [kind, *below]


ALLOWED_RESULTS: dict[type[m.Message], list[type]] = {
    m.GetLazyStateCompletion: [m.Void, m.Value],
    m.GetLazyStateKeysCompletion: [m.StateKeys],
    m.GetPromiseCompletion: [m.Value, m.Failure],
    m.PeekPromiseCompletion: [m.Void, m.Value, m.Failure],
    m.CompletePromiseCompletion: [m.Void, m.Failure],
    m.SleepCompletion: [m.Void],
    m.CallCompletion: [m.Value, m.Failure],
    m.CallInvocationIdCompletion: [m.InvocationRef],
    m.RunCompletion: [m.Value, m.Failure],
    m.AttachInvocationCompletion: [m.Value, m.Failure],
    m.GetInvocationOutputCompletion: [m.Void, m.Value, m.Failure],
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    if hint in BY_HINT:
        return BY_HINT[hint]
    return structs(hint) if hasattr(hint, "__struct_fields__") else st.from_type(hint)


def structs(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    fields = {name: union(hints[name]) for name in kind.__struct_fields__}
    if kind in ALLOWED_RESULTS:
        fields["result"] = st.one_of([values(choice) for choice in ALLOWED_RESULTS[kind]])
    return st.builds(kind, **fields)


def union(hint: Any) -> st.SearchStrategy[Any]:
    arguments = typing.get_args(hint)
    if hint in BY_HINT:
        return BY_HINT[hint]
    if typing.get_origin(hint) is tuple:
        return st.lists(union(arguments[0]), max_size=3).map(tuple)
    if arguments:
        return st.one_of([st.none() if choice is type(None) else values(choice) for choice in arguments])
    return values(hint)


MESSAGES = st.sampled_from(concrete(m.Message)).flatmap(structs)


@pytest.mark.parametrize("kind", concrete(m.Message), ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_went(kind: type[m.Message]) -> None:
    @given(structs(kind))
    def check(message: m.Message) -> None:
        assert decode(encode(message)) == [message]

    check()


@given(st.lists(MESSAGES, max_size=5), st.data())
def test_a_stream_may_be_cut_anywhere(messages: list[m.Message], data: st.DataObject) -> None:
    stream = b"".join(map(encode, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = Decoder()
    got = [
        message
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for message in decoder.feed(stream[start:end])
    ]
    assert got == messages
    assert decoder.drained


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_protocol_error(frames: bytes) -> None:
    with suppress(ProtocolError):
        decode(frames)


@given(st.sampled_from([kind.CODE for kind in concrete(m.Message)]), st.binary(max_size=200))
def test_any_payload_is_a_message_or_a_protocol_error(code: int, payload: bytes) -> None:
    try:
        messages = decode(code.to_bytes(2, "big") + bytes(2) + len(payload).to_bytes(4, "big") + payload)
    except ProtocolError:
        return
    assert decode(b"".join(map(encode, messages))) == messages


@given(MESSAGES, st.data())
def test_a_damaged_frame_is_messages_or_a_protocol_error(message: m.Message, data: st.DataObject) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        decode(bytes(frame))
