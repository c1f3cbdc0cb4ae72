"""What operators may do to sends that are not due yet, whichever face they come through; each act is in the audit log.

One way of doing it for one send and for many: those a filter means are looked up, and then told like one, some hundred
in a transaction. One that becomes due meanwhile goes its way, and is counted as `begun`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from perdure.protocol.ids import format_id
from runtime.core.access import Actor
from runtime.core.audit import Act
from runtime.core.scheduled import ScheduledFilter
from runtime.errors import RuntimeFault
from runtime.operations import Operations
from runtime.reading import scheduled
from runtime.store import scheduled as store
from runtime.store.scheduled import Rescheduled

NOW = 0
MOST = 10_000
"""Sends that one verb by filter may be about, unless it is said otherwise."""


class TooMany(RuntimeFault):
    """The filter means more sends than were reckoned with; none of them was touched."""

    code = "too_many"
    hint = "Narrow the filter, or say `at_most`."


Tell = Callable[[Sequence[bytes]], Awaitable[Rescheduled]]


class Meant(Struct, frozen=True):
    """What a filter means, and what has come of it; None: it was a dry run."""

    ids: Sequence[bytes]
    came: Rescheduled | None


async def move(here: Operations, ids: Sequence[bytes], due: int, by: Actor) -> Rescheduled:
    """Let sends be due at another time (milliseconds since the epoch), or NOW; those given in order stay so.

    Raises Disconnected, DatabaseError.
    """
    act_on = _act(by, "run-now") if due == NOW else _act(by, "move", due=due)
    came = await here.run(lambda link: store.move(link, ids, due, act_on))
    if came.due:
        here.pass_on_due(min(came.due.values()))
    return came


async def cancel(here: Operations, ids: Sequence[bytes], by: Actor) -> Rescheduled:
    """Take sends back. Raises Disconnected, DatabaseError."""
    return await here.run(lambda link: store.cancel(link, ids, _act(by, "cancel")))


async def by_filter(
    wanted: ScheduledFilter,
    tell: Tell,
    *,
    at_most: int = MOST,
    is_dry: bool,
) -> Meant:
    """Tell all that a filter means, unless they are more than `at_most`, or only see who they are.

    Raises TooMany, and what `tell` raises.
    """
    ids = await scheduled.ids(wanted, at_most + 1)
    if len(ids) > at_most:
        raise TooMany(f"The filter means more than {at_most} sends.")
    return Meant(ids, None if is_dry else await tell(ids))


def _act(by: Actor, verb: str, **details: Any) -> Callable[[Sequence[bytes]], Act]:
    """What the audit log says when it is asked of some sends."""

    def on(ids: Sequence[bytes]) -> Act:
        names = [format_id(id) for id in ids]
        if len(names) == 1:
            return Act(by, f"scheduled.{verb}", names[0], details)
        return Act(by, f"scheduled.{verb}", f"{len(names)} sends", {**details, "ids": names})

    return on
