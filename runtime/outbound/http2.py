"""One HTTP/2 connection and the exchanges that share it.

Why not the h2 library: it holds a connection for closed as soon as the server announces that it will close it, which
takes every answer under way with it; and an exchange of five frames costs it 200 µs where this takes 50. Frames
are simple; the difficult part, reading squeezed headers, is done by hpack.

Everything that is to be sent in one turn of the loop leaves in one write. No exchange waits for another: what one
cannot send for want of a window is passed over. The window of the whole connection is opened as data comes in, that of
a single stream as its data is dealt with, so that a slow reader slows down its own answer only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import ClassVar, cast

from hpack import Decoder
from hpack.exceptions import HPACKError

from runtime.outbound import frames
from runtime.outbound.connection import USE_HTTP_11, Connection, Owner, PeerLimits, wrong_tongue
from runtime.outbound.exchange import Exchange
from runtime.outbound.faults import (
    BrokenProtocol,
    ConnectionLost,
    OutboundError,
    Shut,
    Silent,
    StreamReset,
    WrongProtocol,
)
from runtime.outbound.squeeze import Squeezer

STREAM_WINDOW = 256 * 1024
"""What a server may send of one answer before any of it was dealt with."""
CONNECTION_WINDOW = 16 * 2**20
LARGEST_HEADERS = 64 * 1024
MOST_PIECES = 64
"""Frames over which a block of headers may be spread."""
TURN = 64 * 1024
"""Bytes that one exchange may send before the others have had their turn."""
MOST_REPLIES = 256 * 1024
"""Bytes in which the server's own questions (pings, settings) are answered, if it does not read the answers."""


class Http2Connection(Connection):
    """Many exchanges at once. It takes them when the server has said its settings."""

    def __init__(self, owner: Owner, name: str, limits: PeerLimits) -> None:
        super().__init__(owner, name, limits)
        self._most = limits.streams
        self.exchanges: dict[int, Exchange] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._idle_since = self._loop.time()
        # What goes out.
        self._out: list[bytes] = []
        self._to_send: dict[Exchange, None] = {}
        self._blocked: dict[Exchange, None] = {}  # for want of the connection's window
        self._sated: dict[Exchange, None] = {}  # likewise, but they have had some of it: they come last
        self._flush_is_due = False
        self._is_paused = False
        self._next_stream = 1
        self._window = frames.DEFAULT_WINDOW
        self._stream_window = frames.DEFAULT_WINDOW
        self._largest = frames.LARGEST_FRAME
        self._squeezer = Squeezer()
        self._replies = 0
        # What comes in.
        self._reader = frames.Reader()
        self._decoder = Decoder(max_header_list_size=LARGEST_HEADERS)
        self._block: list[bytes] = []
        self._block_of: tuple[int, bool] | None = None
        self._unopened = 0
        self._has_heard = True
        self._is_asked = False
        self._has_begun = False

    @property
    def room(self) -> int:
        """How many more exchanges it takes now."""
        return 0 if self.is_gone else self._most - len(self.exchanges)

    @property
    def load(self) -> int:
        return len(self.exchanges)

    def start(self, exchange: Exchange) -> None:
        """Put an exchange on it; there must be room."""
        stream = self._next_stream
        self._next_stream += 2
        exchange.carrier = self
        exchange.stream = stream
        exchange.window = self._stream_window
        exchange.credit = STREAM_WINDOW
        self.exchanges[stream] = exchange
        is_end = exchange.is_finished and not exchange.unsent
        block = self._squeezer.block(exchange.headers)
        self._out.append(frames.headers(stream, block, self._largest, is_end=is_end))
        exchange.is_whole_sent = is_end
        if exchange.unsent:
            self._to_send[exchange] = None
        self._flush_soon()
        if stream >= 2 * self._limits.exchanges:
            self._retire(Shut(f"A connection to {self._name} has carried its share."))

    def close(self, error: OutboundError) -> None:
        """End it, with what is on it."""
        self._fail(error, frames.NO_ERROR)

    # What exchanges ask for. ----------------------------------------------------------------------------------------

    def wake(self, exchange: Exchange) -> None:
        self._to_send[exchange] = None
        if not self._flush_is_due:
            self._flush_soon()

    def drop(self, exchange: Exchange) -> None:
        if exchange.stream in self.exchanges:
            self._write(frames.reset(exchange.stream, frames.CANCEL))
            self._forget(exchange)

    def consumed(self, exchange: Exchange, size: int) -> None:
        # In large steps: an update is a frame, and most answers end long before one is needed.
        exchange.unopened += size
        if exchange.unopened >= STREAM_WINDOW // 2 and exchange.stream in self.exchanges:
            self._write(frames.window_update(exchange.stream, exchange.unopened))
            exchange.credit += exchange.unopened
            exchange.unopened = 0

    # Sending. --------------------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flush_is_due:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self.is_over or self._transport is None:
            return
        if self._to_send and not self._is_paused:
            for exchange in list(self._to_send):
                self._pump(exchange)
            self._blocked.update(self._sated)
            self._sated.clear()
            if self._to_send:
                self._flush_soon()
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._transport.write(data)

    def _pump(self, exchange: Exchange) -> None:
        """Send what the windows allow of one exchange, up to a turn."""
        turn = TURN
        while exchange.unsent and turn > 0:
            room = min(self._largest, exchange.window, self._window)
            if room <= 0:
                if exchange.window > 0:
                    (self._blocked if turn == TURN else self._sated)[exchange] = None
                break
            data = exchange.take(room)
            size = len(data)
            exchange.window -= size
            self._window -= size
            turn -= size
            is_end = exchange.is_finished and not exchange.unsent
            self._out.append(frames.frame(frames.DATA, is_end, exchange.stream, data))
            exchange.is_whole_sent = is_end
        else:
            if exchange.unsent:  # its turn is over
                del self._to_send[exchange]
                self._to_send[exchange] = None
                return
            if exchange.is_finished and not exchange.is_whole_sent:
                exchange.is_whole_sent = True
                self._out.append(frames.frame(frames.DATA, frames.END_STREAM, exchange.stream))
        self._to_send.pop(exchange, None)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._replies = 0
        self._flush_soon()

    # Coming and going. -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if (tls := transport.get_extra_info("ssl_object")) is not None and tls.selected_alpn_protocol() != "h2":
            self._fail(WrongProtocol(f"{self._name} does not offer HTTP/2.", hint=USE_HTTP_11), frames.NO_ERROR)
            return
        self._transport.set_write_buffer_limits(high=4 * TURN)
        said = {
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            frames.MAX_HEADER_LIST: LARGEST_HEADERS,
        }
        more = frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
        self._transport.write(frames.PREFACE + frames.settings(said) + more)
        self._tick = self._loop.call_later(self._limits.silence, self._look)

    def connection_lost(self, error: Exception | None) -> None:
        if self.is_over:
            return
        if not self.is_ready:
            words = f"{self._name} closed the connection before it said anything in HTTP/2."
            self._fail(Silent(words, hint=f"Is it just starting? If it does not speak HTTP/2: {USE_HTTP_11}"))
        else:
            reason = f": {error}" if error else ""
            self._fail(ConnectionLost(f"{self._name} closed the connection{reason}."))

    def _fail(self, error: OutboundError, code: int = frames.PROTOCOL_ERROR) -> None:
        """The connection is of no use any more; everything on it is lost."""
        if self.is_over:
            return
        self._retire(error)
        exchanges = list(self.exchanges.values())
        self.exchanges.clear()
        self._to_send.clear()
        self._blocked.clear()
        self._hang_up(code)
        for exchange in exchanges:
            exchange.lost(error)

    def _hang_up(self, code: int = frames.NO_ERROR) -> None:
        self.is_over = True
        if self._tick is not None:
            self._tick.cancel()
        if self._transport is not None:
            self._part(b"".join([*self._out, frames.goaway(code)]))
        self._out.clear()

    def _forget(self, exchange: Exchange) -> None:
        """An exchange has left."""
        self.exchanges.pop(exchange.stream, None)
        self._to_send.pop(exchange, None)
        self._blocked.pop(exchange, None)
        if not self.exchanges:
            self._idle_since = self._loop.time()
        if not self.is_gone:
            self._owner.freed(self)
        elif not self.exchanges:
            self._loop.call_soon(self._hang_up)  # after what is still to be written

    def _look(self) -> None:
        """From time to time: is the server still there, and is it needed?"""
        if not self.exchanges and self._loop.time() - self._idle_since >= self._limits.idle:
            self._fail(Shut(f"{self._name} was not needed any more."), frames.NO_ERROR)
            return
        if self.exchanges and not self._has_heard:
            if self._is_asked:
                self._fail(ConnectionLost(f"{self._name} has been silent for {2 * self._limits.silence:g} s."))
                return
            self._is_asked = True
            self._write(frames.frame(frames.PING, 0, 0, b"perdure?"))
        else:
            self._is_asked = False
        self._has_heard = False
        self._tick = self._loop.call_later(self._limits.silence, self._look)

    # Receiving. ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._has_heard = True
        if not self._has_begun:
            self._has_begun = True
            if (wrong := wrong_tongue(data, self._name)) is not None:
                self._fail(wrong)
                return
        try:
            for kind, flags, stream, payload in self._reader.feed(data):
                if self._block_of is not None and kind != frames.CONTINUATION:
                    raise Broken("sends something else in the middle of a block of headers")
                if not self.is_ready and kind != frames.SETTINGS:
                    raise Broken("does not begin as HTTP/2 does")
                if (take := self._takers.get(kind)) is not None:
                    take(self, flags, stream, payload)
                if self.is_over:
                    return
        except Broken as broken:
            self._fail(BrokenProtocol(f"{self._name} {broken}."), broken.code)
        except frames.FrameTooLarge:
            words = "sends a frame that is too large" if self.is_ready else "does not answer as HTTP/2 does"
            self._fail(BrokenProtocol(f"{self._name} {words}."), frames.FRAME_SIZE_ERROR)

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        self._unopened += size
        if self._unopened >= CONNECTION_WINDOW // 2:
            self._write(frames.window_update(0, self._unopened))
            self._unopened = 0
        exchange = self.exchanges.get(stream)
        if exchange is None:
            if stream == 0 or stream >= self._next_stream:
                raise Broken("sends data of a stream that does not exist")
            return  # of an exchange that was forgotten
        data = frames.unpadded(payload, flags)
        if data is None:
            raise Broken("pads a frame with more than there is in it")
        if not exchange.has_head:
            self._break(exchange, BrokenProtocol(f"{self._name} sends the body of an answer before its head."))
            return
        exchange.credit -= size
        if exchange.credit < 0:
            raise Broken("sends more than it may", frames.FLOW_CONTROL_ERROR)
        if data:
            exchange.data(data)
        if size > len(data):
            self.consumed(exchange, size - len(data))
        if flags & frames.END_STREAM and not exchange.is_over:
            self._end(exchange)

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        block = frames.unpadded(payload, flags)
        if block is None or (flags & frames.PRIORITISED and len(block) < 5):
            raise Broken("sends headers that are no headers")
        if flags & frames.PRIORITISED:
            block = block[5:]
        if stream == 0 or stream >= self._next_stream or not stream & 1:
            raise Broken("answers a request that was never made")
        self._block = [block]
        self._block_of = (stream, bool(flags & frames.END_STREAM))
        if flags & frames.END_HEADERS:
            self._take_block()

    def _take_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block_of is None or self._block_of[0] != stream:
            raise Broken("continues headers that have not begun")
        self._block.append(payload)
        if len(self._block) > MOST_PIECES or sum(map(len, self._block)) > LARGEST_HEADERS:
            raise Broken("sends more headers than we take")
        if flags & frames.END_HEADERS:
            self._take_block()

    def _take_block(self) -> None:
        assert self._block_of is not None
        (stream, is_end), self._block_of = self._block_of, None
        try:
            said = self._decoder.decode(b"".join(self._block), raw=True)
        except HPACKError as error:
            raise Broken("sends headers that cannot be read, or are too many", frames.COMPRESSION_ERROR) from error
        exchange = self.exchanges.get(stream)
        if exchange is None:
            return
        if not exchange.has_head:
            status, headers = _read_head([(bytes(name), bytes(value)) for name, value, *_ in said])
            if status is None or (status < 200 and is_end):
                self._break(exchange, BrokenProtocol(f"{self._name} sends a head without a status."))
                return
            if status < 200:
                return  # the real one is still to come
            exchange.has_head = True
            exchange.head(status, headers)
        elif not is_end:
            self._break(exchange, BrokenProtocol(f"{self._name} sends two heads of one answer."))
            return
        if is_end and not exchange.is_over:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        """The answer is whole. A server that does not wait for the end of the request does not want it."""
        if not exchange.is_whole_sent:
            self._write(frames.reset(exchange.stream, frames.NO_ERROR))
        self._forget(exchange)
        exchange.ended()

    def _break(self, exchange: Exchange, error: OutboundError) -> None:
        """One answer is of no use; the others are."""
        self._write(frames.reset(exchange.stream, frames.PROTOCOL_ERROR))
        self._forget(exchange)
        exchange.lost(error)

    def _take_reset(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4 or stream == 0:
            raise Broken("breaks off a stream as nobody does")
        exchange = self.exchanges.get(stream)
        if exchange is not None:
            self._forget(exchange)
            exchange.lost(StreamReset(f"{self._name} broke off its answer ({frames.error_name(payload)})."))

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        if len(payload) % 6 or stream:
            raise Broken("sends settings that are no settings")
        for name, value in frames.read_settings(payload):
            if name == frames.MAX_CONCURRENT_STREAMS:
                self._most = min(self._most, value)
            elif name == frames.INITIAL_WINDOW_SIZE:
                self._rewind(value)
            elif name == frames.MAX_FRAME_SIZE:
                if not frames.LARGEST_FRAME <= value < 2**24:
                    raise Broken("asks for frames of a size that cannot be")
                self._largest = min(value, TURN)
            elif name == frames.HEADER_TABLE_SIZE:
                self._resize(value)
        self._reply(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self.is_ready:
            if self._most == 0:
                self._fail(BrokenProtocol(f"{self._name} takes no requests: it allows no stream."))
                return
            self._open()

    def _resize(self, table: int) -> None:
        if self._next_stream == 1:
            self._squeezer = Squeezer(table)
        else:
            self._squeezer.shrink(table)

    def _rewind(self, window: int) -> None:
        """The server changes the window that each stream begins with, and with it those under way."""
        if window > frames.LARGEST_WINDOW:
            raise Broken("opens a window too far", frames.FLOW_CONTROL_ERROR)
        more, self._stream_window = window - self._stream_window, window
        for exchange in self.exchanges.values():
            exchange.window += more
            if exchange.unsent:
                self._to_send[exchange] = None
        self._flush_soon()

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 8 or stream:
            raise Broken("sends a ping that is none", frames.FRAME_SIZE_ERROR)
        if not flags & frames.ACK:
            self._reply(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _reply(self, data: bytes) -> None:
        self._write(data)
        self._replies = self._replies + len(data) if self._is_paused else 0
        if self._replies > MOST_REPLIES:
            raise Broken("asks and asks, and does not read the answers")

    def _take_goaway(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) < 8 or stream:
            raise Broken("says goodbye as nobody does")
        last, reason = frames.number(payload), frames.error_name(payload, 4)
        error = ConnectionLost(f"{self._name} is about to close the connection ({reason}).")
        self._retire(error)
        unseen = [exchange for number, exchange in self.exchanges.items() if number > last]
        for exchange in unseen:
            self._forget(exchange)
            exchange.lost(error)
        if not self.exchanges:
            self._loop.call_soon(self._hang_up)

    def _take_window(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken("opens a window as nobody does", frames.FRAME_SIZE_ERROR)
        size = frames.number(payload)
        if stream == 0:
            self._window += size
            if not size or self._window > frames.LARGEST_WINDOW:
                raise Broken("opens a window too far", frames.FLOW_CONTROL_ERROR)
            self._to_send.update(self._blocked)
            self._blocked.clear()
        elif (exchange := self.exchanges.get(stream)) is not None:
            exchange.window += size
            if not size or exchange.window > frames.LARGEST_WINDOW:
                self._break(exchange, BrokenProtocol(f"{self._name} opens a window too far."))
                return
            if exchange.unsent:
                self._to_send[exchange] = None
        if self._to_send:
            self._flush_soon()

    def _take_promise(self, flags: int, stream: int, payload: bytes) -> None:
        raise Broken("pushes what nobody asked for")

    _takers: ClassVar[Mapping[int, Callable[[Http2Connection, int, int, bytes], None]]] = {
        frames.DATA: _take_data,
        frames.HEADERS: _take_headers,
        frames.RST_STREAM: _take_reset,
        frames.SETTINGS: _take_settings,
        frames.PUSH_PROMISE: _take_promise,
        frames.PING: _take_ping,
        frames.GOAWAY: _take_goaway,
        frames.WINDOW_UPDATE: _take_window,
        frames.CONTINUATION: _take_continuation,
    }


class Broken(Exception):
    """The server does what HTTP/2 does not allow."""

    def __init__(self, words: str, code: int = frames.PROTOCOL_ERROR) -> None:
        super().__init__(words)
        self.code = code


def _read_head(said: list[tuple[bytes, bytes]]) -> tuple[int | None, Mapping[str, str]]:
    """The status of an answer, None if it has none, and its headers."""
    status: int | None = None
    headers: dict[str, str] = {}
    for raw, value in said:
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        if name == ":status":
            status = int(text) if len(text) == 3 and text.isascii() and text.isdigit() else None
        elif name in headers:
            headers[name] = f"{headers[name]}, {text}"
        else:
            headers[name] = text
    return status, headers
