"""State: an object's values, as its handlers see them."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import Endpoint, ObjectContext, SharedContext, TerminalError, VirtualObject, handler
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate


class Box(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, values: dict[str, Any]) -> None:
        for name, value in values.items():
            ctx.set(name, value)

    @handler
    async def take(self, ctx: ObjectContext, name: str) -> Any:
        value = await ctx.get(name)
        ctx.clear(name)
        return value

    @handler
    async def refill(self, ctx: ObjectContext, values: dict[str, Any]) -> list[str]:
        ctx.clear_all()
        for name, value in values.items():
            ctx.set(name, value)
        return await ctx.keys()

    @handler
    async def empty(self, ctx: ObjectContext) -> list[str]:
        ctx.clear_all()
        return await ctx.keys()

    @handler
    async def put_and_fail(self, ctx: ObjectContext, values: dict[str, Any]) -> None:
        for name, value in values.items():
            ctx.set(name, value)
        raise TerminalError("after all")

    @handler
    async def swap(self, ctx: ObjectContext, value: str) -> list[Any]:
        before = await ctx.get("a")
        ctx.set("a", value)
        return [before, await ctx.get("a")]

    @handler(shared=True)
    async def names(self, ctx: SharedContext) -> list[str]:
        return await ctx.keys()

    @handler(shared=True)
    async def look(self, ctx: SharedContext, name: str) -> Any:
        return await ctx.get(name)

    @handler(shared=True)
    async def who(self, ctx: SharedContext) -> str:
        return ctx.key


app = Endpoint(Box)


async def test_what_was_set_is_there_for_the_next(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await world.call("Box/k/put", {"a": 1, "b": [1, {"c": None}]})
        assert await world.call("Box/k/take", "b") == [1, {"c": None}]
        assert await world.call("Box/k/take", "b") is None
        assert await world.call("Box/k/names") == ["a"]


async def test_what_was_set_is_read_by_the_same_handler(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        assert await world.call("Box/k/swap", "x") == [None, "x"]
        assert await world.call("Box/k/swap", "y") == ["x", "y"]


async def test_all_values_are_cleared_and_new_ones_set_at_once(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await world.call("Box/k/put", {"a": 1, "b": 2})
        assert await world.call("Box/k/refill", {"c": 3}) == ["c"]
        assert await world.state("Box", "k") == {"c": 3}
        assert await world.call("Box/k/empty") == []
        assert await world.state("Box", "k") == {}


async def test_keys_do_not_share_their_values(open_world: OpenWorld) -> None:
    async with open_world(app, app) as world:
        for key in "abcdef":
            await world.call(f"Box/{key}/put", {"name": key})
        assert [await world.call(f"Box/{key}/look", "name") for key in "abcdef"] == list("abcdef")
        await world.call("Box/a/empty")
        assert await world.call("Box/b/look", "name") == "b"


async def test_values_outlive_the_engine_and_its_lease(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await world.call("Box/k/put", {"a": 1})
        await world.members[0].stop()
        await world.start_engine(app)
        assert await world.call("Box/k/take", "a") == 1


async def test_what_was_set_stays_when_the_handler_fails(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        with pytest.raises(TerminalError, match="after all"):
            await world.call("Box/k/put_and_fail", {"a": 1})
        assert await world.call("Box/k/look", "a") == 1


async def test_a_shared_handler_runs_beside_the_exclusive_one_and_reads_what_is_committed(
    open_world: OpenWorld,
) -> None:
    before, after = Gate(), Gate()

    class Slow(VirtualObject):
        @handler
        async def work(self, ctx: ObjectContext) -> None:
            ctx.set("step", "begun")
            await ctx.run("wait", before.wait)
            ctx.set("step", "half")
            await ctx.run("wait", after.wait)
            ctx.set("step", "done")

        @handler(shared=True)
        async def step(self, ctx: SharedContext) -> str | None:
            return await ctx.get("step", str)

    async with open_world(Endpoint(Slow)) as world:
        id = await world.send("Slow/k/work")
        await before.reached()

        async def sees(wanted: str) -> bool:
            return bool(await world.call("Slow/k/step") == wanted)

        await world.until(lambda: sees("begun"))
        before.open()
        await after.reached()
        await world.until(lambda: sees("half"))
        after.open()
        assert await world.outcome(id) == "succeeded"
        assert await world.call("Slow/k/step") == "done"


async def test_shared_handlers_run_beside_one_another(open_world: OpenWorld) -> None:
    gate = Gate()

    class Hall(VirtualObject):
        @handler(shared=True)
        async def enter(self, ctx: SharedContext) -> None:
            await ctx.run("wait", gate.wait)

    async with open_world(Endpoint(Hall)) as world:
        for _ in range(3):
            await world.send("Hall/k/enter")
        await gate.reached(times=3)
        gate.open()


async def test_a_shared_handler_that_writes_fails_its_attempt(open_world: OpenWorld) -> None:
    class Sly(VirtualObject):
        @handler(shared=True)
        async def write(self, ctx: ObjectContext) -> None:
            ctx.set("a", 1)

    async with open_world(Endpoint(Sly)) as world:
        id = await world.send("Sly/k/write")
        await world.until_status(id, "backing-off")
        await world.kill(id)
        assert await world.outcome(id) == "killed"
        assert await world.state("Sly", "k") == {}


async def test_names_and_keys_may_be_any_text(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        key = "Größe %00 ' \" \\ 🜁"
        await world.call(f"Box/{key}/put", {"ключ": "значение"})
        assert await world.call(f"Box/{key}/look", "ключ") == "значение"
        assert await world.call(f"Box/{key}/who") == key
