"""Rescue: engines look after one another, and take over what the dead leave.

Dead is whose advisory lock was free at two looks (killed), or whose beat stood still for ten of its beats (frozen,
while our own looks went on: a paused database must not kill everybody).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

from msgspec import Struct

from runtime.engine.pulse import Pulse
from runtime.errors import DatabaseError
from runtime.store import owners
from runtime.store.side import Side

log = logging.getLogger(__name__)

INTERVAL = 0.25
UNLOCKED_LOOKS = 2
STILL_LOOKS = int(10 * Pulse.INTERVAL / INTERVAL)
SWEEP = 20  # looks between two sweeps for work of the dead that nobody put back


class Seen(Struct):
    beat: int
    still: int = 0
    unlocked: int = 0


async def watch(side: Side, engine: bytes, queued: Callable[[], None]) -> None:
    """Look until cancelled; raises Disconnected."""
    seen: dict[bytes, Seen] = {}
    for round in range(1 << 62):
        await asyncio.sleep(INTERVAL)
        looks = await side.run(lambda link: owners.look(link, engine))
        seen = {look.engine: compare(seen.get(look.engine), look) for look in looks}
        dead = [id for id, one in seen.items() if one.unlocked >= UNLOCKED_LOOKS or one.still >= STILL_LOOKS]
        if round % SWEEP == 0:
            dead += await side.run(owners.unfinished)
        for id in dead:
            try:
                count = await side.run(functools.partial(owners.bury, engine=id))
            except DatabaseError as error:  # somebody else is at it, or it holds a lock still: at the next look
                log.info("engine %s is not buried yet: %s", id.hex(), error)
                continue
            log.warning("engine %s is dead; %d invocations and keys go on elsewhere", id.hex(), count)
            queued()


def compare(before: Seen | None, look: owners.Look) -> Seen:
    """What a new look at an engine adds to the earlier ones."""
    if before is None:
        return Seen(look.beat, unlocked=int(look.is_unlocked))
    return Seen(
        look.beat,
        still=before.still + 1 if look.beat == before.beat else 0,
        unlocked=before.unlocked + 1 if look.is_unlocked else 0,
    )
