"""What the database refused: it goes on from what is committed, once, however often somebody looks meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Retry, Service, VirtualObject, handler
from runtime.core.changes import Changes, Completed, Parked
from runtime.store import claim
from runtime.store.link import Link
from tests.engine.conftest import OpenWorld
from tests.support.disk import Disk
from tests.support.world import Gate, World

SOON = Retry(initial=timedelta(milliseconds=20))


class Looks:
    """Counts how often engines have looked for what is theirs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended = 0
        owned = claim.owned

        async def look(link: Link, engine: bytes) -> claim.Claimed:
            found = await owned(link, engine)
            self.ended += 1
            return found

        monkeypatch.setattr(claim, "owned", look)

    async def have_ended(self, world: World, number: int) -> None:
        """Wait until so many more looks have ended."""
        before = self.ended

        async def they_have() -> bool:
            return self.ended >= before + number

        await world.until(they_have)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.mark.parametrize("target", ["Desk/work", "Drawer/k/work"])
async def test_it_does_not_begin_anew_before_it_is_known_to_have_failed(
    open_world: OpenWorld, disk: Disk, looks: Looks, target: str
) -> None:
    attempts: list[str] = []

    class Desk(Service, retry=SOON):
        @handler
        async def work(self, ctx: Context) -> str:
            attempts.append(ctx.invocation_id)
            return "done"

    class Drawer(VirtualObject, retry=SOON):
        @handler
        async def work(self, ctx: ObjectContext) -> str:
            attempts.append(ctx.invocation_id)
            return "done"

    def refuse_its_end(changes: Changes) -> bool:
        return len(attempts) == 1 and isinstance(changes.ending, Completed)

    async with open_world(Endpoint(Desk, Drawer)) as world:
        disk.refuses = refuse_its_end
        disk.hold(lambda changes: isinstance(changes.ending, Parked))  # that it failed is not committed yet
        id = await world.send(target)
        await world.until(disk.holds_something)
        await looks.have_ended(world, 5)
        assert len(attempts) == 1
        disk.release()
        assert await world.answer_of(id) == "done"
        assert len(attempts) == 2
        assert await world.call(target) == "done"


async def test_an_end_that_is_refused_again_and_again_is_tried_with_each_look_and_no_sooner(
    open_world: OpenWorld, disk: Disk, looks: Looks
) -> None:
    gate, refused = Gate(), 0

    class Drawer(VirtualObject, retry=SOON):
        @handler
        async def work(self, ctx: ObjectContext) -> None:
            await ctx.run("wait", gate.wait)

    def refuse_its_end(changes: Changes) -> bool:
        nonlocal refused
        is_end = isinstance(changes.ending, Completed)
        refused += is_end
        return is_end

    async with open_world(Endpoint(Drawer)) as world:
        id = await world.send("Drawer/k/work")
        await gate.reached()
        disk.refuses = refuse_its_end
        before = looks.ended
        await world.kill(id)
        await looks.have_ended(world, 10)
        assert 1 < refused <= looks.ended - before + 1
        disk.refuses = lambda _: False
        assert await world.outcome(id) == "killed"
