"""The history of an object's values: who changed them, from what to what, in order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from perdure import Endpoint, ObjectContext, TerminalError, VirtualObject, handler
from perdure.protocol.ids import format_id
from runtime.core.options import read_options
from runtime.store.options import set_options
from tests.engine.conftest import OpenWorld
from tests.support.world import World


class Box(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, values: dict[str, Any]) -> None:
        for name, value in values.items():
            ctx.set(name, value)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        count = (await ctx.get("count", int) or 0) + 1
        ctx.set("count", count)
        return count

    @handler
    async def rearrange(self, ctx: ObjectContext) -> None:
        ctx.set("a", "for a moment")
        ctx.clear("b")
        ctx.set("c", "for a moment")
        ctx.clear_all()
        ctx.set("a", "at last")

    @handler
    async def put_and_fail(self, ctx: ObjectContext, value: str) -> None:
        ctx.set("a", value)
        raise TerminalError("after all")


app = Endpoint(Box)


async def keep(world: World, *, history: bool = True) -> None:
    """Let the service keep it from now on; returns when all engines know."""
    await world.operations.run(lambda link: set_options(link, "Box", read_options({"state_history": history}), None))

    async def is_known() -> bool:
        handlers = [code.handlers["Box", "put"] for one in world.members for code in one.engine.memory.code.values()]
        return all(one.keeps_history is history for one in handlers)

    await world.until(is_known)


async def kept(world: World, key: str = "k") -> list[tuple[Any, ...]]:
    return await world.rows(
        "SELECT name, before, after, actor, handler FROM state_history WHERE service = 'Box' AND key = %s"
        " ORDER BY position",
        key,
    )


async def test_each_change_is_kept_with_what_was_before(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await keep(world)
        await world.call("Box/k/put", {"a": 1, "b": 2})
        await world.call("Box/k/put", {"a": 1, "b": 3})
        await world.call("Box/k/rearrange")
        with pytest.raises(TerminalError):
            await world.call("Box/k/put_and_fail", "still")
        assert await kept(world) == [
            ("a", None, b"1", None, "put"),
            ("b", None, b"2", None, "put"),
            ("b", b"2", b"3", None, "put"),
            ("b", b"3", None, None, "rearrange"),
            ("a", b"1", b'"at last"', None, "rearrange"),
            ("a", b'"at last"', b'"still"', None, "put_and_fail"),
        ]


async def test_without_being_asked_for_only_what_people_do_is_kept(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await world.call("Box/k/put", {"a": 1, "b": 2})
        edited = await world.edit("Box/k", {"a": 5, "c": 6}, replaces=True)
        await world.call("Box/k/add")
        assert await kept(world) == [
            ("b", b"2", None, "tester", "state.edit"),
            ("a", b"1", b"5", "tester", "state.edit"),
            ("c", None, b"6", "tester", "state.edit"),
        ]
        rows = await world.rows("SELECT DISTINCT invocation, expires_on > now() FROM state_history")
        assert [(format_id(id.bytes), is_kept) for id, is_kept in rows] == [(format_id(edited.id), True)]


async def test_it_is_kept_as_long_as_the_service_keeps_its_invocations(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await world.operations.run(
            lambda link: set_options(link, "Box", read_options({"journal_retention": "40 days"}))
        )
        await keep(world)
        await world.call("Box/k/add")
        await world.edit("Box/k", {"count": 5})
        kept_for = "SELECT (expires_on - now()::date) BETWEEN 39 AND 41 FROM state_history"
        assert await world.rows(kept_for) == [(True,), (True,)]


async def test_it_is_begun_and_ended_while_the_service_runs(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await keep(world)
        await world.call("Box/k/add")
        await keep(world, history=False)
        await world.call("Box/k/add")
        assert await kept(world) == [("count", None, b"1", None, "add")]


async def test_of_a_hot_key_no_step_is_missing_and_the_order_is_that_of_the_key(open_world: OpenWorld) -> None:
    """Many of its invocations are in one flush, and begin on what is not committed yet."""
    async with open_world(app) as world:
        await keep(world)
        ids = [await world.send("Box/k/add") for _ in range(100)]
        for id in ids:
            await world.answer_of(id)
        steps = [(before, after) for _, before, after, _, _ in await kept(world)]
        counts = [None, *(str(n).encode() for n in range(1, 101))]
        assert steps == list(itertools.pairwise(counts))


async def test_what_a_killed_engine_had_not_committed_is_in_no_history(open_world: OpenWorld) -> None:
    async with open_world(app, app) as world:
        await keep(world)
        ids = [await world.send("Box/k/add") for _ in range(30)]
        victim = world.members[0]
        await victim.kill()
        await world.bury(victim)
        for id in ids:
            await world.answer_of(id)
        steps = [(before, after) for _, before, after, _, _ in await kept(world)]
        counts = [None, *(str(n).encode() for n in range(1, 31))]
        assert steps == list(itertools.pairwise(counts))
