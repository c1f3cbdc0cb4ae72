"""Attempts that fail: what is tried again, when, and what a closure's result is worth."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Retry, Service, TerminalError, VirtualObject, gather, handler
from tests.engine.conftest import OpenWorld
from tests.support.world import Gate

SOON = timedelta(milliseconds=20)


class Trouble(Exception):
    """Nobody's fault, and over soon."""


class Times:
    """Fails the first times, and counts."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0
        self.at: list[float] = []

    def __call__(self) -> int:
        self.calls += 1
        self.at.append(time.time())
        if self.calls <= self.failures:
            raise Trouble(f"call {self.calls}")
        return self.calls


async def test_a_handler_that_fails_is_tried_again(open_world: OpenWorld) -> None:
    shaky = Times(2)

    class Shaky(Service, retry=Retry(initial=SOON)):
        @handler
        async def work(self, ctx: Context) -> int:
            return shaky()

    async with open_world(Endpoint(Shaky)) as world:
        assert await world.call("Shaky/work") == 3


async def test_the_pauses_between_attempts_grow_up_to_the_longest(open_world: OpenWorld) -> None:
    shaky = Times(4)
    policy = Retry(initial=timedelta(milliseconds=100), factor=2.0, max_interval=timedelta(milliseconds=200))

    class Shaky(Service, retry=policy):
        @handler
        async def work(self, ctx: Context) -> int:
            return shaky()

    async with open_world(Endpoint(Shaky)) as world:
        assert await world.call("Shaky/work") == 5
    pauses = [later - earlier for earlier, later in zip(shaky.at, shaky.at[1:], strict=False)]
    assert all(pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.2, 0.2), strict=True))


async def test_it_says_why_it_is_backing_off(open_world: OpenWorld) -> None:
    class Shaky(Service, retry=Retry(initial=timedelta(hours=1))):
        @handler
        async def work(self, ctx: Context) -> None:
            raise Trouble("with a NUL \0 and a lone surrogate \ud800")

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/work")
        await world.until_status(id, "backing-off")
        failure = await world.failure(id)
        assert failure["message"].startswith("Trouble: with a NUL")
        assert "raise Trouble" in failure["stacktrace"]
        await world.kill(id)


async def test_attempts_used_up_pause_the_invocation(open_world: OpenWorld) -> None:
    shaky = Times(3)

    class Shaky(Service, retry=Retry(initial=SOON, max_attempts=3)):
        @handler
        async def work(self, ctx: Context) -> int:
            return shaky()

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/work")
        await world.until_status(id, "paused")
        assert shaky.calls == 3
        await world.resume(id)
        assert await world.answer_of(id) == 4


async def test_how_many_attempts_failed_is_known_of_one_that_is_paused_was_resumed_and_has_ended(
    open_world: OpenWorld,
) -> None:
    shaky = Times(3)

    class Shaky(Service, retry=Retry(initial=SOON, max_attempts=3)):
        @handler
        async def work(self, ctx: Context) -> int:
            return shaky()

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/work")
        await world.until_status(id, "paused")
        assert await world.failed_attempts(id) == 3
        assert (await world.failure(id))["message"] == "Trouble: call 3"

        await world.resume(id)
        await world.answer_of(id)
        assert await world.failed_attempts(id) == 3


async def test_attempts_that_failed_before_it_was_suspended_are_still_counted(
    open_world: OpenWorld, impatience: None
) -> None:
    shaky = Times(2)

    class Shaky(Service):
        @handler
        async def work(self, ctx: Context) -> None:
            await ctx.run("shaky", shaky, retry=Retry(initial=SOON))
            await ctx.sleep(timedelta(hours=1))

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/work")
        await world.until_status(id, "suspended")
        assert await world.failed_attempts(id) == 2
        await world.kill(id)
        assert await world.failed_attempts(id) == 2


@pytest.mark.parametrize(("error", "count"), [(Trouble, 2), (TerminalError, 0)])
async def test_the_attempt_with_which_it_was_given_up_is_counted_and_an_end_of_its_own_is_none(
    open_world: OpenWorld, error: type[Exception], count: int
) -> None:
    class Shaky(Service, retry=Retry(initial=SOON, max_attempts=2, on_max_attempts="kill")):
        @handler
        async def work(self, ctx: Context) -> None:
            raise error("no")

    async with open_world(Endpoint(Shaky)) as world:
        id = await world.send("Shaky/work")
        with pytest.raises(TerminalError):
            await world.answer_of(id)
        assert await world.failed_attempts(id) == count


async def test_attempts_used_up_fail_the_call_when_the_policy_says_so(open_world: OpenWorld) -> None:
    shaky = Times(100)

    class Shaky(Service, retry=Retry(initial=SOON, max_attempts=2, on_max_attempts="kill")):
        @handler
        async def work(self, ctx: Context) -> int:
            return shaky()

    async with open_world(Endpoint(Shaky)) as world:
        with pytest.raises(TerminalError, match="Trouble: call 2"):
            await world.call("Shaky/work")
    assert shaky.calls == 2


async def test_a_handlers_policy_goes_before_its_services(open_world: OpenWorld) -> None:
    shaky = Times(100)

    class Shaky(Service, retry=Retry(initial=timedelta(hours=1))):
        @handler(retry=Retry(max_attempts=1, on_max_attempts="kill"))
        async def work(self, ctx: Context) -> int:
            return shaky()

    async with open_world(Endpoint(Shaky)) as world:
        with pytest.raises(TerminalError, match="Trouble: call 1"):
            await world.call("Shaky/work")


async def test_a_step_that_has_its_result_is_not_taken_again(open_world: OpenWorld) -> None:
    first, shaky = Times(0), Times(2)

    class Shaky(Service, retry=Retry(initial=SOON)):
        @handler
        async def work(self, ctx: Context) -> list[int]:
            result = await ctx.run("first", first)
            return [result, shaky()]

    async with open_world(Endpoint(Shaky)) as world:
        assert await world.call("Shaky/work") == [1, 3]
    assert first.calls == 1


async def test_a_closure_that_fails_is_tried_again(open_world: OpenWorld) -> None:
    shaky = Times(2)

    class Shaky(Service):
        @handler
        async def work(self, ctx: Context) -> int:
            return await ctx.run("shaky", shaky, retry=Retry(initial=SOON))

    async with open_world(Endpoint(Shaky)) as world:
        assert await world.call("Shaky/work") == 3


async def test_a_closure_whose_attempts_are_used_up_fails_for_the_handler(open_world: OpenWorld) -> None:
    shaky = Times(100)

    class Shaky(Service):
        @handler
        async def work(self, ctx: Context) -> str:
            try:
                await ctx.run("shaky", shaky, retry=Retry(initial=SOON, max_attempts=3))
            except TerminalError as error:
                return error.message
            return "passed"

    async with open_world(Endpoint(Shaky)) as world:
        assert "after 3 attempts. Trouble: call 3" in await world.call("Shaky/work")
    assert shaky.calls == 3


async def test_each_closure_has_attempts_of_its_own(open_world: OpenWorld) -> None:
    shaky, shakier = Times(2), Times(2)

    class Shaky(Service):
        @handler
        async def work(self, ctx: Context) -> list[int]:
            policy = Retry(initial=SOON, max_attempts=3)
            return [await ctx.run("a", shaky, retry=policy), await ctx.run("b", shakier, retry=policy)]

    async with open_world(Endpoint(Shaky)) as world:
        assert await world.call("Shaky/work") == [3, 3]


async def test_a_terminal_error_of_a_closure_is_not_tried_again(open_world: OpenWorld) -> None:
    calls: list[int] = []

    def refuse() -> None:
        calls.append(1)
        raise TerminalError("sold out", code=410)

    class Shop(Service):
        @handler
        async def buy(self, ctx: Context) -> None:
            await ctx.run("buy", refuse)

    async with open_world(Endpoint(Shop)) as world:
        with pytest.raises(TerminalError, match="sold out") as refused:
            await world.call("Shop/buy")
        assert refused.value.code == 410
    assert len(calls) == 1


async def test_a_step_has_one_result_however_often_the_handler_is_replayed(open_world: OpenWorld) -> None:
    drawn: list[int] = []

    def draw() -> int:
        drawn.append(len(drawn))
        return drawn[-1]

    shaky = Times(3)

    class Lottery(Service, retry=Retry(initial=SOON)):
        @handler
        async def play(self, ctx: Context) -> list[int]:
            numbers = [await ctx.run("draw", draw) for _ in range(3)]
            shaky()
            return numbers

    async with open_world(Endpoint(Lottery)) as world:
        assert await world.call("Lottery/play") == [0, 1, 2]
    assert shaky.calls == 4


async def test_closures_at_once_run_beside_one_another(open_world: OpenWorld) -> None:
    gate = Gate()

    class Wide(Service):
        @handler
        async def work(self, ctx: Context) -> int:
            await gather(*(ctx.run(f"step {n}", gate.wait) for n in range(4)))
            return gate.arrived

    async with open_world(Endpoint(Wide)) as world:
        id = await world.send("Wide/work")
        await gate.reached(times=4)
        gate.open()
        assert await world.answer_of(id) == 4


async def test_what_a_failed_attempt_sent_is_sent_once(open_world: OpenWorld) -> None:
    shaky = Times(3)

    class Counter(VirtualObject):
        @handler
        async def add(self, ctx: ObjectContext) -> int:
            count = (await ctx.get("count", int) or 0) + 1
            ctx.set("count", count)
            return count

    class Shaky(Service, retry=Retry(initial=SOON)):
        @handler
        async def work(self, ctx: Context) -> int:
            ctx.object_send_client(Counter, "k").add()
            count = await ctx.object_client(Counter, "k").add()
            shaky()
            return count

    async with open_world(Endpoint(Counter, Shaky)) as world:
        assert await world.call("Shaky/work") == 2
        assert await world.state("Counter", "k") == {"count": 2}


async def test_a_backing_off_handler_keeps_its_key_and_the_queue_its_order(open_world: OpenWorld) -> None:
    shaky = Times(2)

    class Door(VirtualObject, retry=Retry(initial=timedelta(milliseconds=150))):
        @handler
        async def enter(self, ctx: ObjectContext, name: str) -> None:
            if name == "first":
                shaky()
            ctx.set("names", [*(await ctx.get("names", list[str]) or []), name])

        @handler(shared=True)
        async def names(self, ctx: ObjectContext) -> list[str]:
            return await ctx.get("names", list[str]) or []

    async with open_world(Endpoint(Door)) as world:
        first = await world.send("Door/k/enter", "first")
        await world.until_status(first, "backing-off")
        for name in ("second", "third"):
            await world.send("Door/k/enter", name)
        assert await world.call("Door/k/names") == []
        await world.settle()
        assert await world.state("Door", "k") == {"names": ["first", "second", "third"]}


async def test_a_sleep_lasts_as_long_as_it_was_asked_to(open_world: OpenWorld) -> None:
    class Sleeper(Service):
        @handler
        async def nap(self, ctx: Context, milliseconds: int) -> None:
            await ctx.sleep(timedelta(milliseconds=milliseconds))

    async with open_world(Endpoint(Sleeper)) as world:
        began = time.monotonic()
        await asyncio.gather(*(world.call("Sleeper/nap", 200) for _ in range(20)))
        assert time.monotonic() - began >= 0.2


async def test_a_sleep_does_not_begin_anew_when_the_handler_is_replayed(
    open_world: OpenWorld, impatience: None
) -> None:
    class Sleeper(Service):
        @handler
        async def nap(self, ctx: Context) -> None:
            await ctx.sleep(timedelta(milliseconds=900))

    async with open_world(Endpoint(Sleeper)) as world:
        began = time.monotonic()
        id = await world.send("Sleeper/nap")
        await world.until_status(id, "suspended")
        await world.answer_of(id)
        assert 0.9 <= time.monotonic() - began < 1.7
