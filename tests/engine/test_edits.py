"""Edits: what a person wants an object's values to be, in its key's turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import Endpoint, ObjectContext, SharedContext, TerminalError, VirtualObject, handler
from perdure.protocol.ids import format_id
from runtime.core.edits import version
from runtime.editing import Edited
from runtime.engine import drive
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate, World

NOTHING = version({})


class Home:
    """An object whose handler waits at a gate between two steps."""

    def __init__(self) -> None:
        self.gate = gate = Gate()

        class Box(VirtualObject):
            @handler
            async def put(self, ctx: ObjectContext, name: str) -> None:
                ctx.set(name, 1)

            @handler
            async def add(self, ctx: ObjectContext, amount: int) -> int:
                count = (await ctx.get("count", int) or 0) + amount
                ctx.set("count", count)
                return count

            @handler
            async def add_slowly(self, ctx: ObjectContext, amount: int) -> int:
                count = await ctx.get("count", int) or 0
                await ctx.run("wait", gate.wait)
                ctx.set("count", count + amount)
                return count + amount

            @handler(shared=True)
            async def all(self, ctx: SharedContext) -> dict[str, Any]:
                return {name: await ctx.get(name) for name in await ctx.keys()}

        self.app = Endpoint(Box)


@pytest.fixture
def home() -> Home:
    return Home()


async def ends(world: World, edited: Edited) -> dict[str, Any]:
    found: dict[str, Any] = await world.answer_of(format_id(edited.id))
    return found


async def test_values_are_set_and_cleared_and_the_next_handler_sees_them(open_world: OpenWorld, home: Home) -> None:
    async with open_world(home.app) as world:
        for name in ("a", "b"):
            await world.call("Box/k/put", name)  # the key is in the engine's memory now

        edited = await world.edit("Box/k", {"count": 40}, clear=["a", "nothing"])

        assert edited.version == version({"b": b"1", "count": b"40"})
        assert await world.call("Box/k/add", 2) == 42
        assert await world.state("Box", "k") == {"b": 1, "count": 42}
        assert await world.call("Box/k/all") == {"b": 1, "count": 42}


async def test_all_values_are_replaced(open_world: OpenWorld, home: Home) -> None:
    async with open_world(home.app) as world:
        await world.call("Box/k/put", "a")
        await world.edit("Box/k", {"b": 2}, replaces=True)
        assert await world.call("Box/k/all") == {"b": 2}
        assert (await world.edit("Box/k", {}, replaces=True)).version == NOTHING
        assert await world.state("Box", "k") == {}


async def test_an_object_that_nobody_has_called_yet_is_given_values(open_world: OpenWorld, home: Home) -> None:
    async with open_world(home.app) as world:
        await world.edit("Box/new", {"count": 1}, version=NOTHING)
        assert await world.call("Box/new/add", 1) == 2


async def test_it_is_refused_when_the_values_have_another_version_and_says_which(
    open_world: OpenWorld, home: Home
) -> None:
    async with open_world(home.app) as world:
        await world.call("Box/k/add", 1)
        seen = version({"count": b"1"})
        await world.call("Box/k/add", 1)
        late = await world.edit("Box/k", {"count": 100}, version=seen)
        assert late.failure is not None
        assert late.version == version({"count": b"2"})
        assert await world.state("Box", "k") == {"count": 2}
        assert (await world.edit("Box/k", {"count": 100}, version=late.version)).version == version({"count": b"100"})


async def test_a_version_is_made_with_a_secret_and_may_be_expected_all_the_same(
    open_world: OpenWorld, home: Home, secret: None
) -> None:
    async with open_world(home.app) as world:
        first, twin = await world.edit("Box/k", {"count": 1}), await world.edit("Box/l", {"count": 1})
        assert len({first.version, twin.version, version({"count": b"1"})}) == 3
        second = await world.edit("Box/k", {"count": 2}, version=first.version)
        late = await world.edit("Box/k", {"count": 3}, version=first.version)
    assert second.failure is None
    assert (late.failure and late.failure.code, late.version) == (409, second.version)


async def test_it_waits_for_the_running_handler_and_comes_before_who_came_later(
    open_world: OpenWorld, home: Home
) -> None:
    async with open_world(home.app) as world:
        slow = await world.send("Box/k/add_slowly", 1)
        await home.gate.reached()
        edited = await world.edit("Box/k", {"count": 10}, patience=0.05)
        later = await world.send("Box/k/add", 5)
        assert edited.is_under_way
        assert await world.state("Box", "k") == {}
        home.gate.open()
        assert await world.answer_of(slow) == 1
        assert await ends(world, edited) == {"version": version({"count": b"10"})}
        assert await world.answer_of(later) == 15


async def test_of_edits_that_expect_the_same_version_one_is_carried_out(open_world: OpenWorld, home: Home) -> None:
    async with open_world(home.app) as world:
        edits = await asyncio.gather(*(world.edit("Box/k", {"count": n}, version=NOTHING) for n in range(10)))
        done = [one for one in edits if one.failure is None]
        assert len(done) == 1
        assert {one.version for one in edits} == {done[0].version}


async def test_among_callers_of_a_hot_key_no_change_is_lost(open_world: OpenWorld, home: Home) -> None:
    """The values that an edit sees are the committed ones with all that comes before it, whatever was speculated."""
    async with open_world(home.app) as world:
        adding = asyncio.gather(*(world.call("Box/k/add", 1) for _ in range(100)))
        edits = [await world.edit("Box/k", {f"n{n}": n}) for n in range(10)]
        await adding
        assert all(one.version for one in edits)
        assert await world.state("Box", "k") == {"count": 100, **{f"n{n}": n for n in range(10)}}


async def test_one_that_waits_is_cancelled_or_killed_like_any_other(open_world: OpenWorld, home: Home) -> None:
    async with open_world(home.app) as world:
        slow = await world.send("Box/k/add_slowly", 1)
        await home.gate.reached()
        cancelled = await world.edit("Box/k", {"count": 10}, patience=0.01)
        killed = await world.edit("Box/k", {"count": 20}, patience=0.01)
        await world.cancel(format_id(cancelled.id))
        await world.kill(format_id(killed.id))
        for one in (cancelled, killed):
            await world.until_status(format_id(one.id), "completed")
        home.gate.open()
        await world.answer_of(slow)
        for one, word in ((cancelled, "cancelled"), (killed, "killed")):
            with pytest.raises(TerminalError, match=word):
                await ends(world, one)
        assert await world.state("Box", "k") == {"count": 1}


async def test_it_survives_the_death_of_the_engine_that_has_its_key(open_world: OpenWorld, home: Home) -> None:
    async with open_world(home.app, home.app) as world:
        slow = await world.send("Box/k/add_slowly", 1)
        await home.gate.reached()
        edited = await world.edit("Box/k", {"count": 10}, patience=0.01)
        (owner,) = {row[0] for row in await world.rows("SELECT owner FROM object_key")}
        (dead,) = [member for member in world.members if member.id == owner]
        await dead.kill()
        await world.bury(dead)
        home.gate.open()
        await world.answer_of(slow)
        assert await ends(world, edited) == {"version": version({"count": b"10"})}
        assert await world.call("Box/k/add", 1) == 11


async def test_one_that_is_refused_halfway_changes_nothing(
    open_world: OpenWorld, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(home.app) as world:
        await world.call("Box/k/put", "a")
        with monkeypatch.context() as small:
            small.setattr(drive, "LONGEST_JOURNAL", 5)
            edited = await world.edit("Box/k", {f"n{n}": n for n in range(10)}, clear=["a"])
        assert edited.failure is not None
        assert edited.version is None
        assert await world.call("Box/k/all") == {"a": 1}
        assert await world.call("Box/k/add", 1) == 1  # as the engine has it in memory
        assert await world.state("Box", "k") == {"a": 1, "count": 1}
        assert await world.rows("SELECT FROM state_history") == []


async def test_what_the_database_does_not_take_is_told_and_leaves_the_values(open_world: OpenWorld, home: Home) -> None:
    async with open_world(home.app) as world:
        await world.call("Box/k/put", "a")
        await world.sql.execute("ALTER TABLE state ADD CONSTRAINT small CHECK (length(value) < 10)")
        try:
            edited = await world.edit("Box/k", {"a": "far too long for that"}, patience=0.05)
            await world.until_status(format_id(edited.id), "paused")
            assert await world.kill(format_id(edited.id)) == "done"
            assert await world.call("Box/k/all") == {"a": 1}
        finally:
            await world.sql.execute("ALTER TABLE state DROP CONSTRAINT small")


async def test_who_edits_is_in_the_audit_log_without_the_values(open_world: OpenWorld, home: Home) -> None:
    async with open_world(home.app) as world:
        edited = await world.edit("Box/k", {"secret": "hush"}, version=NOTHING)
        log = await world.rows("SELECT actor, verb, target, details, result FROM audit ORDER BY id DESC LIMIT 1")
        details = {"invocation": format_id(edited.id), "expected": NOTHING, "set": ["secret"], "cleared": []}
        assert log == [("tester", "state.edit", "Box/k", details, "queued")]
