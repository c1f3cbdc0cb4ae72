"""What handlers of ours tell and ask each other besides calling: awakeables, signals, and how others end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, TerminalError, VirtualObject, first, gather, handler
from tests.engine.conftest import OpenWorld
from tests.support.world import World


class Post(Service):
    @handler
    async def waits(self, ctx: Context) -> list[str]:
        one, two = ctx.awakeable(str), ctx.awakeable(str)
        ctx.service_send_client(Post).brings([two.id, one.id])
        return list(await gather(one, two))

    @handler
    async def brings(self, ctx: Context, ids: list[str]) -> None:
        for number, id in enumerate(ids):
            ctx.resolve_awakeable(id, f"letter {number}")

    @handler
    async def is_refused(self, ctx: Context) -> str:
        awaited = ctx.awakeable(str)
        ctx.service_send_client(Post).refuses(awaited.id)
        return await awaited

    @handler
    async def refuses(self, ctx: Context, id: str) -> None:
        ctx.reject_awakeable(id, "No.", code=418)

    @handler
    async def listens(self, ctx: Context) -> list[int]:
        return [await ctx.signal("number", int) for _ in range(3)]

    @handler
    async def tells(self, ctx: Context, id: str) -> None:
        for number in range(3):
            ctx.send_signal(id, "number", number)

    @handler
    async def races(self, ctx: Context) -> str:
        late, signal = ctx.sleep(timedelta(milliseconds=50)), ctx.signal("never", str)
        race = first(late, signal)
        await race
        return "late" if race.winner is late else "signal"

    @handler
    async def attaches(self, ctx: Context, id: str) -> str:
        before = await ctx.output(id, str)
        ctx.send_signal(id, "go", "gone")
        return f"{before} {await ctx.attach(id, str)}"

    @handler
    async def attaches_to_nobody(self, ctx: Context) -> str:
        return await ctx.attach("inv_10000000000000000000000", str)


class Sleeper(VirtualObject):
    @handler
    async def sleep(self, ctx: ObjectContext) -> str:
        return await ctx.signal("go", str)


ENDPOINT = Endpoint(Post, Sleeper)


async def test_awakeables_are_brought_by_another_handler(open_world: OpenWorld) -> None:
    async with open_world(ENDPOINT) as world:
        assert await world.call("Post/waits") == ["letter 1", "letter 0"]


async def test_an_awakeable_that_is_refused_raises(open_world: OpenWorld) -> None:
    async with open_world(ENDPOINT) as world:
        with pytest.raises(TerminalError, match=r"No\.") as caught:
            await world.call("Post/is_refused")
        assert caught.value.code == 418


async def test_signals_of_a_name_are_heard_one_after_the_other(open_world: OpenWorld, impatience: None) -> None:
    async with open_world(ENDPOINT) as world:
        id = await world.send("Post/listens")
        await world.until_status(id, "suspended")
        await world.call("Post/tells", id)
        assert await world.answer_of(id) == [0, 1, 2]


async def test_a_signal_loses_a_race_that_it_does_not_come_to(open_world: OpenWorld, impatience: None) -> None:
    async with open_world(ENDPOINT) as world:
        assert await world.call("Post/races") == "late"


async def test_the_end_of_another_is_known_when_it_comes(open_world: OpenWorld, impatience: None) -> None:
    async with open_world(ENDPOINT) as world:
        id = await world.send("Sleeper/k/sleep")
        await world.until(lambda: _suspended(world))
        assert await world.call("Post/attaches", id) == "None gone"


async def test_who_is_not_known_is_not_found(open_world: OpenWorld) -> None:
    async with open_world(ENDPOINT) as world:
        with pytest.raises(TerminalError, match="not found") as caught:
            await world.call("Post/attaches_to_nobody")
        assert caught.value.code == 404


async def _suspended(world: World) -> bool:
    return bool(await world.rows("SELECT FROM invocation WHERE status = 'suspended'"))
