"""Keys: one handler at a time, in order, however long it waits and whoever asks meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Retry, Service, VirtualObject, handler
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate, World, uuid

LONG = timedelta(hours=1)


class Door(VirtualObject):
    """Keeps the names of those who came, in order."""

    @handler
    async def enter(self, ctx: ObjectContext, name: str) -> None:
        ctx.set("names", [*(await ctx.get("names", list[str]) or []), name])

    @handler
    async def stay(self, ctx: ObjectContext, name: str) -> None:
        ctx.set("names", [*(await ctx.get("names", list[str]) or []), name])
        await ctx.sleep(LONG)

    @handler(shared=True)
    async def names(self, ctx: ObjectContext) -> list[str]:
        return await ctx.get("names", list[str]) or []


doors = Endpoint(Door)


async def entered(world: World, names: list[str], key: str = "k") -> None:
    async def have_all() -> bool:
        return (await world.state("Door", key)).get("names") == names

    try:
        await world.until(have_all)
    except TimeoutError:
        assert (await world.state("Door", key)).get("names") == names


async def test_a_suspended_handler_keeps_its_key_and_shared_ones_run_beside_it(
    open_world: OpenWorld, impatience: None
) -> None:
    async with open_world(doors, doors) as world:
        holder = await world.send("Door/k/stay", "first")
        await world.until_status(holder, "suspended")
        for name in ("second", "third"):
            await world.send("Door/k/enter", name)
        assert await world.call("Door/k/names") == ["first"]
        await world.cancel(holder)
        await entered(world, ["first", "second", "third"])


async def test_a_suspended_handler_finds_its_values_as_it_left_them(open_world: OpenWorld, impatience: None) -> None:
    class Box(VirtualObject):
        @handler
        async def work(self, ctx: ObjectContext) -> list[int]:
            ctx.set("n", 1)
            await ctx.sleep(timedelta(milliseconds=600))
            before = await ctx.get("n", int)
            ctx.set("n", (before or 0) + 1)
            await ctx.sleep(timedelta(milliseconds=600))
            return [before or 0, await ctx.get("n", int) or 0]

    async with open_world(Endpoint(Box)) as world:
        id = await world.send("Box/k/work")
        await world.until_status(id, "suspended")
        assert await world.answer_of(id) == [1, 2]
        assert await world.state("Box", "k") == {"n": 2}


async def test_a_paused_handler_keeps_its_key(open_world: OpenWorld) -> None:
    failing = True

    class Box(VirtualObject, retry=Retry(max_attempts=1)):
        @handler
        async def work(self, ctx: ObjectContext, name: str) -> str:
            if failing:
                raise RuntimeError("ask somebody")
            return name

    async with open_world(Endpoint(Box)) as world:
        first, second = await world.send("Box/k/work", "first"), await world.send("Box/k/work", "second")
        await world.until_status(first, "paused")
        failing = False
        assert await world.status(second) == "pending"
        await world.resume(first)
        assert [await world.answer_of(id) for id in (first, second)] == ["first", "second"]


async def test_a_handler_that_waits_hot_is_suspended_and_goes_on(open_world: OpenWorld, impatience: None) -> None:
    gate = Gate()

    class Slow(Service):
        @handler
        async def wait(self, ctx: Context) -> str:
            await ctx.run("wait", gate.wait)
            return "waited"

        @handler
        async def ask(self, ctx: Context) -> str:
            return await ctx.service_client(Slow).wait()

    async with open_world(Endpoint(Slow), Endpoint(Slow)) as world:
        id = await world.send("Slow/ask")
        await world.until_status(id, "suspended")
        gate.open()
        assert await world.answer_of(id) == "waited"


async def test_a_key_at_rest_is_given_back(open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engine.engine.LEASE_REST", 0.0)
    async with open_world(doors) as world:
        await world.send("Door/k/enter", "first")

        async def is_free() -> bool:
            return await world.leftovers("object_key", "inbox") == {}

        await world.until(is_free)
        await world.send("Door/k/enter", "second")
        await entered(world, ["first", "second"])


async def test_a_key_moves_to_another_engine_with_its_queue(open_world: OpenWorld) -> None:
    async with open_world(doors) as world:
        holder = await world.send("Door/k/stay", "first")
        await entered(world, ["first"])
        for name in ("second", "third"):
            await world.send("Door/k/enter", name)
        await world.start_engine(doors)
        await world.members[0].stop()
        assert await world.status(holder) in ("ready", "pending", "running")
        await world.cancel(holder)
        await entered(world, ["first", "second", "third"])


async def test_many_keys_are_served_at_once_by_all_engines(open_world: OpenWorld) -> None:
    async with open_world(doors, doors) as world:
        keys = [f"k{n}" for n in range(100)]
        await asyncio.gather(*(world.call(f"Door/{key}/enter", name) for name in "abc" for key in keys))
        for key in keys:
            assert sorted((await world.state("Door", key))["names"]) == ["a", "b", "c"]


async def test_since_when_a_key_is_held_is_known_however_often_its_holder_is_tried(open_world: OpenWorld) -> None:
    class Stubborn(VirtualObject, retry=Retry(initial=timedelta(milliseconds=1), max_attempts=5)):
        @handler
        async def fail(self, ctx: ObjectContext) -> None:
            ctx.set("tried", True)
            raise RuntimeError("not yet")

    async with open_world(Endpoint(Stubborn)) as world:
        holder, next_one = await world.send("Stubborn/k/fail"), await world.send("Stubborn/k/fail")
        await world.until_status(holder, "backing-off", "paused")
        query = "SELECT begun_at FROM invocation WHERE id = %s"
        ((since,),) = await world.rows(query, uuid(holder))
        await world.until_status(holder, "paused")
        assert since is not None
        assert await world.rows(query, uuid(holder)) == [(since,)]
        assert await world.rows(query, uuid(next_one)) == [(None,)]
        for id in (next_one, holder):
            await world.kill(id)
