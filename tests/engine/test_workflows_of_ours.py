"""Workflows as authors write them: one run per key, whose promises the other handlers give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import pytest

from perdure import (
    Context,
    Endpoint,
    Service,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    first,
    handler,
)
from perdure.hosts import asgi
from tests.engine.conftest import OpenWorld
from tests.support.asgi_peer import ASGIPeer
from tests.support.peers import remote_code
from tests.support.world import World

pytestmark = pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)

Open = Callable[[], AbstractAsyncContextManager[World]]


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, mail: str) -> str:
        ctx.set("mail", mail)
        word = await ctx.promise("confirmed", str)
        return f"{mail} {word}"

    @handler
    async def confirm(self, ctx: WorkflowSharedContext, word: str) -> None:
        await ctx.promise("confirmed", str).resolve(word)

    @handler
    async def decline(self, ctx: WorkflowSharedContext) -> None:
        ctx.promise("confirmed", str).reject("declined", code=418)

    @handler
    async def look(self, ctx: WorkflowSharedContext) -> list[str | None]:
        return [await ctx.get("mail", str), await ctx.promise("confirmed", str).peek()]


class Desk(Service):
    @handler
    async def sign_up(self, ctx: Context, key: str) -> str:
        call = ctx.workflow_client(Signup, key).run(key)
        await ctx.workflow_client(Signup, key).confirm("yes")
        return f"{await call}, {await ctx.attach(Signup.run, key=key)}"

    @handler
    async def twice(self, ctx: Context, key: str) -> str:
        ctx.workflow_send_client(Signup, key).run(key)
        return await ctx.workflow_client(Signup, key).run(key)

    @handler
    async def patient(self, ctx: Context, key: str) -> bool:
        run = ctx.workflow_client(Signup, key).run(key)
        alarm = ctx.sleep(timedelta(milliseconds=30))
        race = first(run, alarm)
        await race
        return race.winner is alarm


ENDPOINT = Endpoint(Signup, Desk)


@pytest.fixture(params=["in process", "streams", "requests"])
def open_it(request: pytest.FixtureRequest, open_world: OpenWorld) -> Open:
    @asynccontextmanager
    async def open_it() -> AsyncIterator[World]:
        if request.param == "in process":
            async with open_world(ENDPOINT) as world:
                yield world
            return
        async with open_world() as world:
            await world.register(ENDPOINT)
            peer = ASGIPeer(asgi.app(ENDPOINT))
            await world.start_engine(code=[remote_code(ENDPOINT, peer, is_streaming=request.param == "streams")])
            yield world

    return open_it


async def test_its_run_goes_on_when_its_promise_is_given(open_it: Open) -> None:
    async with open_it() as world:
        run = asyncio.create_task(world.call("Signup/mary/run", "m@x"))
        await world.until(lambda: _asked(world, "mary"))
        assert await world.call("Signup/mary/look") == ["m@x", None]
        await world.call("Signup/mary/confirm", "yes")
        assert await run == "m@x yes"
        assert await world.call("Signup/mary/look") == ["m@x", "yes"]


async def test_a_promise_may_be_given_before_it_is_asked_for_and_once_only(open_it: Open) -> None:
    async with open_it() as world:
        await world.call("Signup/mary/confirm", "yes")
        with pytest.raises(TerminalError) as caught:
            await world.call("Signup/mary/confirm", "no")
        assert caught.value.code == 409
        assert await world.call("Signup/mary/run", "m@x") == "m@x yes"


async def test_a_promise_that_is_rejected_raises(open_it: Open) -> None:
    async with open_it() as world:
        await world.call("Signup/mary/decline")
        with pytest.raises(TerminalError, match="declined") as caught:
            await world.call("Signup/mary/run", "m@x")
        assert caught.value.code == 418


async def test_handlers_call_it_and_attach_to_it(open_it: Open) -> None:
    async with open_it() as world:
        assert await world.call("Desk/sign_up", "mary") == "mary yes, mary yes"


async def test_it_runs_once(open_it: Open) -> None:
    async with open_it() as world:
        with pytest.raises(TerminalError) as caught:
            await world.call("Desk/twice", "mary")
        assert caught.value.code == 409
        await world.call("Signup/mary/confirm", "yes")


async def test_keys_do_not_share_promises(open_it: Open) -> None:
    async with open_it() as world:
        await world.call("Signup/john/confirm", "yes")
        assert await world.call("Desk/patient", "mary") is True
        await world.call("Signup/mary/confirm", "late")


async def _asked(world: World, key: str) -> bool:
    return bool(await world.rows("SELECT FROM state WHERE key = %s", key))
