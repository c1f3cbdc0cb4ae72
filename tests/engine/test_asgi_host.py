"""The same handlers behind HTTP, served by our own host: they do what they do in an engine's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import pytest

from perdure import (
    Context,
    Endpoint,
    ObjectContext,
    Retry,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    first,
    gather,
    handler,
)
from perdure.hosts import asgi
from tests.engine.conftest import OpenWorld
from tests.support.asgi_peer import ASGIPeer
from tests.support.peers import remote_code
from tests.support.world import World

pytestmark = pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)

OpenRemote = Callable[[Endpoint], AbstractAsyncContextManager[World]]


@pytest.fixture(params=[5, 6, 7], ids="v{}".format)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=["streams", "requests"])
def open_remote(request: pytest.FixtureRequest, version: int, open_world: OpenWorld) -> OpenRemote:
    """A world whose one engine drives an endpoint behind the ASGI host."""

    @asynccontextmanager
    async def open_remote(endpoint: Endpoint) -> AsyncIterator[World]:
        async with open_world() as world:
            await world.register(endpoint)
            peer = ASGIPeer(asgi.app(endpoint))
            is_streaming = request.param == "streams"
            await world.start_engine(code=[remote_code(endpoint, peer, version=version, is_streaming=is_streaming)])
            yield world

    return open_remote


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, much: int) -> int:
        count = (await ctx.get("count", int) or 0) + much
        ctx.set("count", count)
        return count

    @handler(shared=True)
    async def read(self, ctx: SharedContext) -> int:
        return await ctx.get("count", int) or 0


class Shop(Service, retry=Retry(initial=timedelta(milliseconds=1))):
    def __init__(self) -> None:
        self.tries = 0
        self.tidied = asyncio.Event()

    @handler
    async def steps(self, ctx: Context, many: int) -> int:
        return sum([await ctx.run(f"step {n}", int, n) for n in range(many)])

    @handler
    async def calls(self, ctx: Context) -> list[int]:
        a, b = ctx.object_client(Counter, "a").add(1), ctx.object_client(Counter, "b").add(2)
        await ctx.sleep(timedelta(milliseconds=20))
        return list(await gather(a, b))

    @handler
    async def race(self, ctx: Context) -> str:
        slow, quick = ctx.sleep(timedelta(seconds=60)), ctx.run("quick", str, "quick")
        race = first(slow, quick)
        await race
        return "quick" if race.winner is quick else "slow"

    @handler
    async def stumbles(self, ctx: Context) -> int:
        done = await ctx.run("before", lambda: 5)
        self.tries += 1
        if self.tries < 3:
            raise ValueError("Oh no")
        return done

    @handler
    async def refuses(self, ctx: Context) -> None:
        raise TerminalError("Not today.", code=418)

    @handler
    async def waits(self, ctx: Context) -> None:
        try:
            await ctx.sleep(timedelta(seconds=60))
        except TerminalError:
            await ctx.run("tidy", self.tidied.set)
            raise

    @handler
    async def draws(self, ctx: Context) -> list[float]:
        drawn = ctx.random.random()
        await ctx.sleep(timedelta(milliseconds=10))
        return [drawn, await ctx.run("same", lambda: drawn)]


async def test_values_of_an_object_are_kept_and_read(open_remote: OpenRemote) -> None:
    async with open_remote(Endpoint(Counter)) as world:
        assert [await world.call("Counter/k/add", 2), await world.call("Counter/k/add", 3)] == [2, 5]
        assert await world.call("Counter/k/read") == 5


async def test_steps_are_carried_out_one_after_the_other(open_remote: OpenRemote) -> None:
    async with open_remote(Endpoint(Shop)) as world:
        assert await world.call("Shop/steps", 5) == 10


async def test_calls_run_beside_each_other_and_a_sleep(open_remote: OpenRemote) -> None:
    async with open_remote(Endpoint(Shop, Counter)) as world:
        assert await world.call("Shop/calls") == [1, 2]


async def test_the_winner_of_a_race_is_the_same_in_every_attempt(open_remote: OpenRemote) -> None:
    async with open_remote(Endpoint(Shop)) as world:
        assert await world.call("Shop/race") == "quick"
        await world.sql.execute("DELETE FROM timer")


async def test_a_failing_handler_is_tried_again_behind_its_steps(open_remote: OpenRemote) -> None:
    shop = Shop()
    async with open_remote(Endpoint(shop)) as world:
        assert await world.call("Shop/stumbles") == 5
        assert shop.tries == 3


async def test_a_terminal_error_reaches_the_caller(open_remote: OpenRemote) -> None:
    async with open_remote(Endpoint(Shop)) as world:
        with pytest.raises(TerminalError, match=r"Not today\.") as caught:
            await world.call("Shop/refuses")
        assert caught.value.code == 418


async def test_a_cancelled_handler_tidies_up(open_remote: OpenRemote) -> None:
    shop = Shop()
    async with open_remote(Endpoint(shop)) as world:
        id = await world.send("Shop/waits")
        await world.until(lambda: _sleeps(world))
        await world.cancel(id)
        with pytest.raises(TerminalError) as caught:
            await world.answer_of(id)
        assert caught.value.code == 409
        assert shop.tidied.is_set()
        await world.sql.execute("DELETE FROM timer")


async def test_random_numbers_are_the_same_in_every_attempt(open_remote: OpenRemote) -> None:
    async with open_remote(Endpoint(Shop)) as world:
        drawn, same = await world.call("Shop/draws")
        assert drawn == same


async def _sleeps(world: World) -> bool:
    return bool(await world.rows("SELECT FROM timer"))
