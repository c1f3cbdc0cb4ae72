"""Hints that come when what they tell of has long been found without them, and has gone on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure import Context, Endpoint, ObjectContext, Retry, Service, VirtualObject, handler
from perdure.protocol.ids import parse_id
from runtime.wakeups import Kind
from tests.engine.conftest import OpenWorld


class Nobody:
    """Asks, and does not wait for the answer."""

    def send(self, kind: int, item: Any) -> None: ...


class Box(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, text: str) -> None:
        ctx.set("texts", [*(await ctx.get("texts", list[str]) or []), text])


async def test_a_birth_that_is_told_late_is_not_driven_anew(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = list[int]()

    class Flaky(Service, retry=Retry(initial=timedelta(hours=1))):
        @handler
        async def send(self, ctx: Context) -> str:
            ctx.object_send_client(Box, "one").put("a")
            attempts.append(1)
            if len(attempts) == 1:
                raise OSError("at first")
            return "sent"

    async with open_world(Endpoint(Box, Flaky)) as world:
        held_up = list[tuple[Kind, Any]]()
        monkeypatch.setattr(world.operations, "_hint", lambda _, kind, item: held_up.append((kind, item)))
        id = await world.send("Flaky/send")
        await world.until_status(id, "backing-off")
        births = [item for kind, item in held_up if kind is Kind.BORN]
        assert len(births) == 1

        (member,) = world.members
        member.engine._ears.received(Nobody(), Kind.BORN, births)

        async def is_over() -> bool:
            return len(attempts) == 2 and parse_id(id) not in member.engine.memory.drives

        await world.until(is_over)
        assert await world.status(id) == "backing-off"
        await world.resume(id)
        assert await world.outcome(id) == "succeeded"
        assert (await world.state("Box", "one"))["texts"] == ["a"]
