"""HTTP/1.1 as a client: one exchange at a time on each connection, and connections that are used again."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from runtime.core.deployments import HttpVersion
from runtime.outbound.faults import BrokenProtocol, ConnectionLost, Silent, WrongProtocol
from runtime.outbound.http11 import Http11Connection
from tests.support.asking import ask, peer
from tests.support.http2 import Asked, serving
from tests.support.http11 import Talk, talking

OLD = HttpVersion.HTTP_1_1


async def echo(talk: Talk) -> None:
    while (asked := await talk.request()) is not None:
        target, headers, body = asked
        await talk.answer(body, target=target, host=headers["host"], said=headers.get("said", ""))


async def test_a_request_is_answered() -> None:
    async with talking(echo) as line, peer(line.url + "/base", OLD, headers={"Said": "yes"}) as it:
        ear = await ask(it, "/invoke/A/b", b"hello").over()

    assert (ear.status, ear.body, ear.is_ended) == (200, b"hello", True)
    assert ear.headers["target"] == "/base/invoke/A/b"
    assert (ear.headers["host"], ear.headers["said"]) == (f"127.0.0.1:{line.port}", "yes")


async def test_a_connection_is_used_again() -> None:
    async with talking(echo) as line, peer(line.url, OLD) as it:
        for number in range(5):
            assert (await ask(it, body=b"%d" % number).over()).body == b"%d" % number

    assert line.connections == 1


async def test_exchanges_at_the_same_time_have_a_connection_each() -> None:
    async with talking(echo) as line, peer(line.url, OLD) as it:
        ears = [ask(it, body=b"%d" % number) for number in range(10)]
        for number, ear in enumerate(ears):
            assert (await ear.over()).body == b"%d" % number

    assert line.connections == 10


async def test_nothing_is_sent_before_the_request_is_whole() -> None:
    async with talking(echo) as line, peer(line.url, OLD) as it:
        ear = ask(it, body=None)
        ear.exchange.send(b"one ")
        ear.exchange.send(b"two")
        assert ear.exchange.unsent == 7
        ear.exchange.finish()
        assert (await ear.over()).body == b"one two"
        assert ear.exchange.unsent == 0


async def test_an_answer_comes_as_it_is_sent() -> None:
    gate = asyncio.Event()

    async def slowly(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await gate.wait()
        await talk.say(b"3\r\ntwo\r\n0\r\n\r\n")

    async with talking(slowly) as line, peer(line.url, OLD) as it:
        ear = ask(it)
        await ear.until(lambda: ear.body == b"one")
        gate.set()
        assert (await ear.over()).body == b"onetwo"


async def test_an_answer_may_end_with_its_connection() -> None:
    async def until_closed(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with talking(until_closed) as line, peer(line.url, OLD) as it:
        ear = await ask(it).over()

    assert (ear.body, ear.is_ended) == (b"all of it", True)


async def test_an_answer_that_is_cut_off_is_lost() -> None:
    async def cut(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    async with talking(cut) as line, peer(line.url, OLD) as it:
        ear = await ask(it).over()

    assert isinstance(ear.error, ConnectionLost)


async def test_a_kept_connection_that_has_gone_meanwhile_is_not_held_against_the_next_request() -> None:
    async def once(talk: Talk) -> None:
        await talk.request()
        await talk.answer(b"done")
        await talk.request()  # and closes on hearing it

    async with talking(once) as line, peer(line.url, OLD) as it:
        assert (await ask(it).over()).body == b"done"
        assert (await ask(it).over()).body == b"done"

    assert line.connections == 2


async def test_an_answer_waits_until_what_came_is_dealt_with() -> None:
    async def large(talk: Talk) -> None:
        await talk.request()
        await talk.answer(bytes(4 * 2**20))

    async with talking(large) as line, peer(line.url, OLD) as it:
        ear = ask(it)
        ear.acknowledges = False
        await ear.until(lambda: len(ear.body) >= 256 * 1024)
        held = len(ear.body)
        ear.acknowledges = True
        ear.exchange.acknowledge(held)
        await ear.over()

    assert held < 2**20
    assert len(ear.body) == 4 * 2**20


async def test_an_interim_answer_is_passed_over() -> None:
    async def patient(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await talk.answer(b"done")

    async with talking(patient) as line, peer(line.url, OLD) as it:
        assert (await ask(it).over()).body == b"done"


async def test_what_is_no_http_is_said_so() -> None:
    async def noise(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"220 mail.example.com ESMTP\r\n")

    async with talking(noise) as line, peer(line.url, OLD) as it:
        ear = await ask(it).over()

    assert isinstance(ear.error, BrokenProtocol)


async def test_a_server_of_http2_is_recognised() -> None:
    async def never(asked: Asked) -> None:
        pass

    async with serving(never) as server, peer(server.url, OLD) as it:
        ear = await ask(it).over()

    assert isinstance(ear.error, WrongProtocol)
    assert "HTTP/2 only" in str(ear.error)
    assert "without use_http_11" in ear.error.hint


def test_it_is_recognised_on_the_loop_of_engines_too() -> None:
    """There its first words come before the connection is given out."""
    uvloop.run(test_a_server_of_http2_is_recognised())
    uvloop.run(test_a_connection_is_used_again())


async def test_a_server_that_only_hangs_up_may_be_starting_or_be_one_of_http11() -> None:
    async def hang_up(talk: Talk) -> None:
        await talk.reader.read(10)

    async with talking(hang_up) as line, peer(line.url) as it:
        ear = await ask(it).over()

    assert isinstance(ear.error, Silent)
    assert ear.error.is_passing
    assert "use_http_11" in ear.error.hint


async def test_a_server_of_http11_is_recognised() -> None:
    async def refuse(talk: Talk) -> None:
        await talk.reader.read(10)
        await talk.say(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")

    async with talking(refuse) as line, peer(line.url) as it:
        ear = await ask(it).over()

    assert isinstance(ear.error, WrongProtocol)
    assert "use_http_11" in ear.error.hint


async def test_another_machine_that_goes_without_a_word_is_missed_by_the_system() -> None:
    async with talking(echo) as line, peer(line.url, OLD) as it:
        await ask(it).over()
        (connection,) = it._connections
        assert isinstance(connection, Http11Connection)
        assert connection._transport is not None
        opened = connection._transport.get_extra_info("socket")

        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
