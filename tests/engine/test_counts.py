"""What engines and ingresses count: each thing once, and what an engine had counted outlives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

import pytest

from perdure import Context, Endpoint, ObjectContext, Retry, Service, TerminalError, VirtualObject, handler
from runtime.core.tally import name
from runtime.store import tally
from tests.engine.conftest import OpenWorld
from tests.support.world import World


@pytest.fixture(autouse=True)
def told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "INTERVAL", 0.02)


async def counted(world: World, *names: str) -> dict[str, float]:
    """The counts of these families, without the zeros."""
    counts: Counter[str] = Counter()
    for (told,) in await world.rows("SELECT counts FROM tally"):
        counts.update(told)
    return {text: count for text, count in counts.items() if text.split("\t")[0] in names}


async def until_counted(world: World, wanted: Mapping[str, float], *names: str) -> None:
    async def is_so() -> bool:
        return await counted(world, *names) == wanted

    try:
        await world.until(is_so, within=5)
    except TimeoutError:
        assert await counted(world, *names) == wanted


async def test_what_is_accepted_started_and_ended_is_counted_by_handler_and_outcome(open_world: OpenWorld) -> None:
    class Post(VirtualObject):
        @handler
        async def put(self, ctx: ObjectContext, letter: str) -> None:
            if letter == "bomb":
                raise TerminalError("no")

    class Sender(Service):
        @handler
        async def send(self, ctx: Context, letter: str) -> None:
            await ctx.object_client(Post, "k").put("from a handler")
            ctx.object_send_client(Post, "k").put(letter)

    async with open_world(Endpoint(Post, Sender)) as world:
        for letter in ("love", "bomb"):
            await world.call("Sender/send", letter)
        await world.send("Post/k/put", "from outside", once="1")
        await world.send("Post/k/put", "from outside", once="1")
        await world.settle()
        await until_counted(
            world,
            {
                name("accepted", "Sender", "send"): 2,
                name("started", "Sender", "send"): 2,
                name("completed", "Sender", "send", "succeeded"): 2,
                name("accepted", "Post", "put"): 5,
                name("started", "Post", "put"): 5,
                name("completed", "Post", "put", "succeeded"): 4,
                name("completed", "Post", "put", "failed"): 1,
            },
            *("accepted", "started", "completed"),
        )
        durations = await counted(world, "attempt_seconds", "call_seconds")
        attempts = [text.split("\t") for text in durations if text.startswith("attempt")]
        assert {names[1] for names in attempts} == {"Post", "Sender"}
        assert sum(durations["\t".join(names)] for names in attempts if names[3] != "sum") == 7
        called = {text: count for text, count in durations.items() if text.startswith("call") and "sum" not in text}
        assert sum(called.values()) == 2


async def test_failed_attempts_are_counted_apart_from_those_that_are_made_again(open_world: OpenWorld) -> None:
    failures = iter([True, True, False])

    class Shaky(Service, retry=Retry(initial=timedelta(milliseconds=10), max_attempts=5)):
        @handler
        async def work(self, ctx: Context) -> None:
            if next(failures):
                raise RuntimeError("again")

    class Broken(Service, retry=Retry(max_attempts=1)):
        @handler
        async def work(self, ctx: Context) -> None:
            raise RuntimeError("never")

    async with open_world(Endpoint(Shaky, Broken)) as world:
        await world.call("Shaky/work")
        paused = await world.send("Broken/work")
        await world.until_status(paused, "paused")
        await until_counted(
            world,
            {
                name("started", "Shaky", "work"): 1,
                name("attempts_failed", "Shaky", "work"): 2,
                name("retries", "Shaky", "work"): 2,
                name("started", "Broken", "work"): 1,
                name("attempts_failed", "Broken", "work"): 1,
            },
            *("started", "attempts_failed", "retries"),
        )
        await world.kill(paused)


async def test_what_an_engine_has_counted_outlives_it_and_its_death_is_counted(open_world: OpenWorld) -> None:
    class Greeter(Service):
        @handler
        async def greet(self, ctx: Context) -> None: ...

    endpoint = Endpoint(Greeter)
    async with open_world(endpoint, endpoint) as world:
        for _ in range(10):
            await world.call("Greeter/greet")
        ended = {name("completed", "Greeter", "greet", "succeeded"): 10}
        await until_counted(world, ended, "completed")
        await world.members[0].kill()
        await until_counted(world, {name("fenced"): 1}, "fenced")
        await world.members[1].stop()
        await until_counted(world, ended, "completed")
        flushes = await counted(world, "flush_changes", "loop_lag_seconds")
        assert {text.split("\t")[1] for text in flushes} == {"engine", "ingress"}
