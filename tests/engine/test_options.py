"""What operators set on a service holds in engines and for callers, without a restart."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, Endpoint, Service, TerminalError, handler
from runtime.core.options import read_options
from runtime.store.deployments import load_registry
from runtime.store.options import set_options
from tests.engine.conftest import OpenWorld
from tests.support.world import World


class Flaky(Service):
    @handler
    async def fail(self, ctx: Context) -> None:
        raise ValueError("not today")

    @handler
    async def wait(self, ctx: Context) -> None:
        await ctx.sleep(timedelta(hours=1))

    @handler
    async def hang(self, ctx: Context) -> None:
        await ctx.run("fetch", asyncio.Event().wait)

    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return name


app = Endpoint(Flaky)


async def set_on(world: World, **said: Any) -> None:
    """Set options of Flaky, and wait until everybody knows."""
    await world.operations.run(lambda link: set_options(link, "Flaky", read_options(said)))

    now = await world.operations.run(load_registry)

    async def is_known() -> bool:
        known = [world.operations.registry, *(member.engine.context.registry for member in world.members)]
        return all(registry.version == now.version for registry in known)

    await world.until(is_known)


async def test_a_retry_policy_that_is_set_holds_and_is_taken_back(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await set_on(world, retry_max_attempts=1, retry_on_max_attempts="kill")
        with pytest.raises(TerminalError, match="not today"):
            await world.call("Flaky/fail")

        await set_on(world, retry_on_max_attempts=None)
        id = await world.send("Flaky/fail")
        await world.until_status(id, "paused")
        await world.kill(id)


async def test_a_retention_that_is_set_is_that_of_what_ends_from_then_on(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await set_on(world, journal_retention="1h")
        await world.call("Flaky/greet", "Mary")

        ((kept,),) = await world.rows("SELECT extract(epoch FROM expires_at - completed_at)::int FROM done")
        assert abs(kept - 3600) <= 1


async def test_a_waiting_handler_stays_in_memory_for_as_long_as_is_set(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await set_on(world, inactivity_timeout="10ms")
        id = await world.send("Flaky/wait")
        await world.until_status(id, "suspended")
        await world.kill(id)


async def test_a_handler_that_hangs_is_stopped_and_tried_again_where_that_is_set(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await set_on(world, inactivity_timeout="10ms", abort_timeout="10ms", retry_initial_interval="1h")
        hung, waiting = await world.send("Flaky/hang"), await world.send("Flaky/wait")
        await world.until_status(hung, "backing-off")

        assert "longer than its abort_timeout allows" in (await world.failure(hung))["message"]
        await world.until_status(waiting, "suspended")
        for id in (hung, waiting):
            await world.kill(id)


async def test_new_invocations_go_to_the_queue_that_is_set(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await set_on(world, queue="slow")
        id = await world.send("Flaky/greet", "Mary")

        assert await world.rows("SELECT queue, status FROM invocation") == [("slow", "ready")]
        await set_on(world, queue=None)
        assert await world.call("Flaky/greet", "Ann") == "Ann"
        assert await world.status(id) == "ready"
        await world.kill(id)
        await world.sql.execute("DELETE FROM ready")  # an engine of that queue would have found nobody


async def test_what_is_set_stays_when_the_service_is_registered_anew(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await set_on(world, public=False)
        await world.register(Endpoint(Flaky, Other))

        assert not (await world.operations.refresh_registry()).resolve("Flaky", "greet").is_public


class Other(Service):
    @handler
    async def greet(self, ctx: Context) -> None: ...
