"""HTTP/2 as a client, against a server on another implementation: streams, windows, limits, connections that end."""

from __future__ import annotations

import asyncio

import pytest

from runtime.outbound import frames
from runtime.outbound.faults import ConnectionLost, Crowded, Shut, StreamReset, Unreachable
from tests.support.asking import ask, peer
from tests.support.http2 import Asked, serving

MEGABYTE = 2**20


async def echo(asked: Asked) -> None:
    asked.head(content_type="text/plain", said=asked.headers.get("said", ""))
    while (chunk := await asked.chunk()) is not None:
        await asked.say(chunk)
    asked.end()


async def late(asked: Asked) -> None:
    """Answers when the request has ended, and not before."""
    body = await asked.body()
    asked.head()
    await asked.say(body)
    asked.end()


async def never(asked: Asked) -> None:
    asked.head()


async def test_a_request_is_answered() -> None:
    async with serving(echo) as server, peer(server.url + "/base", headers={"Authorization": "Bearer x"}) as it:
        ear = await ask(it, "/invoke/A/b", b"hello", headers=[("said", "yes")]).over()

    assert (ear.status, ear.body, ear.is_ended) == (200, b"hello", True)
    assert (ear.headers["content-type"], ear.headers["said"]) == ("text/plain", "yes")


async def test_what_is_asked_arrives_as_it_was_said() -> None:
    seen: list[dict[str, str]] = []

    async def note(asked: Asked) -> None:
        seen.append(asked.headers)
        asked.head(204)
        asked.end()

    async with serving(note) as server, peer(server.url + "/base", headers={"Authorization": "Bearer x"}) as it:
        for number in range(3):
            await ask(it, "/discover", b"", method="GET", headers=[("accept", "a/b"), ("number", str(number))]).over()

    authority = server.url.removeprefix("http://")
    assert seen == [
        {
            ":method": "GET", ":path": "/base/discover", ":scheme": "http", ":authority": authority,
            "user-agent": "perdure", "authorization": "Bearer x", "accept": "a/b", "number": str(number),
        }
        for number in range(3)
    ]  # fmt: skip


async def test_a_stream_goes_both_ways_at_once() -> None:
    async with serving(echo) as server, peer(server.url) as it:
        ear = ask(it, body=None)
        for word in (b"one", b"two", b"three"):
            before = ear.body
            ear.exchange.send(word)
            await ear.until(lambda before=before, word=word: ear.body == before + word)  # type: ignore[misc]
        assert not ear.is_over
        ear.exchange.finish()
        await ear.over()

    assert ear.is_ended


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 3 * MEGABYTE])
async def test_large_bodies_pass_through_small_windows(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with serving(late, initial_window_size=20_000) as server, peer(server.url) as it:
        ears = [ask(it, body=body) for _ in range(3)]
        for ear in ears:
            await ear.over()

    assert all(ear.body == body for ear in ears)


async def test_a_server_that_does_not_read_leaves_the_rest_unsent() -> None:
    async with serving(never) as server, peer(server.url) as it:
        server.opens_windows = False
        ear = ask(it, body=bytes(MEGABYTE))
        await ear.until(lambda: ear.status == 200)
        await server.until(lambda: ear.exchange.unsent == MEGABYTE - frames.DEFAULT_WINDOW)
        other = ask(it, body=b"")  # what needs no window gets through all the same
        await other.until(lambda: other.status == 200)


async def test_a_large_request_leaves_room_for_others() -> None:
    whole: list[str] = []

    async def note(asked: Asked) -> None:
        await asked.body()
        whole.append(asked.headers[":path"])
        asked.head()
        asked.end()

    async with serving(note, initial_window_size=2**30) as server, peer(server.url) as it:
        ears = [ask(it, "/large", bytes(4 * MEGABYTE)), *(ask(it, "/small", bytes(60_000)) for _ in range(5))]
        for ear in ears:
            await ear.over()

    assert whole[-1] == "/large"


async def test_an_answer_waits_until_what_came_is_dealt_with_and_the_others_go_on() -> None:
    async def large(asked: Asked) -> None:
        asked.head()
        await asked.say(bytes(MEGABYTE))
        asked.end()

    async with serving(large) as server, peer(server.url) as it:
        slow, quick = ask(it), ask(it)
        slow.acknowledges = False
        await quick.over()
        held = len(slow.body)
        slow.acknowledges = True
        slow.exchange.acknowledge(held)
        await slow.over()

    assert held <= 256 * 1024
    assert len(slow.body) == len(quick.body) == MEGABYTE


async def test_many_streams_share_connections_as_the_server_allows() -> None:
    gate = asyncio.Event()
    most = 0

    async def hold(asked: Asked) -> None:
        nonlocal most
        most = max(most, asked.server.http.open_inbound_streams)
        asked.head()
        await gate.wait()
        asked.end()

    async with serving(hold, max_concurrent_streams=50) as server, peer(server.url) as it:
        ears = [ask(it, body=b"x") for _ in range(1000)]
        await asyncio.gather(*(ear.until(lambda ear=ear: ear.status == 200) for ear in ears))  # type: ignore[misc]
        connections = len(server.connections)
        gate.set()
        await asyncio.gather(*(ear.over() for ear in ears))

    assert 20 <= connections <= 40
    assert most <= 50
    assert all(ear.is_ended for ear in ears)


async def test_one_slow_answer_holds_up_nobody() -> None:
    async def sometimes(asked: Asked) -> None:
        asked.head()
        if asked.headers[":path"] == "/fast":
            asked.end()

    async with serving(sometimes) as server, peer(server.url) as it:
        slow = ask(it, "/slow")
        await slow.until(lambda: slow.status == 200)
        for _ in range(20):
            await ask(it, "/fast").over()

        assert len(server.connections) == 1
        assert not slow.is_over


async def test_what_waits_too_long_for_a_stream_is_told() -> None:
    async with serving(never, max_concurrent_streams=1) as server, peer(server.url, wait=0.05, connections=1) as it:
        first = ask(it)
        await first.until(lambda: first.status == 200)
        second = await ask(it).over()
        third = ask(it)
        first.exchange.reset()
        await third.until(lambda: third.status == 200)

    assert isinstance(second.error, Crowded)


async def test_a_reset_tells_the_server_and_is_the_last_of_it() -> None:
    async with serving(never) as server, peer(server.url) as it:
        ear = ask(it, body=None)
        await ear.until(lambda: ear.status == 200)
        ear.exchange.reset()
        ear.exchange.send(b"nobody hears that")
        await server.until(lambda: server.connections[0].resets == [1])

    assert not ear.is_over


async def test_an_answer_that_the_server_breaks_off_is_lost_and_the_others_are_not() -> None:
    async def sometimes(asked: Asked) -> None:
        asked.head()
        if asked.headers[":path"] == "/breaks":
            asked.break_off()

    async with serving(sometimes) as server, peer(server.url) as it:
        other = ask(it, "/stays")
        broken = await ask(it, "/breaks").over()

        assert isinstance(broken.error, StreamReset)
        assert not other.is_over


async def test_a_server_that_answers_without_the_whole_request_has_answered() -> None:
    async def quick(asked: Asked) -> None:
        asked.head(413)
        asked.end()

    async with serving(quick) as server, peer(server.url) as it:
        ear = await ask(it, body=None).over()
        await server.until(lambda: server.connections[0].resets == [1])

    assert (ear.status, ear.is_ended) == (413, True)


async def test_a_goodbye_lets_what_is_under_way_end_and_what_comes_next_uses_another_connection() -> None:
    gate = asyncio.Event()

    async def gated(asked: Asked) -> None:
        asked.head()
        if asked.headers[":path"] == "/old":
            await gate.wait()
            # Written by hand: h2 sends nothing after a goodbye.
            end = frames.frame(frames.DATA, frames.END_STREAM, asked.stream, b"far")
            asked.server.transport.write(end)
        else:
            asked.end()

    async with serving(gated) as server, peer(server.url) as it:
        old = ask(it, "/old")
        await old.until(lambda: old.status == 200)
        goodbye = frames.frame(frames.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4))
        # By hand, for h2 sends nothing after a goodbye.
        server.connections[0].transport.write(goodbye + frames.frame(frames.DATA, 0, 1, b"so "))
        await old.until(lambda: old.body == b"so ")
        new = ask(it, "/new")
        await new.over()
        gate.set()
        await old.over()
        await server.until(lambda: len(server.connections) == 1)

    assert (old.body, old.is_ended, new.is_ended) == (b"so far", True, True)


async def test_a_connection_that_dies_loses_its_streams_and_the_next_request_makes_another() -> None:
    async with serving(never) as server, peer(server.url) as it:
        ears = [ask(it), ask(it)]
        for ear in ears:
            await ear.until(lambda ear=ear: ear.status == 200)  # type: ignore[misc]
        server.connections[0].transport.abort()
        for ear in ears:
            await ear.over()
            assert isinstance(ear.error, ConnectionLost)
        again = ask(it)
        await again.until(lambda: again.status == 200)


async def test_a_server_that_falls_silent_is_found_out() -> None:
    async with serving(never) as server, peer(server.url, silence=0.05) as it:
        ear = ask(it)
        await ear.until(lambda: ear.status == 200)
        server.connections[0].transport.pause_reading()  # it is stopped: it answers no ping either
        await ear.over()

    assert isinstance(ear.error, ConnectionLost)
    assert "silent" in str(ear.error)


async def test_a_long_silence_that_answers_pings_is_none() -> None:
    gate = asyncio.Event()

    async def gated(asked: Asked) -> None:
        asked.head()
        await gate.wait()
        asked.end()

    async with serving(gated) as server, peer(server.url, silence=0.1) as it:
        ear = ask(it)
        pings = 0
        heard = server.connections

        def count() -> bool:
            nonlocal pings
            pings += 1
            return pings > 3  # each time the server hears something it is a ping

        await server.until(lambda: bool(heard))
        await server.until(count)
        gate.set()
        await ear.over()

    assert ear.is_ended


async def test_a_connection_that_nobody_needs_is_closed() -> None:
    async with serving(echo) as server, peer(server.url, silence=0.02, idle=0.02) as it:
        await ask(it).over()
        await server.until(lambda: not server.connections)
        assert (await ask(it).over()).is_ended


async def test_a_connection_is_left_before_a_server_tires_of_it_and_nothing_on_it_is_lost() -> None:
    async with serving(echo) as server, peer(server.url, exchanges=10) as it:
        long = ask(it, body=None)
        await long.until(lambda: long.status == 200)
        for _ in range(35):
            assert (await ask(it, body=b"x").over()).is_ended
        await server.until(lambda: len(server.connections) == 2)  # that of the long one, and the newest
        long.exchange.finish()
        assert (await long.over()).is_ended
        await server.until(lambda: len(server.connections) == 1)


async def test_nobody_there_is_said_with_the_address() -> None:
    async with serving(echo) as server:
        url = server.url
    async with peer(url) as it:
        ear = await ask(it).over()

    assert isinstance(ear.error, Unreachable)
    assert url in str(ear.error)


async def test_closing_loses_what_is_under_way_and_what_waits() -> None:
    async with serving(never, max_concurrent_streams=1) as server, peer(server.url, connections=1) as it:
        first, second = ask(it), ask(it)
        await first.until(lambda: first.status == 200)
        await it.close()
        assert isinstance((await first.over()).error, Shut)
        assert isinstance((await second.over()).error, Shut)
        assert isinstance((await ask(it).over()).error, Shut)
