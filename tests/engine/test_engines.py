"""Engines come and go: they die at any point, stop when asked, take over from each other, and nothing is lost."""

from __future__ import annotations

import asyncio
import functools
import time
from datetime import timedelta
from typing import Literal

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from runtime.errors import DatabaseError, Disconnected
from runtime.operations import operations
from tests.engine.conftest import OpenWorld
from tests.support.disk import Disk
from tests.support.world import Gate, World, uuid

SHORT = timedelta(milliseconds=30)


class Ledger(VirtualObject):
    @handler
    async def note(self, ctx: ObjectContext, line: str) -> int:
        lines = [*(await ctx.get("lines", list[str]) or []), line]
        ctx.set("lines", lines)
        return len(lines)


class Clerk(Service):
    """Does one of everything."""

    @handler
    async def work(self, ctx: Context, key: str) -> int:
        ctx.object_send_client(Ledger, key).note("sent")
        stamp = await ctx.run("stamp", str, "stamped")
        await ctx.object_client(Ledger, key).note(stamp)
        await ctx.sleep(SHORT)
        ctx.object_send_client(Ledger, key, delay=SHORT).note("late")
        return await ctx.object_client(Ledger, key).note("called")


app = Endpoint(Ledger, Clerk)
LINES = {"lines": ["sent", "stamped", "called", "late"]}


class Waiter:
    """A service whose handler waits at a gate, inside a closure, and counts how often that was executed."""

    def __init__(self) -> None:
        gate = self.gate = Gate()

        class Slow(VirtualObject):
            @handler
            async def wait(self, ctx: ObjectContext, name: str) -> str:
                await ctx.run("wait", gate.wait)
                ctx.set("name", name)
                return name

        self.endpoint = Endpoint(Slow)


async def journaled(world: World, invocations: int) -> None:
    """Wait until so many have committed the `ctx.run` that they are in. (Else they get on by it after a crash: see
    `suspects`.)"""

    async def all_are() -> bool:
        return len(await world.rows("SELECT DISTINCT invocation FROM journal")) == invocations

    await world.until(all_are)


@pytest.mark.parametrize("wake_ups", ["hints"], indirect=True)
async def test_who_takes_over_tells_those_who_wait(open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "POLL", 3600.0)
    monkeypatch.setattr(operations, "MOURNING", 3600.0)  # however long an engine takes to start here
    waiter = Waiter()
    async with open_world(waiter.endpoint) as world:
        calls = [asyncio.create_task(world.call(f"Slow/{key}/wait", key)) for key in ("a", "b")]
        await waiter.gate.reached(2)
        await journaled(world, 2)
        queued = asyncio.create_task(world.call("Slow/a/wait", "c"))
        await world.until(functools.partial(is_queued, world))
        await world.members[0].kill()
        await world.start_engine(waiter.endpoint)
        await waiter.gate.reached(4)
        waiter.gate.open()
        assert await asyncio.gather(*calls, queued) == ["a", "b", "c"]


async def is_queued(world: World) -> bool:
    return len(await world.rows("SELECT FROM inbox")) == 3


@pytest.mark.parametrize("wake_ups", ["polls"], indirect=True)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_wherever_an_engine_dies_another_goes_on(
    open_world: OpenWorld, disk: Disk, when: Literal["before", "after"]
) -> None:
    """At each of its commits in turn, and just after it. What dies within one is undone by the server."""
    async with open_world() as world:
        await world.register(app)
        for deadly in range(1, 100):
            doomed = await world.start_engine(app)
            disk.lose(when, deadly)
            doomed.is_mourned = True
            id = await world.send("Clerk/work", f"k{deadly}")
            await world.until(functools.partial(died_or_done, world, doomed.task, f"k{deadly}"))
            disk.lose(when, None)
            doomed.engine.stop()
            await asyncio.wait({doomed.task})
            survived = doomed.task.exception() is None
            if not survived:
                await world.bury(doomed)
                heir = await world.start_engine(app)
                assert await world.answer_of(id) == 3
                await world.until(functools.partial(is_noted, world, f"k{deadly}"))
                await world.settle()
                await heir.stop()
            assert await world.state("Ledger", f"k{deadly}") == LINES
            if survived:
                break
        assert deadly > 6, "it never died"


async def is_noted(world: World, key: str) -> bool:
    return await world.state("Ledger", key) == LINES


async def died_or_done(world: World, task: asyncio.Task[None], key: str) -> bool:
    return task.done() or (await is_noted(world, key) and await world.leftovers("invocation") == {})


async def test_a_killed_engines_work_is_taken_over_within_a_second_and_a_half(open_world: OpenWorld) -> None:
    waiter = Waiter()
    async with open_world(waiter.endpoint, waiter.endpoint) as world:
        ids = [await world.send(f"Slow/k{n}/wait", f"k{n}") for n in range(10)]
        await waiter.gate.reached(times=10)
        owners = await world.rows("SELECT owner, count(*) FROM object_key GROUP BY 1")
        assert len(owners) == 2, "both have some of it"
        before = waiter.gate.arrived
        died_at = time.monotonic()
        await world.members[0].kill()
        await waiter.gate.reached(times=before + 1)
        assert time.monotonic() - died_at < 1.5
        waiter.gate.open()
        assert [await world.answer_of(id) for id in ids] == [f"k{n}" for n in range(10)]


async def test_an_engine_that_was_declared_dead_harms_nothing(open_world: OpenWorld) -> None:
    waiter = Waiter()
    async with open_world(waiter.endpoint) as world:
        zombie = world.members[0]
        id = await world.send("Slow/k/wait", "k")
        await waiter.gate.reached()
        await world.sql.execute("UPDATE engine SET backends = '{}'")  # as if its sessions could not be ended
        await world.bury(zombie)
        await world.start_engine(waiter.endpoint)
        await waiter.gate.reached(times=2)
        waiter.gate.open()
        assert await world.answer_of(id) == "k"
        with pytest.raises(DatabaseError) as fenced:
            await zombie.task
        assert fenced.value.is_fence


async def test_an_engine_whose_sessions_were_ended_harms_nothing(open_world: OpenWorld) -> None:
    waiter = Waiter()
    async with open_world(waiter.endpoint) as world:
        cut_off = world.members[0]
        id = await world.send("Slow/k/wait", "k")
        await waiter.gate.reached()
        await world.bury(cut_off)
        waiter.gate.open()
        with pytest.raises((DatabaseError, Disconnected)):
            await cut_off.task
        await world.start_engine(waiter.endpoint)
        assert await world.answer_of(id) == "k"


async def test_an_engine_that_is_asked_to_stop_lets_closures_end_and_gives_the_rest_back(
    open_world: OpenWorld,
) -> None:
    waiter = Waiter()
    async with open_world(waiter.endpoint) as world:
        holder, behind = await world.send("Slow/k/wait", "first"), await world.send("Slow/k/wait", "second")
        await waiter.gate.reached()
        stopping = asyncio.create_task(world.members[0].stop())
        await asyncio.sleep(0)
        waiter.gate.open()
        await stopping
        assert await world.leftovers("claimed") == {}
        assert await world.rows("SELECT FROM object_key WHERE owner IS NOT NULL") == []
        await world.start_engine(waiter.endpoint)
        assert [await world.answer_of(holder), await world.answer_of(behind)] == ["first", "second"]
    assert waiter.gate.arrived == 2, "the closure that had ended was executed again"


async def test_an_engine_that_stops_takes_nothing_new(open_world: OpenWorld) -> None:
    async with open_world(app) as world:
        await world.members[0].stop()
        id = await world.send("Ledger/k/note", "waits")
        await world.until_status(id, "pending")
        await world.start_engine(app)
        assert await world.answer_of(id) == 1


async def test_an_engine_that_is_not_attached_goes_on_with_its_own_and_takes_nothing_new(
    open_world: OpenWorld,
) -> None:
    waiter = Waiter()
    async with open_world(waiter.endpoint) as world:
        member = world.members[0]
        mine = await world.send("Slow/mine/wait", "mine")
        await waiter.gate.reached()
        member.is_attached = False

        async def says_so() -> bool:
            return await world.rows("SELECT FROM heartbeat WHERE NOT attached") != []

        await world.until(says_so)
        await world.until(lambda: nobody_is_seated(world))
        later = await world.send("Slow/later/wait", "later")
        waiter.gate.open()
        assert await world.answer_of(mine) == "mine"
        assert await world.status(later) == "pending"
        member.is_attached = True
        assert await world.answer_of(later) == "later"


async def nobody_is_seated(world: World) -> bool:
    return not any(seat.is_attached for seat in world.operations.seats.all)


async def test_work_for_code_that_no_engine_has_waits_for_one_that_does(open_world: OpenWorld) -> None:
    async with open_world() as world:
        await world.register(app)
        id = await world.send("Clerk/work", "k")
        assert await world.status(id) == "ready"
        await world.start_engine(app)
        assert await world.answer_of(id) == 3


async def test_sleepers_wake_although_their_engine_is_gone(open_world: OpenWorld, impatience: None) -> None:
    class Sleeper(Service):
        @handler
        async def nap(self, ctx: Context, milliseconds: int) -> str:
            await ctx.sleep(timedelta(milliseconds=milliseconds))
            return "slept"

    endpoint = Endpoint(Sleeper)
    async with open_world(endpoint) as world:
        ids = [await world.send("Sleeper/nap", 700) for _ in range(20)]
        for id in ids:
            await world.until_status(id, "suspended", "completed")
        await world.members[0].kill()
        await world.start_engine(endpoint)
        assert [await world.answer_of(id) for id in ids] == ["slept"] * 20


async def test_an_invocation_whose_engines_keep_dying_is_paused(open_world: OpenWorld) -> None:
    waiter = Waiter()
    async with open_world(waiter.endpoint) as world:
        id = await world.send("Slow/k/wait", "k")
        await waiter.gate.reached()
        await journaled(world, 1)
        for deaths in range(1, 6):
            await waiter.gate.reached(times=deaths)
            await world.until_status(id, "running")
            await world.members[-1].kill()
            await world.bury(world.members[-1])
            await world.start_engine(waiter.endpoint)
        await world.until_status(id, "paused")
        await world.kill(id)
        assert await world.outcome(id) == "killed"


async def test_one_that_gets_on_between_deaths_is_not_to_blame_for_them(open_world: OpenWorld) -> None:
    gates = [Gate() for _ in range(7)]

    class Walker(Service):
        @handler
        async def walk(self, ctx: Context) -> str:
            for n, gate in enumerate(gates):
                await ctx.run(f"step {n}", gate.wait)
            return "there"

    endpoint = Endpoint(Walker)
    async with open_world(endpoint) as world:
        id = await world.send("Walker/walk")
        for step, gate in enumerate(gates):
            await gate.reached()
            if step:
                await world.members[-1].kill()
                await world.bury(world.members[-1])
                await world.start_engine(endpoint)
                await gate.reached(times=2)
            gate.open()
        assert await world.answer_of(id) == "there"


async def test_suspects_are_tried_one_at_a_time_and_the_others_are_not_blamed(open_world: OpenWorld) -> None:
    gates = {name: Gate() for name in ("a", "b", "k")}

    class Walker(Service):
        @handler
        async def walk(self, ctx: Context, name: str) -> str:
            await ctx.run("step", gates[name].wait)
            return name

    class Keeper(VirtualObject):
        @handler
        async def keep(self, ctx: ObjectContext) -> str:
            await ctx.run("step", gates[ctx.key].wait)
            return ctx.key

    def at_work() -> list[str]:
        return [name for name, gate in gates.items() if gate.arrived > before[name]]

    async def one_is() -> list[str]:
        return at_work()

    endpoint = Endpoint(Walker, Keeper)
    async with open_world(endpoint) as world:
        before = dict.fromkeys(gates, 0)
        ids = {name: await world.send("Walker/walk", name) for name in ("a", "b")}
        ids["k"] = await world.send("Keeper/k/keep")
        for gate in gates.values():
            await gate.reached()
        await journaled(world, 3)
        await world.members[-1].kill()
        await world.sql.execute("UPDATE invocation SET crashes = 2, status = 'running'")
        await world.bury(world.members[-1])
        before = {name: gate.arrived for name, gate in gates.items()}
        await world.start_engine(endpoint)
        (first,) = await world.until(one_is)
        await world.members[-1].kill()
        await world.bury(world.members[-1])
        assert dict(await world.rows("SELECT id, crashes FROM invocation")) == {
            uuid(id): 4 if name == first else 3 for name, id in ids.items()
        }
        for gate in gates.values():
            gate.open()
        await world.start_engine(endpoint)
        assert sorted([await world.answer_of(id) for id in ids.values()]) == ["a", "b", "k"]


async def test_a_suspect_that_waits_leaves_memory_and_is_none_any_more(open_world: OpenWorld) -> None:
    class Sleeper(Service):
        @handler
        async def nap(self, ctx: Context) -> None:
            await ctx.sleep(timedelta(hours=1))

    endpoint = Endpoint(Sleeper)
    async with open_world(endpoint) as world:
        id = await world.send("Sleeper/nap")
        await world.until(lambda: world.rows("SELECT FROM timer"))
        await world.members[-1].kill()
        await world.sql.execute("UPDATE invocation SET crashes = 2")
        await world.bury(world.members[-1])
        await world.start_engine(endpoint)
        await world.until_status(id, "suspended")
        assert await world.rows("SELECT crashes FROM invocation") == [(0,)]
        await world.kill(id)


async def test_a_suspect_that_waits_for_its_turn_can_be_killed(open_world: OpenWorld) -> None:
    gate = Gate()
    begun: list[str] = []

    class Walker(Service):
        @handler
        async def walk(self, ctx: Context, name: str) -> None:
            begun.append(name)
            await ctx.run("step", gate.wait)

    endpoint = Endpoint(Walker)
    async with open_world(endpoint) as world:
        ids = {name: await world.send("Walker/walk", name) for name in ("a", "b")}
        await gate.reached(times=2)
        await journaled(world, 2)
        await world.members[-1].kill()
        await world.sql.execute("UPDATE invocation SET crashes = 2")
        await world.bury(world.members[-1])
        await world.start_engine(endpoint)
        await gate.reached(times=3)
        tried = begun[-1]
        waiting = "b" if tried == "a" else "a"
        for name in (waiting, tried):  # the other way round, the waiting one would have its turn between the two
            await world.kill(ids[name])
            assert await world.outcome(ids[name]) == "killed"
        assert begun[2:] == [tried]


async def test_many_suspects_that_do_no_harm_are_soon_through(open_world: OpenWorld) -> None:
    gate = Gate()

    class Walker(Service):
        @handler
        async def walk(self, ctx: Context) -> str:
            await ctx.run("step", gate.wait)
            return "there"

    endpoint = Endpoint(Walker)
    async with open_world(endpoint) as world:
        ids = [await world.send("Walker/walk") for _ in range(50)]
        await gate.reached(times=50)
        await journaled(world, 50)
        await world.members[-1].kill()
        await world.sql.execute("UPDATE invocation SET crashes = 2")
        await world.bury(world.members[-1])
        gate.open()
        await world.start_engine(endpoint)
        assert [await world.answer_of(id) for id in ids] == ["there"] * 50
