"""A hot key: successors compute on what is not yet committed, and nobody can tell."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from perdure import Endpoint, ObjectContext, Retry, VirtualObject, handler
from runtime.core.changes import Changes, Completed
from runtime.core.invocation import Outcome
from tests.engine.conftest import OpenWorld
from tests.support.disk import Disk
from tests.support.world import World


class Chain:
    """An object whose handlers say how far they have come."""

    def __init__(self, *, speculate: bool = True) -> None:
        self.begun: list[str] = []
        self.executed: list[str] = []

        class Link(VirtualObject, speculate=speculate, retry=Retry(initial=timedelta(milliseconds=20))):
            @handler
            async def add(me, ctx: ObjectContext, name: str) -> list[str]:  # noqa: N805
                self.begun.append(name)
                names = [*(await ctx.get("names", list[str]) or []), name]
                ctx.set("names", names)
                return names

            @handler
            async def execute(me, ctx: ObjectContext, name: str) -> list[str]:  # noqa: N805
                self.begun.append(name)
                await ctx.run("execute", self.executed.append, name)
                names = [*(await ctx.get("names", list[str]) or []), name]
                ctx.set("names", names)
                return names

            @handler(shared=True)
            async def names(me, ctx: ObjectContext) -> list[str]:  # noqa: N805
                return await ctx.get("names", list[str]) or []

        self.endpoint = Endpoint(Link)

    async def have_begun(self, world: World, *names: str) -> None:
        async def all_have() -> bool:
            return set(names) <= set(self.begun)

        await world.until(all_have)


def is_end_of(name: str, changes: Changes) -> bool:
    """Whether its handler has ended; to be killed is another end."""
    ending = changes.ending
    return (
        f'"{name}"'.encode() in changes.invocation.input
        and isinstance(ending, Completed)
        and ending.outcome is not Outcome.KILLED
    )


async def test_a_successor_computes_before_its_predecessor_is_committed_and_executes_nothing_yet(
    open_world: OpenWorld, disk: Disk
) -> None:
    chain = Chain()
    async with open_world(chain.endpoint) as world:
        await world.call("Link/k/add", "first")
        disk.hold()
        added, executed = await world.send("Link/k/add", "second"), await world.send("Link/k/execute", "third")
        await chain.have_begun(world, "second", "third")
        assert chain.executed == []
        assert await world.state("Link", "k") == {"names": ["first"]}
        assert await world.status(added) != "completed"
        disk.release()
        assert await world.answer_of(added) == ["first", "second"]
        assert await world.answer_of(executed) == ["first", "second", "third"]
    assert chain.executed == ["third"]


async def test_shared_handlers_do_not_see_what_is_not_committed(open_world: OpenWorld, disk: Disk) -> None:
    chain = Chain()
    async with open_world(chain.endpoint, chain.endpoint) as world:
        await world.call("Link/k/add", "first")
        disk.hold()
        await world.send("Link/k/add", "second")
        await chain.have_begun(world, "second")
        looking = asyncio.create_task(world.call("Link/k/names"))

        async def is_waiting() -> bool:
            rows = await world.rows("SELECT FROM invocation WHERE mode = 'shared'")
            return len(rows) == 1

        await world.until(is_waiting)
        assert await world.state("Link", "k") == {"names": ["first"]}
        disk.release()
        assert await looking in (["first"], ["first", "second"])
        assert await world.call("Link/k/names") == ["first", "second"]


async def test_an_object_that_does_not_speculate_waits_for_the_commit(open_world: OpenWorld, disk: Disk) -> None:
    chain = Chain(speculate=False)
    async with open_world(chain.endpoint) as world:
        await world.call("Link/k/add", "first")
        disk.hold()
        await world.send("Link/k/add", "second")
        third = await world.send("Link/k/add", "third")
        await chain.have_begun(world, "second")
        for _ in range(20):
            await asyncio.sleep(0)
        assert "third" not in chain.begun
        disk.release()
        assert await world.answer_of(third) == ["first", "second", "third"]


async def test_what_was_only_computed_dies_with_its_engine_and_is_computed_anew(
    open_world: OpenWorld, disk: Disk
) -> None:
    chain = Chain()
    async with open_world(chain.endpoint) as world:
        await world.call("Link/k/add", "first")
        disk.hold()
        added, executed = await world.send("Link/k/add", "second"), await world.send("Link/k/execute", "third")
        await chain.have_begun(world, "second", "third")
        await world.members[0].kill()
        disk.release()
        await world.start_engine(chain.endpoint)
        assert await world.answer_of(added) == ["first", "second"]
        assert await world.answer_of(executed) == ["first", "second", "third"]
    assert chain.executed == ["third"]
    assert chain.begun.count("second") == 2


async def test_a_poisonous_one_in_the_chain_harms_only_itself(open_world: OpenWorld, disk: Disk) -> None:
    chain = Chain()
    names = [str(n) for n in range(8)]
    async with open_world(chain.endpoint) as world:
        await world.call("Link/k/add", "first")
        disk.hold()
        disk.refuses = lambda changes: is_end_of("3", changes)
        ids = {name: await world.send("Link/k/add", name) for name in names}
        await chain.have_begun(world, "0", "1", "2", "3", "4")
        disk.release()
        assert await world.answer_of(ids["2"]) == ["first", "0", "1", "2"]
        await world.until_status(ids["3"], "backing-off", "paused", "ready", "running")
        assert await world.status(ids["4"]) == "pending"
        await world.kill(ids["3"])
        assert await world.answer_of(ids["7"]) == ["first", "0", "1", "2", "4", "5", "6", "7"]
        assert await world.outcome(ids["3"]) == "killed"


async def test_a_poisonous_one_is_tried_again_and_then_the_chain_goes_on(open_world: OpenWorld, disk: Disk) -> None:
    chain = Chain()
    async with open_world(chain.endpoint) as world:
        await world.call("Link/k/add", "first")
        disk.hold()
        refusals = iter([True] * 6)
        disk.refuses = lambda changes: is_end_of("b", changes) and next(refusals, False)
        ids = [await world.send("Link/k/add", name) for name in "abcd"]
        await chain.have_begun(world, "a", "b", "c", "d")
        disk.release()
        assert await world.answer_of(ids[3]) == ["first", "a", "b", "c", "d"]


async def test_a_hot_key_counts_to_five_hundred(open_world: OpenWorld) -> None:
    class Counter(VirtualObject):
        @handler
        async def add(self, ctx: ObjectContext) -> int:
            count = (await ctx.get("count", int) or 0) + 1
            ctx.set("count", count)
            return count

    app = Endpoint(Counter)
    async with open_world(app, app) as world:
        answers = await asyncio.gather(*(world.call("Counter/k/add") for _ in range(500)))
        assert sorted(answers) == list(range(1, 501))
