"""Versions: an invocation stays with the code of its first attempt, and code that contradicts it changes nothing."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from runtime.discovery import deployment_id
from runtime.operations import NotServed, seats
from runtime.store import adoption
from runtime.store.link import Link
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate, World


class Shop:
    """A shop whose handler packs, or pays, before it waits at the gate."""

    def __init__(self, first_step: str, documentation: str = "") -> None:
        gate = self.gate = Gate()

        class Order(VirtualObject):
            __doc__ = documentation

            @handler
            async def place(self, ctx: ObjectContext) -> str:
                ctx.set("first", await ctx.run(first_step, str, first_step))
                await ctx.run("wait", gate.wait)
                return first_step

            @handler
            async def touch(self, ctx: ObjectContext) -> str:
                return first_step

        self.endpoint = Endpoint(Order)


async def packed(world: World) -> None:
    """Wait until somebody has packed, and has committed that."""

    async def is_packed() -> bool:
        return await world.state("Order", "k") == {"first": "pack"}

    await world.until(is_packed)


async def test_changed_code_under_the_same_name_pauses_the_invocation_and_the_old_code_takes_it_on(
    open_world: OpenWorld,
) -> None:
    old, new = Shop("pack"), Shop("pay")
    async with open_world(old.endpoint) as world:
        id = await world.send("Order/k/place")
        behind = await world.send("Order/k/touch")
        await old.gate.reached()
        await packed(world)
        await world.members[0].kill()
        changed = await world.start_engine(new.endpoint, deployment=deployment_id(old.endpoint))
        await world.until_status(id, "paused")
        message = (await world.failure(id))["message"]
        assert "pack" in message
        assert "pay" in message
        assert await world.status(behind) == "pending"
        assert await world.state("Order", "k") == {"first": "pack"}
        await changed.stop()
        await world.start_engine(old.endpoint)
        await world.resume(id)
        old.gate.open()
        assert await world.answer_of(id) == "pack"
        assert await world.answer_of(behind) == "pack"
        assert await world.state("Order", "k") == {"first": "pack"}


async def test_what_has_begun_stays_with_its_code_and_what_is_new_goes_to_the_newest(open_world: OpenWorld) -> None:
    gate = Gate()

    class Old(Service, name="Word"):
        @handler
        async def say(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "old"

    class New(Service, name="Word"):
        """The same, said anew."""

        @handler
        async def say(self, ctx: Context) -> str:
            return "new"

    old, new = Endpoint(Old), Endpoint(New)
    async with open_world(old) as world:
        begun = await world.send("Word/say")
        await gate.reached()
        await world.members[0].kill()
        await world.register(new)
        await world.start_engine(new)
        await world.start_engine(old)
        assert await world.call("Word/say") == "new"
        gate.open()
        assert await world.answer_of(begun) == "old"


async def test_a_call_to_what_no_engine_has_had_for_long_is_refused_and_a_send_waits_for_the_code(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop("pack")
    shop.gate.open()
    async with open_world(shop.endpoint) as world:
        assert await world.call("Order/k/place", once="before") == "pack"
        monkeypatch.setattr(seats, "NOT_SERVED_AFTER", 0.0)
        assert await world.call("Order/k/touch") == "pack"  # somebody has it
        await world.members[0].stop()
        await world.until(lambda: refuses(world, "Order/k/touch"))
        assert await world.call("Order/k/place", once="before") == "pack"
        waiting = await world.send("Order/k/touch")
        await world.start_engine(shop.endpoint)
        assert await world.answer_of(waiting) == "pack"
        await world.until(lambda: accepts(world, "Order/k/touch"))


async def refuses(world: World, target: str) -> bool:
    try:
        async with asyncio.timeout(0.1):
            await world.call(target)
    except NotServed as error:
        return "Order" in str(error)
    except TimeoutError:
        return False
    return False


async def accepts(world: World, target: str) -> bool:
    try:
        await world.call(target)
    except NotServed:
        return False
    return True


async def test_what_waits_for_code_that_nobody_has_is_counted(open_world: OpenWorld) -> None:
    shop = Shop("pack")
    async with open_world(shop.endpoint) as world:
        id = await world.send("Order/k/place")
        await shop.gate.reached()
        await world.members[0].kill()
        other = Shop("pack", documentation="The same, with more words.")
        await world.register(other.endpoint)
        await world.start_engine(other.endpoint)

        async def waiting() -> dict[str, int]:
            with closing(await Link.connect(world.database)) as link:
                return await adoption.waiting(link)

        await world.until(waiting)
        assert await waiting() == {deployment_id(shop.endpoint): 1}
        await world.adopt()
        other.gate.open()
        assert await world.answer_of(id) == "pack"
        assert await waiting() == {}


async def test_when_nobody_has_its_code_any_more_it_goes_on_with_the_newest(open_world: OpenWorld) -> None:
    old, new = Shop("pack"), Shop("pack", documentation="The same, with more words.")
    async with open_world(old.endpoint) as world:
        id = await world.send("Order/k/place")
        await old.gate.reached()
        await world.members[0].kill()
        await world.register(new.endpoint)
        await world.start_engine(new.endpoint)
        await world.adopt()
        new.gate.open()
        assert await world.answer_of(id) == "pack"
        assert await world.state("Order", "k") == {"first": "pack"}


async def test_when_the_newest_code_contradicts_its_journal_it_is_paused_and_nothing_is_lost(
    open_world: OpenWorld,
) -> None:
    old, new = Shop("pack"), Shop("pay", documentation="Paid in advance.")
    async with open_world(old.endpoint) as world:
        id = await world.send("Order/k/place")
        await old.gate.reached()
        await packed(world)
        await world.members[0].kill()
        await world.register(new.endpoint)
        await world.start_engine(new.endpoint)
        await world.adopt()
        await world.until_status(id, "paused")
        assert await world.state("Order", "k") == {"first": "pack"}
        await world.kill(id)
        assert await world.call("Order/k/touch") == "pay"
