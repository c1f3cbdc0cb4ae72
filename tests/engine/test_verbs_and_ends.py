"""Verbs that meet the end of an invocation: one of them wins, and the other is told."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from runtime import steering
from runtime.steering import Verb
from runtime.store.purge import Purged
from runtime.store.restart import Restarted
from runtime.store.resume import Resumed
from runtime.store.verbs import Verdict
from tests.engine.conftest import OpenWorld
from tests.support.world import World

ROUNDS = 20


class Quick(Service):
    @handler
    async def work(self, ctx: Context) -> str:
        await ctx.run("step", step)
        return "done"


class Desk(VirtualObject):
    @handler
    async def work(self, ctx: ObjectContext) -> str:
        await ctx.run("step", step)
        return "done"


async def step() -> None: ...


app = Endpoint(Quick, Desk)


async def ends(world: World, id: str) -> str:
    """How it ended; what was paused is let go on."""
    await world.until_status(id, "completed", "paused")
    if await world.status(id) == "paused":
        await world.resume(id)
    return await world.outcome(id)


@pytest.mark.parametrize("target", ["Quick/work", "Desk/k/work"])
@pytest.mark.parametrize("verb", [Verb.CANCEL, Verb.KILL, Verb.PAUSE])
async def test_a_verb_and_the_end_at_once(open_world: OpenWorld, target: str, verb: Verb) -> None:
    word_for = {Verb.CANCEL: "cancelled", Verb.KILL: "killed", Verb.PAUSE: "succeeded"}
    async with open_world(app) as world:
        for turn in range(ROUNDS):
            id = await world.send(target)
            for _ in range(turn):  # a little later each time, until it has ended long ago
                await asyncio.sleep(0)
            word = await world._tell(verb, id)
            outcome = await ends(world, id)
            if word is Verdict.DONE:
                assert outcome == word_for[verb]
            elif word is Verdict.ALREADY_ENDED:
                assert outcome == "succeeded"
            else:
                assert word in (Verdict.ASKED, Verdict.PAUSED, Verdict.NOT_STARTED)
                assert outcome in ("succeeded", word_for[verb])


@pytest.mark.parametrize("verb", [Verb.PURGE, Verb.PURGE_JOURNAL, Verb.RESTART])
async def test_what_is_for_the_ended_waits_for_no_end_and_misses_none(open_world: OpenWorld, verb: Verb) -> None:
    too_early: steering.Word = Restarted.NOT_ENDED if verb is Verb.RESTART else Purged.NOT_ENDED
    async with open_world(app) as world:
        for _ in range(ROUNDS):
            id = await world.send("Quick/work")
            word = too_early
            while word is too_early:
                word = (await world.restart(id))[0] if verb is Verb.RESTART else await world._tell(verb, id)
            assert word in (Purged.PURGED, Restarted.RESTARTED), "it is never unknown in between"
            if verb is Verb.PURGE:
                world.accepted.remove(id)


@pytest.mark.parametrize(
    ("verbs", "outcomes"),
    [
        ((Verb.PAUSE, Verb.RESUME), {"succeeded"}),
        ((Verb.CANCEL, Verb.KILL), {"succeeded", "cancelled", "killed"}),
        ((Verb.PAUSE, Verb.CANCEL), {"succeeded", "cancelled"}),
        ((Verb.PAUSE, Verb.KILL), {"succeeded", "killed"}),
    ],
)
async def test_two_verbs_at_once_leave_one_end(
    open_world: OpenWorld, verbs: tuple[Verb, Verb], outcomes: set[str]
) -> None:
    async with open_world(app) as world:
        ids = [await world.send(f"Desk/{turn % 5}/work") for turn in range(ROUNDS)]
        words = await asyncio.gather(*(world._tell(verb, id) for id in ids for verb in verbs))
        assert Verdict.UNKNOWN not in words
        assert Resumed.UNKNOWN not in words
        assert {await ends(world, id) for id in ids} <= outcomes
