"""Whether other code would go on with what is under way is known before it takes that over."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest

from perdure import Context, Endpoint, Service, handler
from perdure.hosts import asgi
from runtime.engine.remote import RemoteHost
from runtime.replaying import Misfit, Module, Replayed, replay_all
from runtime.replaying import Service as FarService
from runtime.store.link import Link
from tests.engine.conftest import OpenWorld
from tests.support.asgi_peer import ASGIPeer
from tests.support.world import Gate, World

pytestmark = pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)


class Shop:
    """A shop of which some orders wait at a gate, and others sleep."""

    def __init__(self, *steps: str, then: str = "", fails: bool = False, has_nap: bool = True) -> None:
        gate = self.gate = Gate()
        carried_out = self.carried_out = list[str]()

        class Order(Service):
            @handler
            async def place(self, ctx: Context) -> str:
                for step in steps:
                    await ctx.run(step, carried_out.append, step)
                if then:
                    await ctx.run(then, carried_out.append, then)
                await ctx.run("wait", gate.wait)
                return "placed"

        class Nap(Service):
            @handler
            async def take(self, ctx: Context) -> str:
                if fails:
                    raise ValueError("oh no")
                await ctx.sleep(timedelta(milliseconds=600))
                return "rested"

        self.endpoint = Endpoint(Order, Nap) if has_nap else Endpoint(Order)


async def replayed(world: World, shop: Shop) -> Replayed:
    with closing(await Link.connect(world.database)) as link:
        return await replay_all(Module(shop.endpoint), ["Order", "Nap"], link)


async def test_code_that_does_the_same_fits_and_none_of_its_steps_is_carried_out(open_world: OpenWorld) -> None:
    old, new = Shop("pack", "pay"), Shop("pack", "pay", then="thank")
    async with open_world(old.endpoint) as world:
        await world.send("Order/place")
        await world.send("Nap/take")
        await old.gate.reached()
        await world.until(lambda: _all_journaled(world, 2))
        assert await replayed(world, old) == Replayed(2, ())
        found = await replayed(world, new)
        assert [misfit.handler for misfit in found.misfits] == ["Order/place"], "thank comes where wait was recorded"
        assert (old.carried_out, new.carried_out) == (["pack", "pay"], [])
        old.gate.open()


async def test_what_does_not_fit_is_told_with_its_place(open_world: OpenWorld) -> None:
    old, new = Shop("pack", "pay"), Shop("pack", "post", has_nap=False)
    async with open_world(old.endpoint) as world:
        id = await world.send("Order/place")
        nap = await world.send("Nap/take")
        await old.gate.reached()
        await world.until(lambda: _all_journaled(world, 2))
        found = await replayed(world, new)
        assert sorted(found.misfits, key=lambda misfit: misfit.handler) == [
            Misfit(nap, "Nap/take", "The code has no such handler."),
            Misfit(
                id,
                "Order/place",
                'At command 2 the journal has a run named "pay" (completion 2), but the handler now asks for a run '
                'named "post" (completion 2).',
                2,
            ),
        ]
        old.gate.open()


async def test_code_that_fails_in_its_replay_does_not_fit(open_world: OpenWorld) -> None:
    old, new = Shop(), Shop(fails=True)
    async with open_world(old.endpoint) as world:
        id = await world.send("Nap/take")
        await world.until(lambda: _all_journaled(world, 1))
        found = await replayed(world, new)
        assert found.misfits == (Misfit(id, "Nap/take", "The attempt fails: ValueError: oh no"),)


async def replayed_by_url(world: World, shop: Shop) -> Replayed:
    handlers = {*shop.endpoint.handlers}
    host = RemoteHost(ASGIPeer(asgi.app(shop.endpoint)), version=7, is_streaming=False)
    with closing(await Link.connect(world.database)) as link:
        return await replay_all(FarService(host, handlers), ["Order", "Nap"], link)


async def test_a_service_behind_a_url_goes_no_further_than_the_old_code(open_world: OpenWorld) -> None:
    old, failing, changed = Shop("pack"), Shop("pack", fails=True), Shop("post", has_nap=False)
    async with open_world(old.endpoint) as world:
        id = await world.send("Nap/take")
        await world.send("Order/place")
        await old.gate.reached()
        await world.until(lambda: _all_journaled(world, 2))
        assert await replayed_by_url(world, old) == Replayed(1, (), 1), "Order stands in the middle of a step"
        assert (await replayed_by_url(world, failing)).misfits == (
            Misfit(id, "Nap/take", "The attempt fails: ValueError: oh no"),
        )
        assert (await replayed_by_url(world, changed)).misfits == (
            Misfit(id, "Nap/take", "The code has no such handler."),
        )
        assert (old.carried_out, changed.carried_out) == (["pack"], [])
        old.gate.open()


async def test_a_service_behind_a_url_that_does_something_else_is_told_apart(open_world: OpenWorld) -> None:
    class Nap(Service):
        @handler
        async def take(self, ctx: Context) -> str:
            return await ctx.signal("wake", str)

    old = Shop()
    async with open_world(old.endpoint) as world:
        id = await world.send("Nap/take")
        await world.until(lambda: _all_journaled(world, 1))
        host = RemoteHost(ASGIPeer(asgi.app(Endpoint(Nap))), version=7, is_streaming=False)
        with closing(await Link.connect(world.database)) as link:
            found = await replay_all(FarService(host, {("Nap", "take")}), ["Nap"], link)
        [misfit] = found.misfits
        assert (misfit.invocation_id, misfit.command) == (id, 1)
        assert "the journal has a sleep" in misfit.reason


async def _all_journaled(world: World, count: int) -> bool:
    rows = await world.rows("SELECT count(DISTINCT invocation) FROM journal")
    return bool(rows == [(count,)])
