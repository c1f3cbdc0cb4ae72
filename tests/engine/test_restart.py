"""Restart as new: what has ended is done again, from its beginning or from a place in its journal."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, TerminalError, VirtualObject, handler
from perdure.protocol.ids import parse_id
from runtime import steering
from runtime.steering import Verb
from runtime.store.restart import Restarted
from runtime.store.verbs import Verdict
from tests.engine.conftest import OpenWorld
from tests.engine.test_cancel import Worker, app, begun
from tests.support.world import TESTER, World

PACKED = 5  # the entry of the call's result, behind the input, a run with its result, the call and its id


class Shop:
    """A service and an object whose last step fails for good until the test mends it."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.tickets: list[str] = []
        self.is_broken = True
        shop = self

        class Store(Service):
            @handler
            async def pack(self, ctx: Context, name: str) -> str:
                shop.steps.append("pack")
                return f"{name} packed"

        class Order(Service):
            @handler
            async def place(self, ctx: Context, name: str) -> list[str]:
                drawn = await ctx.run("draw", shop.draw)
                shop.tickets.append(str(ctx.uuid()))
                packed = await ctx.service_client(Store).pack(name)
                await ctx.run("pay", shop.pay)
                return [drawn, packed]

        class Till(VirtualObject):
            @handler
            async def pay(self, ctx: ObjectContext) -> str:
                drawn = await ctx.run("draw", shop.draw)
                await ctx.run("pay", shop.pay)
                return drawn

            @handler
            async def hold(self, ctx: ObjectContext) -> None:
                ctx.set("begun", True)
                await ctx.sleep(timedelta(hours=1))

        self.endpoint = Endpoint(Order, Store, Till)

    async def draw(self) -> str:
        self.steps.append("draw")
        return f"lot {self.steps.count('draw')}"

    async def pay(self) -> None:
        self.steps.append("pay")
        if self.is_broken:
            raise TerminalError("no money")


async def failed(world: World, target: str, *argument: str) -> str:
    id = await world.send(target, *argument)
    assert await world.outcome(id) == "failed"
    return id


async def restarted(world: World, id: str, last: int = 0) -> str:
    word, new = await world.restart(id, last)
    assert word is Restarted.RESTARTED
    return new


async def test_what_its_journal_has_is_not_done_again(open_world: OpenWorld) -> None:
    shop = Shop()
    async with open_world(shop.endpoint) as world:
        id = await failed(world, "Order/place", "Mary")
        shop.is_broken = False
        assert await world.answer_of(await restarted(world, id, PACKED)) == ["lot 1", "Mary packed"]
        assert shop.steps == ["draw", "pack", "pay", "pay"]
        assert len(set(shop.tickets)) == 1, "its random numbers are the same"


async def test_what_came_later_for_an_entry_is_taken_over_with_it(open_world: OpenWorld) -> None:
    shop = Shop()
    async with open_world(shop.endpoint) as world:
        id = await failed(world, "Order/place", "Mary")
        shop.is_broken = False
        for last in (3, 4):  # the call, and its id
            assert await world.answer_of(await restarted(world, id, last)) == ["lot 1", "Mary packed"]
        assert shop.steps.count("pack") == 1


async def test_with_its_input_only_it_begins_anew(open_world: OpenWorld) -> None:
    shop = Shop()
    async with open_world(shop.endpoint) as world:
        id = await failed(world, "Order/place", "Mary")
        shop.is_broken = False
        again = await restarted(world, id)
        assert await world.answer_of(again) == ["lot 2", "Mary packed"]
        assert len(set(shop.tickets)) == 2
        assert await world.outcome(id) == "failed", "it stays as it was"
        assert await world.answer_of(await restarted(world, again)) == ["lot 3", "Mary packed"]


async def test_one_of_an_object_waits_its_turn_and_goes_on_where_it_was(open_world: OpenWorld) -> None:
    shop = Shop()
    async with open_world(shop.endpoint) as world:
        id = await failed(world, "Till/k/pay")
        shop.is_broken = False
        holder = await world.send("Till/k/hold")
        await begun(world, "k", "Till")
        again = await restarted(world, id, 2)
        assert await world.status(again) == "pending"
        await world.kill(holder)
        assert await world.answer_of(again) == "lot 1"
        assert await world.answer_of(await restarted(world, id, 2)) == "lot 1", "also when nobody has the key"
        assert shop.steps.count("draw") == 1


async def test_one_that_waits_for_a_code_that_is_gone_keeps_its_journal(open_world: OpenWorld) -> None:
    shop = Shop()
    async with open_world(shop.endpoint) as world:
        id = await failed(world, "Till/k/pay")
        shop.is_broken = False
        await world.sql.execute("UPDATE done SET deployment = 'dp_gone'")
        again = await restarted(world, id, 2)

        async def waits_for_its_code() -> bool:
            return await world.rows("SELECT FROM ready WHERE deployment = 'dp_gone'") != []

        await world.until(waits_for_its_code)
        await world.adopt()
        assert await world.answer_of(again) == "lot 1"


async def test_a_sleep_that_was_not_over_is_slept_to_its_end(open_world: OpenWorld) -> None:
    class Nap(Service):
        @handler
        async def nap(self, ctx: Context) -> str:
            await ctx.sleep(timedelta(milliseconds=300))
            return "rested"

    async with open_world(Endpoint(Nap)) as world:
        id = await world.send("Nap/nap")

        async def is_asleep() -> bool:
            return await world.rows("SELECT FROM timer") != []

        await world.until(is_asleep)
        await world.kill(id)
        assert await world.outcome(id) == "killed"
        assert await world.answer_of(await restarted(world, id, 1)) == "rested"


async def test_a_call_under_way_is_not_taken_over_before_it_has_ended(open_world: OpenWorld) -> None:
    class Hasty(Service):
        @handler
        async def go(self, ctx: Context) -> str:
            call = ctx.object_client(Worker, "k").sleep()
            await ctx.run("nothing", _nothing)
            if waits:
                await call
            return "gone"

    waits: list[bool] = []
    async with open_world(Endpoint(Hasty), app) as world:
        id = await world.send("Hasty/go")
        assert await world.answer_of(id) == "gone"
        await begun(world, "k")
        assert (await world.restart(id, 2))[0] is Restarted.STILL_OPEN
        await world.kill(await world.newest("Worker", "k"))
        await world.settle()
        waits.append(True)
        with pytest.raises(TerminalError, match="killed"):
            await world.answer_of(await restarted(world, id, 2))


async def _nothing() -> None: ...


async def test_what_cannot_be_restarted_says_why(open_world: OpenWorld) -> None:
    shop = Shop()
    async with open_world(shop.endpoint) as world:
        holder = await world.send("Till/k/hold")
        await begun(world, "k", "Till")
        assert (await world.restart(holder))[0] is Restarted.NOT_ENDED
        await world.kill(holder)
        id = await failed(world, "Order/place", "Mary")
        assert (await world.restart(id, 99))[0] is Restarted.NO_SUCH_ENTRY
        assert (await world.restart(id, 1, "dp_unheard_of"))[0] is Restarted.NO_SUCH_CODE
        await steering.tell(world.operations, Verb.PURGE_JOURNAL, parse_id(id), TESTER)
        assert (await world.restart(id))[0] is Restarted.JOURNAL_GONE
        assert (await world.restart(id, 1))[0] is Restarted.JOURNAL_GONE


async def test_one_that_waits_with_a_journal_may_compensate_when_it_is_cancelled(open_world: OpenWorld) -> None:
    shop = Shop()
    async with open_world(shop.endpoint) as world:
        id = await failed(world, "Till/k/pay")
        holder = await world.send("Till/k/hold")
        await begun(world, "k", "Till")
        again = await restarted(world, id, 2)
        assert await world.cancel(again) is Verdict.ASKED
        assert await world.status(again) == "pending"
        await world.kill(holder)
        assert await world.outcome(again) == "cancelled"
