"""Deadlocks: nobody is to blame, and nothing moves until somebody is taken out; then everything does."""

from __future__ import annotations

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, TerminalError, VirtualObject, handler
from perdure.protocol.ids import format_id
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate, World


class Table:
    """Forks that are taken one after another along a path; nobody asks for the second before all have the first."""

    def __init__(self) -> None:
        gate = self.gate = Gate()

        class Fork(VirtualObject):
            @handler
            async def take(self, ctx: ObjectContext, path: list[str]) -> str:
                if not path:
                    return ctx.key
                await ctx.run("wait for the others", gate.wait)
                return ctx.key + await ctx.object_client(Fork, path[0]).take(path[1:])

        class Diner(Service):
            @handler
            async def dine(self, ctx: Context, path: list[str]) -> str:
                return await ctx.object_client(Fork, path[0]).take(path[1:])

        self.endpoint = Endpoint(Fork, Diner)

    async def sit_down(self, world: World, *paths: str) -> list[str]:
        """Send a diner along each path, and wait until each has its first fork and is queued for its second."""
        diners = [await world.send("Diner/dine", list(path)) for path in paths]
        await self.gate.reached(len(paths))
        self.gate.open()

        async def are_queued() -> bool:
            queues = await world.rows("SELECT count(*) FROM inbox GROUP BY service, key")
            return queues == [(2,)] * len(paths)

        await world.until(are_queued)
        return diners


async def holder(world: World, key: str) -> str:
    """Who holds a fork: the first in its inbox."""
    rows = await world.rows("SELECT invocation FROM inbox WHERE key = %s ORDER BY position LIMIT 1", key)
    return format_id(rows[0][0].bytes)


async def ends_with_409(world: World, id: str) -> None:
    with pytest.raises(TerminalError) as ended:
        await world.answer_of(id)
    assert ended.value.code == 409


@pytest.mark.parametrize("paths", [("ab", "ba"), ("ab", "bc", "ca")])
async def test_a_cycle_stays_until_one_is_cancelled_and_then_all_go_on(
    open_world: OpenWorld, paths: tuple[str, ...]
) -> None:
    table = Table()
    async with open_world(table.endpoint, table.endpoint) as world:
        first, *others = await table.sit_down(world, *paths)
        victim, behind = await holder(world, "a"), await world.send("Diner/dine", ["a"])
        assert {await world.status(id) for id in (first, *others, victim)} == {"running"}
        await world.cancel(victim)
        await ends_with_409(world, victim)
        await ends_with_409(world, first)
        assert [await world.answer_of(id) for id in others] == list(paths[1:])
        assert await world.answer_of(behind) == "a"


@pytest.mark.parametrize("paths", [("ab", "ba"), ("ab", "bc", "ca")])
async def test_a_cycle_of_sleepers_goes_on_when_one_is_cancelled(
    open_world: OpenWorld, impatience: None, paths: tuple[str, ...]
) -> None:
    table = Table()
    async with open_world(table.endpoint, table.endpoint) as world:
        first, *others = await table.sit_down(world, *paths)
        victim = await holder(world, "a")
        for id in (first, *others, victim):
            await world.until_status(id, "suspended")
        await world.cancel(first)  # and with it what it waits for, and what that waits for
        await ends_with_409(world, first)
        assert await world.outcome(victim) == "cancelled"
        assert [await world.answer_of(id) for id in others] == list(paths[1:])


async def test_a_cycle_goes_on_when_one_is_killed(open_world: OpenWorld) -> None:
    table = Table()
    async with open_world(table.endpoint, table.endpoint) as world:
        first, *others = await table.sit_down(world, "ab", "bc", "ca")
        await world.kill(await holder(world, "a"))
        await ends_with_409(world, first)
        assert [await world.answer_of(id) for id in others] == ["bc", "ca"]


async def test_a_cycle_goes_on_when_a_queued_call_in_it_is_cancelled(open_world: OpenWorld) -> None:
    table = Table()
    async with open_world(table.endpoint) as world:
        first, second = await table.sit_down(world, "ab", "ba")
        ((_,), (queued,)) = await world.rows("SELECT invocation FROM inbox WHERE key = 'b' ORDER BY position")
        await world.cancel(format_id(queued.bytes))
        await ends_with_409(world, first)
        assert await world.answer_of(second) == "ba"


async def test_an_object_that_calls_itself_waits_until_it_is_killed(open_world: OpenWorld, impatience: None) -> None:
    table = Table()
    async with open_world(table.endpoint) as world:
        (diner,) = await table.sit_down(world, "aa")
        await world.until_status(diner, "suspended")
        await world.kill(await holder(world, "a"))
        await ends_with_409(world, diner)
        await world.settle()
        assert await world.call("Diner/dine", ["a"]) == "a"


async def test_a_deadlock_outlives_the_engine(open_world: OpenWorld) -> None:
    table = Table()
    async with open_world(table.endpoint) as world:
        first, second = await table.sit_down(world, "ab", "ba")
        await world.members[0].kill()
        await world.start_engine(table.endpoint)
        await world.until_status(first, "running")
        await world.cancel(first)
        await ends_with_409(world, first)
        assert await world.answer_of(second) == "ba"
