"""The connection breaks after a COMMIT and before its answer: nothing is lost for that, and nothing doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from runtime.engine import engine
from runtime.operations import operations
from tests.support.proxy import Proxy, between
from tests.support.world import WITHIN, World

SHORT = timedelta(milliseconds=20)


class Tally(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = (await ctx.get("total", int) or 0) + amount
        ctx.set("total", total)
        return total


class Clerk(Service):
    @handler
    async def work(self, ctx: Context, key: str) -> int:
        """Does one of everything."""
        ctx.object_send_client(Tally, key).add(1)
        await ctx.run("step", int, 1)
        await ctx.object_client(Tally, key).add(1)
        await ctx.sleep(SHORT)
        ctx.object_send_client(Tally, key, delay=SHORT).add(1)
        return await ctx.object_client(Tally, key).add(1)


app = Endpoint(Tally, Clerk)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    with TemporaryDirectory(prefix="pd-") as directory:
        yield Path(directory)


@pytest.fixture
async def proxy_and_world(
    database: str, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Proxy, World]]:
    monkeypatch.setattr(engine, "LEASE_REST", 0.05)
    monkeypatch.setattr(operations, "POLL", 0.05)
    monkeypatch.setattr(operations, "RECONNECT", 0.01)
    async with between(database) as (proxy, url), World(url, sockets, app) as world:
        yield proxy, world


@pytest.fixture
def proxy(proxy_and_world: tuple[Proxy, World]) -> Proxy:
    return proxy_and_world[0]


@pytest.fixture
def world(proxy_and_world: tuple[Proxy, World]) -> World:
    return proxy_and_world[1]


def lose_next(proxy: Proxy, world: World) -> None:
    """Let the next flush of the world's callers be made, and its answer be lost."""
    proxy.lose(world.operations._writer.backend_pid)


@pytest.fixture(params=[True, False], ids=["the server hears of it", "the server does not"])
def server_hears_of_it(request: pytest.FixtureRequest, proxy: Proxy) -> None:
    proxy.server_hears_of_it = request.param


@pytest.mark.usefixtures("server_hears_of_it")
async def test_a_call_whose_acceptance_was_lost_is_answered(proxy: Proxy, world: World) -> None:
    lose_next(proxy, world)
    assert await world.call("Tally/k/add", 1) == 1
    assert proxy.lost == 1
    assert await world.state("Tally", "k") == {"total": 1}


async def test_its_caller_does_not_wait_for_a_poll(proxy: Proxy, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.call("Tally/k/add", 1)  # somebody leases the key
    monkeypatch.setattr(operations, "POLL", 60.0)
    await asyncio.sleep(0.05)  # the last of the old polls
    lose_next(proxy, world)
    assert await world.call("Tally/k/add", 1) == 2
    assert proxy.lost == 1


@pytest.mark.usefixtures("server_hears_of_it")
async def test_many_sends_are_neither_lost_nor_doubled(proxy: Proxy, world: World) -> None:
    for _ in range(5):
        lose_next(proxy, world)
        ids = await asyncio.gather(*(world.send("Tally/k/add", 1) for _ in range(20)))
        assert len(set(ids)) == 20
    assert proxy.lost == 5
    await world.settle()
    assert await world.state("Tally", "k") == {"total": 100}


async def test_a_delayed_send_is_neither_lost_nor_doubled(proxy: Proxy, world: World) -> None:
    lose_next(proxy, world)
    id = await world.send("Tally/k/add", 1, due=1)
    assert await world.answer_of(id) == 1
    assert proxy.lost == 1


async def test_the_first_of_an_idempotency_key_is_still_the_first(proxy: Proxy, world: World) -> None:
    lose_next(proxy, world)
    submission = world._submission("Tally/k/add", 1, "once")
    first = await world.operations.send(submission)
    again = await world.operations.send(submission)
    assert proxy.lost == 1
    assert (first.is_new, again.is_new) == (True, False)
    assert first.id == again.id
    await world.settle()
    assert await world.state("Tally", "k") == {"total": 1}


async def test_a_repetition_of_an_idempotency_key_is_still_a_repetition(proxy: Proxy, world: World) -> None:
    assert await world.call("Tally/k/add", 1, once="once") == 1
    lose_next(proxy, world)
    again = await world.operations.send(world._submission("Tally/k/add", 1, "once"))
    assert not again.is_new
    lose_next(proxy, world)
    assert await world.call("Tally/k/add", 1, once="once") == 1
    assert proxy.lost == 2
    assert await world.state("Tally", "k") == {"total": 1}


async def test_callers_of_one_idempotency_key_at_once_are_all_answered(proxy: Proxy, world: World) -> None:
    lose_next(proxy, world)
    assert await asyncio.gather(*(world.call("Tally/k/add", 1, once="once") for _ in range(5))) == [1] * 5
    assert proxy.lost == 1
    assert await world.state("Tally", "k") == {"total": 1}


async def test_an_engine_that_lost_an_answer_is_followed_by_one_that_goes_on(proxy: Proxy, world: World) -> None:
    """At each of its flushes in turn, until one scenario passes untouched."""
    for answer in range(1, 100):
        doomed, key = world.members[-1], f"k{answer}"
        proxy.lose(doomed.engine._writer.backend_pid, answer)
        doomed.is_mourned = True
        id = await world.send("Clerk/work", key)
        lost = proxy.lost

        async def is_over(lost: int = lost) -> bool:
            return proxy.lost > lost or await world.leftovers("invocation", "timer") == {}

        await world.until(is_over)
        if proxy.lost == lost:
            break
        async with asyncio.timeout(WITHIN):
            await asyncio.wait([doomed.task])
        await world.bury(doomed)
        await world.start_engine(app)
        assert await world.answer_of(id) == 3
        await world.settle()
        assert await world.state("Tally", key) == {"total": 4}, f"answer {answer}"
    proxy.lose_none()
    assert answer > 6, "it never lost one"
