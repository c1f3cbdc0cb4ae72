"""Servers of HTTP/2 that break it: each loses its own connection or answer, in words, and nothing else happens."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hpack import Decoder, Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.outbound import frames
from runtime.outbound.connection import PeerLimits
from runtime.outbound.exchange import Exchange
from runtime.outbound.faults import BrokenProtocol, OutboundError
from runtime.outbound.http2 import STREAM_WINDOW, Http2Connection
from runtime.outbound.squeeze import Squeezer
from tests.support.asking import Ear, ask, peer
from tests.support.http11 import Talk, talking

SETTINGS = frames.settings({})
HEADERS = [(":method", "POST"), (":path", "/x"), (":scheme", "http"), (":authority", "a")]


def head(*headers: tuple[str, str]) -> bytes:
    return Encoder().encode(headers)


OK = head((":status", "200"))
LARGE = head((":status", "200"), *[("x-" + str(n), "y" * 1000) for n in range(100)])


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.frame(kind, flags, stream, payload)


async def test_a_server_that_does_not_begin_with_its_settings_is_left() -> None:
    await loses(frame(frames.PING, 0, 0, bytes(8)), "does not begin as HTTP/2 does")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (frame(frames.DATA, 0, 1, b"x"), "body of an answer before its head"),
        (frame(frames.DATA, 0, 99, b"x"), "stream that does not exist"),
        (frame(frames.DATA, 0, 0, b"x"), "stream that does not exist"),
        (frame(frames.HEADERS, 4, 99, OK), "never made"),
        (frame(frames.HEADERS, 4, 2, OK), "never made"),
        (frame(frames.HEADERS, 4, 1, b"\xff" * 20), "cannot be read"),
        (frame(frames.HEADERS, 4, 1, head(("a", "b"))), "without a status"),
        (frame(frames.HEADERS, 4, 1, head((":status", "2000"))), "without a status"),
        (frame(frames.HEADERS, 4, 1, head((":status", "abc"))), "without a status"),
        (frame(frames.HEADERS, 5, 1, head((":status", "103"))), "without a status"),
        (frame(frames.HEADERS, 4 | 8, 1, b"\xff"), "no headers"),
        (frame(frames.HEADERS, 4 | 32, 1, b"ab"), "no headers"),
        (frame(frames.HEADERS, 4, 1, OK) * 2, "two heads"),
        (frame(frames.HEADERS, 0, 1, OK) + frame(frames.PING, 0, 0, bytes(8)), "in the middle of a block"),
        (frame(frames.CONTINUATION, 4, 1, OK), "have not begun"),
        (frame(frames.HEADERS, 0, 1) + frame(frames.CONTINUATION, 0, 1) * 100, "more headers than we take"),
        (frame(frames.HEADERS, 0, 1) + frame(frames.CONTINUATION, 0, 1, bytes(16384)) * 5, "more headers than we take"),
        (frames.headers(1, LARGE, 16384, is_end=False), "more headers than we take|too many"),
        (frame(frames.HEADERS, 4, 1, OK) + frame(frames.DATA, 8, 1, b"\xff"), "more than there is in it"),
        (frame(frames.PUSH_PROMISE, 4, 1, bytes(4) + OK), "pushes"),
        (frame(frames.PING, 0, 0, b"x"), "ping that is none"),
        (frame(frames.SETTINGS, 0, 0, b"x"), "settings that are no settings"),
        (frame(frames.SETTINGS, 0, 1), "settings that are no settings"),
        (frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}), "opens a window too far"),
        (frames.settings({frames.MAX_FRAME_SIZE: 10}), "size that cannot be"),
        (frames.window_update(0, 0), "opens a window too far"),
        (frames.window_update(0, 2**31 - 1), "opens a window too far"),
        (frames.window_update(1, 2**31 - 1), "opens a window too far"),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"x"), "as nobody does"),
        (frame(frames.RST_STREAM, 0, 1, b"x"), "as nobody does"),
        (frame(frames.GOAWAY, 0, 0, b"x"), "as nobody does"),
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", "too large"),
    ],
)
async def test_what_http2_does_not_allow_ends_the_answer(said: bytes, words: str) -> None:
    await loses(SETTINGS + said, words)


async def test_a_server_that_sends_more_than_it_may_is_left() -> None:
    await loses(
        SETTINGS + frame(frames.HEADERS, 4, 1, OK) + frame(frames.DATA, 0, 1, bytes(16384)) * 17,
        "more than it may",
        acknowledges=False,
    )


async def loses(said: bytes, words: str, *, acknowledges: bool = True) -> None:
    async def play(talk: Talk) -> None:
        if said.startswith(SETTINGS):
            await talk.say(SETTINGS)
            await talk.reader.readuntil(b"body!")
            await talk.say(said[len(SETTINGS) :])
        else:
            await talk.say(said)
        await talk.reader.read(-1)

    async with talking(play) as line, peer(line.url) as it:
        ear = ask(it, body=b"body!")
        ear.acknowledges = acknowledges
        await ear.over()

    assert isinstance(ear.error, BrokenProtocol)
    assert any(part in str(ear.error) for part in words.split("|")), str(ear.error)


@pytest.mark.parametrize("goodbye", [b"", frame(frames.GOAWAY, 0, 0, bytes(8)), frame(frames.PING, 0, 0)])
async def test_a_server_that_opens_and_closes_at_once_keeps_nobody_waiting(goodbye: bytes) -> None:
    async def play(talk: Talk) -> None:
        await talk.say(SETTINGS + goodbye)

    async with talking(play) as line, peer(line.url) as it:
        for _ in range(3):
            assert (await ask(it).over()).error is not None


async def test_a_server_that_takes_no_stream_is_left() -> None:
    await loses(frames.settings({frames.MAX_CONCURRENT_STREAMS: 0}), "allows no stream")


async def test_a_server_that_asks_and_does_not_read_the_answers_is_left() -> None:
    async def flood(talk: Talk) -> None:
        await talk.say(SETTINGS)
        talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while True:
            await talk.say(frame(frames.PING, 0, 0, bytes(8)) * 1000)

    async with talking(flood) as line, peer(line.url) as it:
        ear = await ask(it).over()

    assert ear.error is not None


@pytest.mark.parametrize(
    "said",
    [
        frame(frames.PRIORITY, 0, 1, bytes(5)),
        frame(0xBE, 0xFF, 1, b"anything"),  # of an extension
        frame(frames.DATA, 0, 1),
        frame(frames.DATA, 8, 1, b"\x03\0\0\0"),
        frame(frames.SETTINGS, frames.ACK, 0),
        frames.settings({0x99: 7, frames.HEADER_TABLE_SIZE: 0}),
        frames.settings({frames.HEADER_TABLE_SIZE: 65536}),
    ],
)
async def test_what_is_odd_and_allowed_disturbs_nothing(said: bytes) -> None:
    async def play(talk: Talk) -> None:
        await talk.say(SETTINGS)
        await talk.reader.readuntil(b"body!")
        await talk.say(frame(frames.HEADERS, 4, 1, OK) + said + frame(frames.DATA, 1, 1, b"done"))
        await talk.reader.readuntil(b"again")
        await talk.say(frame(frames.HEADERS, 4, 3, OK) + frame(frames.DATA, 1, 3, b"done"))
        await talk.reader.read(-1)

    async with talking(play) as line, peer(line.url) as it:
        assert (await ask(it, body=b"body!").over()).body == b"done"
        assert (await ask(it, body=b"again").over()).body == b"done"


async def test_frames_may_come_in_any_pieces() -> None:
    async def play(talk: Talk) -> None:
        said = frame(frames.HEADERS, 0, 1, OK[:1]) + frame(frames.CONTINUATION, 4, 1, OK[1:])
        said = SETTINGS + said + frame(frames.DATA, 0, 1, b"one") + frame(frames.DATA, 1, 1, b"two")
        await talk.say(SETTINGS)
        await talk.reader.readuntil(b"body!")
        for byte in said[len(SETTINGS) :]:
            await talk.say(bytes((byte,)))
            await asyncio.sleep(0)
        await talk.reader.read(-1)

    async with talking(play) as line, peer(line.url) as it:
        assert (await ask(it, body=b"body!").over()).body == b"onetwo"


class _Owner:
    def freed(self, connection: object) -> None: ...

    def gone(self, connection: object) -> None: ...

    def again(self, exchange: Exchange) -> None: ...


class _Wire(asyncio.Transport):
    """Where what is sent goes: nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.is_shut = False

    def write(self, data: object) -> None: ...

    def close(self) -> None:
        self.is_shut = True

    def abort(self) -> None:
        self.is_shut = True

    def is_closing(self) -> bool:
        return self.is_shut

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


FRAMES = st.builds(
    frame,
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 32, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([OK, b"", bytes(4), bytes(8), b"\x7f\xff\xff\xff", head((":status", "204"), ("a", "b"))]),
    ),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(said=st.lists(st.one_of(FRAMES, st.binary(max_size=20)), max_size=12), cut=st.integers(1, 50))
def test_whatever_a_server_says_each_exchange_ends_at_most_once_and_nothing_is_raised(
    said: list[bytes], cut: int
) -> None:
    async def play() -> None:
        connection = Http2Connection(_Owner(), "it", PeerLimits())
        connection.opened.add_done_callback(lambda done: done.exception())
        connection.connection_made(_Wire())
        connection.data_received(SETTINGS)
        ears = []
        for _ in range(3):
            ear = Ear()  # which asserts that it is told in order, and ends once
            ear.exchange = Exchange("POST", "/x", HEADERS, ear, connection)
            connection.start(ear.exchange)
            ear.exchange.send(b"x" * 100)
            ears.append(ear)
        stream = b"".join(said)
        for at in range(0, len(stream), cut):
            if not connection.is_over:
                connection.data_received(stream[at : at + cut])
        await asyncio.sleep(0)
        connection.connection_lost(None)
        assert all(ear.is_over for ear in ears)
        assert all(len(ear.body) <= STREAM_WINDOW for ear in ears)
        assert all(ear.error is None or isinstance(ear.error, OutboundError) for ear in ears)

    with pytest.MonkeyPatch.context() as patch:
        stumbled: list[object] = []
        patch.setattr(logging.getLogger("runtime.outbound.exchange"), "exception", lambda *a: stumbled.append(a))
        asyncio.run(play())
        assert not stumbled


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["accept", ":path", "x-id", "content-type", "authorization"]),
                st.text(st.characters(max_codepoint=255), max_size=200),
            ),
            max_size=8,
        ),
        max_size=30,
    ),
    st.sampled_from([0, 100, 4096, 65536]),
)
def test_what_is_squeezed_is_what_an_hpack_library_reads(blocks: list[list[tuple[str, str]]], table: int) -> None:
    squeezer, reader = Squeezer(table), Decoder()
    reader.max_allowed_table_size = max(table, 4096)
    for number, block in enumerate(blocks):
        if number == 20:
            squeezer.shrink(0)
        read = reader.decode(squeezer.block(block), raw=True)
        assert [(name.decode("latin-1"), value.decode("latin-1")) for name, value, *_ in read] == block
