"""Drained engines and queues: nothing new begins there, what waits goes on elsewhere, nothing is lost."""

from __future__ import annotations

import asyncio
import functools
import time
from uuid import uuid4

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from runtime import steering
from runtime.store.drained import Drain
from tests.engine.conftest import OpenWorld
from tests.engine.test_crowds import Crowd, have_ended
from tests.support.world import TESTER, Gate, Member, World


class House:
    """An object and a service that wait at a gate inside a closure, and something quick that calls them."""

    def __init__(self) -> None:
        gate = self.gate = Gate()

        class Room(VirtualObject):
            @handler
            async def enter(self, ctx: ObjectContext, name: str) -> str:
                ctx.set("names", [*(await ctx.get("names", list[str]) or []), name])
                await ctx.run("wait", gate.wait)
                return name

        class Porter(Service):
            @handler
            async def greet(self, ctx: Context, name: str) -> str:
                return f"Hello {name}"

            @handler
            async def ask(self, ctx: Context, name: str) -> str:
                await ctx.run("wait", gate.wait)
                return await ctx.service_client(Porter).greet(name)

            @handler
            async def write(self, ctx: Context) -> str:
                return await ctx.service_client(Abroad).answer()

        class Abroad(Service):
            @handler
            async def answer(self, ctx: Context) -> str:
                return "answered"

        self.endpoint = Endpoint(Room, Porter)
        self.abroad = Endpoint(Abroad)
        """Code of its own, which engines of the house alone do not have."""


def finished(member: Member) -> int:
    """How many invocations an engine has ended."""
    return member.engine._aftermath.finished


async def holder(world: World, key: str) -> Member:
    """The engine that has a key in memory."""

    async def owner() -> Member | None:
        rows = await world.rows("SELECT owner FROM object_key WHERE key = %s", key)
        return next((member for member in world.members if rows and member.id == rows[0][0]), None)

    found = await world.until(owner)
    assert isinstance(found, Member)
    return found


async def test_a_drained_engine_takes_nothing_new_until_it_is_resumed(open_world: OpenWorld) -> None:
    house = House()
    async with open_world(house.endpoint, house.endpoint) as world:
        drained, other = world.members
        await world.drain(drained)
        for n in range(20):
            assert await world.call("Porter/greet", str(n)) == f"Hello {n}"
        assert (finished(drained), finished(other)) == (0, 20)

        await world.let_work(drained)
        await world.drain(other)
        await world.until(lambda: takes_work(drained))
        assert await world.call("Porter/greet", "again") == "Hello again"
        assert finished(drained) == 1
        await world.let_work(other)


async def takes_work(member: Member) -> bool:
    return bool(member.engine.memory.open_queues)


async def test_a_drained_engine_gives_back_its_keys_with_those_who_wait_there(open_world: OpenWorld) -> None:
    house = House()
    async with open_world(house.endpoint, house.endpoint) as world:
        first = await world.send("Room/k/enter", "first")
        await house.gate.reached()
        drained = await holder(world, "k")
        for name in ("second", "third"):
            await world.send("Room/k/enter", name)
        await world.drain(drained)
        house.gate.open()
        assert await world.answer_of(first) == "first"
        await world.settle()
        assert finished(drained) == 1
        assert await world.state("Room", "k") == {"names": ["first", "second", "third"]}
        assert not drained.engine.is_busy


async def test_what_waits_in_a_drained_engine_goes_on_in_another(open_world: OpenWorld) -> None:
    house = House()
    async with open_world(house.endpoint) as world:
        (drained,) = world.members
        await world.register(house.abroad)
        ids = [await world.send("Porter/write") for _ in range(10)]
        await world.until(lambda: are_asked(world, 10))
        await world.drain(drained)
        other = await world.start_engine(house.endpoint, house.abroad)
        assert [await world.answer_of(id) for id in ids] == ["answered"] * 10
        assert (finished(drained), finished(other)) == (0, 20)
        assert not drained.engine.is_busy


async def are_asked(world: World, wanted: int) -> bool:
    ((count,),) = await world.rows("SELECT count(*) FROM ready WHERE service = 'Abroad'")
    return bool(count == wanted)


async def test_a_closure_under_way_in_a_drained_engine_is_not_repeated(open_world: OpenWorld) -> None:
    house = House()
    async with open_world(house.endpoint, house.endpoint) as world:
        id = await world.send("Porter/ask", "Mary")
        await house.gate.reached()
        await world.drain(*world.members)
        house.gate.open()
        await world.until_status(id, "suspended")  # its call waits for an engine that takes work
        await world.let_work(*world.members)
        assert await world.answer_of(id) == "Hello Mary"
        assert house.gate.arrived == 1


async def test_the_successor_of_a_drained_engine_is_drained_from_its_birth(open_world: OpenWorld) -> None:
    house = House()
    async with open_world(house.endpoint) as world:
        successor = await world.start_engine(house.endpoint, is_drained=True)
        for n in range(10):
            await world.call("Porter/greet", str(n))
        assert finished(successor) == 0
        assert (await world.rows("SELECT drained_at IS NOT NULL FROM engine WHERE id = %s", successor.id)) == [(True,)]
        await world.let_work(successor)
        await world.until(lambda: takes_work(successor))


async def test_nothing_new_of_a_drained_queue_begins_however_it_comes(open_world: OpenWorld) -> None:
    house = House()
    async with open_world(house.endpoint) as world:
        asking = await world.send("Porter/ask", "Mary")
        room = await world.send("Room/k/enter", "first")
        await house.gate.reached(times=2)
        await world.drain_queue()
        fresh = await world.start_engine(house.endpoint)
        ids = [
            await world.send("Porter/greet", "from outside"),
            await world.send("Porter/greet", "when due", due=int(time.time() * 1000) + 10),
            await world.send("Room/k/enter", "second"),
            await world.send("Room/l/enter", "elsewhere"),
        ]
        house.gate.open()
        assert await world.answer_of(room) == "first"  # what has begun goes on
        await world.until_status(asking, "suspended")  # and what it calls does not begin

        async def all_are_in_the_queue() -> bool:
            rows = await world.rows("SELECT service, key FROM ready ORDER BY service, key")
            return rows == [("Porter", None)] * 3 + [("Room", "k"), ("Room", "l")]

        await world.until(all_are_in_the_queue)
        assert house.gate.arrived == 2
        assert finished(fresh) == 0

        await world.resume_queue()
        for id in (asking, *ids):
            await world.answer_of(id)
        assert await world.state("Room", "k") == {"names": ["first", "second"]}


async def test_draining_twice_is_draining_once_and_what_is_unknown_is_said_to_be(open_world: OpenWorld) -> None:
    house = House()
    async with open_world(house.endpoint) as world:
        for _ in range(2):
            await world.drain(*world.members)
            await world.drain_queue()
        for _ in range(2):
            await world.let_work(*world.members)
            await world.resume_queue()
        here = world.operations
        assert await steering.drain_engine(here, uuid4(), TESTER) is Drain.UNKNOWN
        assert await steering.drain_queue(here, "no such queue\0", TESTER) is Drain.UNKNOWN
        assert await world.call("Porter/greet", "Mary") == "Hello Mary"


@pytest.mark.parametrize("wake_ups", ["polls"], indirect=True)
async def test_an_engine_that_is_killed_while_it_drains_loses_nothing(open_world: OpenWorld) -> None:
    senders = 40
    crowd = Crowd()
    async with open_world(crowd.endpoint, crowd.endpoint) as world:
        sending = asyncio.gather(*(world.send("Sender/send", sender) for sender in range(senders)))
        for ended, is_reached in ((20, told), (60, knows), (100, is_empty)):
            await world.until(functools.partial(have_ended, world, ended))
            victim = next(member for member in world.members if member.is_alive)
            await steering.drain_engine(world.operations, victim.id, TESTER)
            await world.until(functools.partial(is_reached, victim))
            await victim.kill()
            await world.bury(victim)
            await world.start_engine(crowd.endpoint)
        await sending
        await world.settle()
        await crowd.check(world, senders)


async def told(_: Member) -> bool:
    return True


async def knows(member: Member) -> bool:
    return member.engine.is_drained


async def is_empty(member: Member) -> bool:
    return member.engine.is_drained and not member.engine.is_busy


async def test_a_crowd_keeps_its_order_while_engines_are_drained_and_resumed(open_world: OpenWorld) -> None:
    senders = 60
    crowd = Crowd()
    async with open_world(crowd.endpoint, crowd.endpoint) as world:
        calling = asyncio.gather(*(world.call("Sender/send", sender) for sender in range(senders)))
        for n in range(6):
            member = world.members[n % 2]
            await world.drain(member)
            await world.let_work(member)
        await calling
        await world.settle()
        await crowd.check(world, senders)
