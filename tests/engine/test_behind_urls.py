"""Deployments behind URLs, over real HTTP: an engine that hears of one drives it, until it is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from perdure.hosts import asgi
from runtime.core.deployments import HttpVersion, Reached
from runtime.servers import ports
from runtime.store import deployments
from runtime.store.link import Link
from tests.engine.conftest import OpenWorld
from tests.support.world import World

pytestmark = pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return await ctx.run("greet", lambda: f"Hello {name}")


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, much: int) -> int:
        count = (await ctx.get("count", int) or 0) + much
        ctx.set("count", count)
        return count


ENDPOINT = Endpoint(Greeter, Counter)


@contextlib.asynccontextmanager
async def served(endpoint: Endpoint, port: int) -> AsyncIterator[str]:
    """The endpoint behind a URL, by hypercorn in this process."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    stopping = asyncio.Event()

    async def stop() -> None:
        await stopping.wait()

    app = asgi.app(endpoint)
    server = asyncio.create_task(serve(app, config, shutdown_trigger=stop))  # type: ignore[arg-type]
    try:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        stopping.set()
        await server


async def register(world: World, endpoint: Endpoint, url: str, http: HttpVersion, id: str = "dp_far") -> None:
    manifest = endpoint.manifest(is_streaming=http is HttpVersion.HTTP_2)
    with closing(await Link.connect(world.database)) as link:
        await deployments.store_deployment(
            link, id=id, location=url, manifest=manifest, reached=Reached(http, 7), force=True
        )


@pytest.fixture(params=list(HttpVersion), ids=str)
def http(request: pytest.FixtureRequest) -> HttpVersion:
    return HttpVersion(request.param)


@pytest.fixture
def port() -> int:
    return ports.choose()


async def test_a_deployment_registered_while_an_engine_runs_is_driven_by_it(
    open_world: OpenWorld, http: HttpVersion, port: int
) -> None:
    async with served(ENDPOINT, port) as url, open_world() as world:
        await world.start_engine()
        await register(world, ENDPOINT, url, http)
        await world.until(lambda: world._knows(ENDPOINT))
        assert await world.call("Greeter/greet", "Mary") == "Hello Mary"
        counts = await asyncio.gather(*(world.call("Counter/k/add", 1) for _ in range(50)))
        assert sorted(counts) == list(range(1, 51))
        greetings = await asyncio.gather(*(world.call("Greeter/greet", str(n)) for n in range(200)))
        assert greetings == [f"Hello {n}" for n in range(200)]
        [(loaded,)] = await world.rows("SELECT deployments FROM engine")
        assert loaded == ["dp_far"]


async def test_while_the_service_is_down_its_invocations_are_tried_again(
    open_world: OpenWorld, http: HttpVersion, port: int
) -> None:
    async with open_world() as world:
        await register(world, ENDPOINT, f"http://127.0.0.1:{port}", http)
        await world.start_engine()
        await world.operations.refresh_registry()
        call = asyncio.create_task(world.call("Greeter/greet", "Mary"))
        await world.until(lambda: _failed(world))
        [(message,)] = await world.rows("SELECT failure->>'message' FROM invocation")
        assert f"127.0.0.1:{port}" in message
        async with served(ENDPOINT, port):
            assert await call == "Hello Mary"


async def _failed(world: World) -> bool:
    return bool(await world.rows("SELECT FROM invocation WHERE failure IS NOT NULL"))
