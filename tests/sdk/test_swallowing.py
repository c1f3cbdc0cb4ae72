"""Code that catches everything, even what tells it that it is over: it goes no further, and holds up nobody."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from datetime import timedelta

import pytest

from perdure import Context, Service, gather, handler
from perdure.protocol import messages as m
from tests.sdk.support import Stage, until

LONG = timedelta(days=1)
CURE = "write `except Exception`"


class World:
    def __init__(self) -> None:
        self.caught = 0
        self.is_patient = True
        """Handlers may go on; else they let go, as no real one would."""


world = World()


@pytest.fixture(autouse=True)
def _world() -> Iterator[None]:
    world.__init__()  # type: ignore[misc]
    yield
    world.is_patient = False
    gc.collect()  # closes what was left where it stood


def catch(error: BaseException) -> None:
    world.caught += 1
    if not world.is_patient:
        raise error


class Deaf(Service):
    @handler
    async def sleeping(self, ctx: Context) -> None:
        while True:
            try:
                await ctx.sleep(LONG)
            except BaseException as error:
                catch(error)

    @handler
    async def calling(self, ctx: Context) -> None:
        while True:
            try:
                await gather(ctx.service_client("Other").do(), ctx.now(), timeout=LONG)
            except BaseException as error:
                catch(error)

    @handler
    async def sending(self, ctx: Context) -> str:
        await ctx.sleep(LONG)
        for _ in range(1000):
            try:
                ctx.service_send_client("Other").do()
            except BaseException as error:
                catch(error)
        return "sent"

    @handler
    async def waiting_for_the_same(self, ctx: Context) -> None:
        sleep = ctx.sleep(LONG)
        while True:
            try:
                await sleep
            except BaseException as error:
                catch(error)

    @handler
    async def a_few_times(self, ctx: Context) -> str:
        for _ in range(10):
            try:
                await ctx.sleep(LONG)
            except BaseException as error:
                catch(error)
        return "done"

    @handler
    async def in_a_step(self, ctx: Context) -> None:
        await ctx.run("poll", poll)


async def poll() -> str:
    while world.is_patient:
        try:
            await asyncio.sleep(LONG.total_seconds())
        except BaseException as error:
            catch(error)
            return "caught"
    return "let go"


FOR_EVER = ["sleeping", "calling", "waiting_for_the_same"]


async def turns(count: int = 10) -> None:
    """As many turns of the loop: it turns, for nobody holds it."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", FOR_EVER)
async def test_a_handler_that_swallows_its_suspension_goes_no_further(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = await Stage(Deaf, name).begin()
    said = len(stage.emitted)
    assert stage.attempt.suspend()
    await turns()
    assert [type(message) for message in stage.emitted[said:]] == [m.Suspension]
    assert 0 < world.caught < 200
    (warning,) = [record for record in caplog.records if CURE in record.message]
    assert "inv_1me" in warning.message


@pytest.mark.parametrize("name", FOR_EVER)
async def test_one_that_goes_no_further_keeps_no_loop_from_closing(name: str) -> None:
    stage = await Stage(Deaf, name).begin()
    stage.attempt.abort()
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("name", ["sleeping", "calling"])
async def test_one_that_swallows_a_mismatch_fails_with_a_word_to_its_author(name: str) -> None:
    stage = await Stage(Deaf, name, journal=[m.Input(), m.Run(1, "something else")]).begin()
    await turns()
    [error] = stage.emitted
    assert isinstance(error, m.Error)
    assert (error.code, error.related_command_name) == (570, "something else")
    assert "something else" in error.message
    assert CURE in error.message
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_it_asks_for_after_that_does_not_happen(caplog: pytest.LogCaptureFixture) -> None:
    stage = await Stage(Deaf, "sending", journal=[m.Input(), m.Run(1, "something else")]).begin()
    assert [type(message) for message in stage.emitted] == [m.Error]
    stage = await Stage(Deaf, "sending").begin()
    stage.attempt.abort()
    await turns()
    assert [type(message) for message in stage.emitted] == [m.Sleep]


async def test_whoever_swallows_it_a_few_times_ends_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    stage = await Stage(Deaf, "a_few_times").begin()
    assert stage.attempt.suspend()
    await turns(20)
    assert [type(message) for message in stage.emitted] == [m.Sleep, m.Suspension]
    assert world.caught == 10
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert CURE not in caplog.text


async def test_resumed_it_goes_on_as_if_nothing_had_been(caplog: pytest.LogCaptureFixture) -> None:
    stage = await Stage(Deaf, "sleeping").begin()
    assert stage.attempt.suspend()
    await turns()
    known = world.caught
    stage = Stage(Deaf, "sleeping", journal=[*stage.journal, m.SleepCompletion(1, m.VOID)])
    await stage.begin()
    assert [type(message) for message in stage.emitted] == [m.Sleep]
    assert world.caught == known
    await stage.drop()


async def test_what_a_step_gives_that_swallowed_its_end_is_dropped() -> None:
    stage = Stage(Deaf, "in_a_step")
    stage.attempt.begin()
    await until(lambda: stage.attempt.executing == 1)
    await turns()
    stage.attempt.abort()
    await until(lambda: world.caught == 1)
    await turns()
    assert [type(message) for message in stage.emitted] == [m.Run]
    assert asyncio.all_tasks() == {asyncio.current_task()}
