"""Resuming: what is paused or backs off is tried again, by a person's word."""

from __future__ import annotations

from datetime import timedelta

from perdure import Context, Endpoint, ObjectContext, Retry, Service, VirtualObject, handler
from runtime.store.resume import Resumed
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate

LONG = timedelta(hours=1)


class Lock:
    """An object whose handler fails until the lock is opened."""

    def __init__(self, retry: Retry) -> None:
        self.is_open = False

        class Safe(VirtualObject, retry=retry):
            @handler
            async def open(self, ctx: ObjectContext, name: str) -> str:
                ctx.set("tried by", name)
                if not self_.is_open:
                    raise RuntimeError("locked")
                return name

        self_ = self
        self.endpoint = Endpoint(Safe)


async def test_a_backing_off_one_is_tried_at_once_and_its_key_goes_on_in_order(open_world: OpenWorld) -> None:
    lock = Lock(Retry(initial=LONG))
    async with open_world(lock.endpoint) as world:
        first, second = await world.send("Safe/k/open", "first"), await world.send("Safe/k/open", "second")
        await world.until_status(first, "backing-off")
        assert await world.resume(second) is Resumed.NOT_STARTED
        lock.is_open = True
        assert await world.resume(first) is Resumed.RESUMED
        assert await world.answer_of(first) == "first"
        assert await world.answer_of(second) == "second"
        assert await world.resume(first) is Resumed.ALREADY_ENDED


async def test_a_paused_one_begins_a_new_stretch_of_trying(open_world: OpenWorld) -> None:
    lock = Lock(Retry(initial=timedelta(milliseconds=1), max_attempts=2))
    async with open_world(lock.endpoint) as world:
        id = await world.send("Safe/k/open", "Mary")
        for _ in range(2):
            await world.until_status(id, "paused")
            assert await world.resume(id, "dp_unheard_of") is Resumed.NO_SUCH_CODE
            assert await world.resume(id) is Resumed.RESUMED
        await world.until_status(id, "paused")
        lock.is_open = True
        await world.resume(id)
        assert await world.answer_of(id) == "Mary"


async def test_one_that_contradicts_its_journal_goes_on_with_code_that_does_not(open_world: OpenWorld) -> None:
    async def nothing() -> None: ...

    def shop(step: str, gate: Gate, documentation: str) -> Endpoint:
        class Order(Service):
            __doc__ = documentation

            @handler
            async def place(self, ctx: Context) -> str:
                await ctx.run(step, nothing)
                await ctx.run("wait", gate.wait)
                return step

        return Endpoint(Order)

    old, wrong, right = (
        shop("pack", gate := Gate(), "The first."),
        shop("pay", Gate(), "Contradicts it."),
        shop("pack", gate, "The first, mended."),
    )
    async with open_world(old) as world:
        id = await world.send("Order/place")
        await gate.reached()
        assert await world.resume(id) is Resumed.AT_WORK
        await world.members[0].kill()
        await world.register(wrong)
        await world.start_engine(wrong)
        await world.adopt()
        await world.until_status(id, "paused")
        await world.register(right)
        await world.start_engine(right)
        gate.open()
        assert await world.resume(id, "latest") is Resumed.RESUMED
        assert await world.answer_of(id) == "pack"
