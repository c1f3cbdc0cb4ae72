"""The ingress behind the server it runs on: what only real connections show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn

from perdure.protocol.limits import Limits
from runtime.ingress import leftovers
from runtime.ingress.app import Ingress
from tests.support.manifests import registry
from tests.support.operations import FakeOperations

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def operations() -> FakeOperations:
    operations = FakeOperations(registry())
    operations.limits = Limits(payload=1000)
    return operations


@pytest.fixture
async def port(operations: FakeOperations) -> AsyncIterator[int]:
    config = uvicorn.Config(Ingress(lambda: operations), port=0, ws="none", lifespan="on", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.001)
    yield server.servers[0].sockets[0].getsockname()[1]
    operations.release()
    server.should_exit = True
    await serving


async def connect(port: int) -> Connection:
    return await asyncio.open_connection("127.0.0.1", port)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, headers and body of the next response."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split(b" ")[1]), head, await reader.readexactly(length)


def request(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


CHUNKED = request("/Greeter/greet", b"", "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")


async def test_calls_follow_one_another_on_a_connection(port: int, operations: FakeOperations) -> None:
    reader, writer = await connect(port)
    for name in (b'"Mary"', b'"Ann"'):
        writer.write(request("/Mailbox/a%2Fb/put", name))
        status, head, body = await answer(reader)
        assert (status, body) == (200, name)
        assert b"\r\nx-restate-id: inv_1" in head
    assert [submission.key for submission in operations.submissions] == ["a/b", "a/b"]
    writer.close()


async def test_a_closed_connection_ends_the_wait_but_not_the_invocation(port: int, operations: FakeOperations) -> None:
    operations.hold()
    _, writer = await connect(port)
    writer.write(request("/Greeter/greet", b'"Mary"'))
    await operations.has_waiter.wait()
    writer.close()
    async with asyncio.timeout(10):
        while operations.waiting:
            await asyncio.sleep(0.01)
    assert len(operations.submissions) == 1


async def test_a_call_that_takes_long_is_answered_all_the_same(port: int, operations: FakeOperations) -> None:
    operations.hold()
    reader, writer = await connect(port)
    writer.write(request("/Greeter/greet", b'"Mary"'))
    await operations.has_waiter.wait()
    while not any("_listen" in str(task.get_coro()) for task in asyncio.all_tasks()):
        await asyncio.sleep(0.01)
    operations.release()
    assert (await answer(reader))[0] == 200
    writer.write(request("/Greeter/greet", b'"Ann"'))
    assert (await answer(reader))[2] == b'"Ann"'
    writer.close()


async def test_a_large_body_is_refused_before_its_client_has_sent_it(port: int) -> None:
    reader, writer = await connect(port)
    whole = request("/Greeter/greet", b"x" * 1001, "expect: 100-continue")
    writer.write(whole[:-1001])
    status, head, _ = await answer(reader)
    assert status == 413
    assert b"\r\nconnection: close\r\n" in head
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_whoever_sends_a_large_body_to_its_end_can_read_why_it_was_refused(port: int, chunked: bool) -> None:
    """More than the socket's buffers hold: it is not answered while it sends, unless it is read."""
    reader, writer = await connect(port)
    body = b"x" * 16_000_000
    if chunked:
        writer.write(CHUNKED + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
    else:
        writer.write(request("/Greeter/greet", body))
    await writer.drain()
    async with asyncio.timeout(10):
        status, _, words = await answer(reader)
        assert await reader.read() == b""
    assert (status, b"PERDURE_LARGEST_PAYLOAD" in words) == (413, True)
    writer.close()


async def test_whoever_never_stops_sending_is_cut_off(port: int) -> None:
    _, writer = await connect(port)
    writer.write(CHUNKED)
    chunk = b"%x\r\n%b\r\n" % (1_000_000, b"x" * 1_000_000)
    sent = 0
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionError):
            while True:
                writer.write(chunk)
                await writer.drain()
                sent += 1_000_000
    assert sent < leftovers.MOST * 2
    writer.close()


async def test_whoever_trickles_on_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "LONGEST", 0.3)
    reader, writer = await connect(port)
    writer.write(request("/Greeter/greet", b"x" * 1_000_000)[:2000])
    assert (await answer(reader))[0] == 413
    async with asyncio.timeout(10):
        while not reader.at_eof() and reader.exception() is None:
            writer.write(b"x")
            await asyncio.sleep(0.01)
    writer.close()


async def test_whoever_says_nothing_more_is_left_soon(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SILENCE", 0.1)
    monkeypatch.setattr(leftovers, "LONGEST", 600.0)
    reader, writer = await connect(port)
    writer.write(request("/Greeter/greet", b"x" * 1_000_000)[:2000])
    async with asyncio.timeout(10):
        assert (await answer(reader))[0] == 413
        assert await reader.read() == b""
    writer.close()
