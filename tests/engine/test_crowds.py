"""Crowds: many senders to one object, in calm and while engines die; none overtakes itself, none is lost or doubled."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from tests.engine.conftest import OpenWorld
from tests.support.world import World

LETTERS = 5


class Occupancy:
    """Who is inside, per key; there may be one at most."""

    def __init__(self) -> None:
        self._inside: dict[str, str] = {}

    @contextmanager
    def of(self, ctx: ObjectContext) -> Iterator[None]:
        assert ctx.key not in self._inside, f"{ctx.invocation_id} came while {self._inside[ctx.key]} was inside"
        self._inside[ctx.key] = ctx.invocation_id
        try:
            yield
        finally:
            del self._inside[ctx.key]


class Crowd:
    """Senders who write to one object, by calls and sends in turn; it keeps the letters in the order in which it read
    them. Each fifth letter is read with a step in between, which may be interrupted."""

    def __init__(self) -> None:
        occupancy = Occupancy()
        self.overlaps: list[str] = []

        class Post(VirtualObject):
            @handler
            async def put(me, ctx: ObjectContext, letter: list[int]) -> None:  # noqa: N805
                try:
                    with occupancy.of(ctx):
                        log = await ctx.get("log", list[list[int]]) or []
                        if letter[1] == LETTERS - 1:
                            await ctx.run("stamp", asyncio.sleep, 0)
                        ctx.set("log", [*log, letter])
                except AssertionError as overlap:
                    self.overlaps.append(str(overlap))
                    raise

        class Sender(Service):
            @handler
            async def send(me, ctx: Context, sender: int) -> None:  # noqa: N805
                for n in range(LETTERS):
                    if n % 2:
                        ctx.object_send_client(Post, "k").put([sender, n])
                    else:
                        await ctx.object_client(Post, "k").put([sender, n])

        self.endpoint = Endpoint(Post, Sender)

    async def check(self, world: World, senders: int) -> None:
        """Every letter of every sender was read once, in the order of its sending, and one at a time."""
        log = (await world.state("Post", "k"))["log"]
        assert sorted(log) == [[sender, n] for sender in range(senders) for n in range(LETTERS)]
        for sender in range(senders):
            assert [n for who, n in log if who == sender] == list(range(LETTERS))
        assert self.overlaps == []


async def test_two_hundred_senders_to_one_key_keep_their_order_and_never_meet(open_world: OpenWorld) -> None:
    crowd = Crowd()
    async with open_world(crowd.endpoint, crowd.endpoint) as world:
        await asyncio.gather(*(world.call("Sender/send", sender) for sender in range(200)))
        await world.settle()
        await crowd.check(world, 200)


@pytest.mark.parametrize("wake_ups", ["polls"], indirect=True)
async def test_they_keep_their_order_while_one_engine_after_the_other_is_killed(open_world: OpenWorld) -> None:
    senders = 60
    crowd = Crowd()
    async with open_world(crowd.endpoint, crowd.endpoint) as world:
        sending = asyncio.gather(*(world.send("Sender/send", sender) for sender in range(senders)))
        for ended in range(20, 180, 40):
            await world.until(functools.partial(have_ended, world, ended))
            victim = next(member for member in world.members if member.is_alive)
            await victim.kill()
            await world.bury(victim)
            await world.start_engine(crowd.endpoint)
        await sending
        await world.settle()
        await crowd.check(world, senders)


async def have_ended(world: World, wanted: int) -> bool:
    ((count,),) = await world.rows("SELECT count(*) FROM done")
    return bool(count >= wanted)
