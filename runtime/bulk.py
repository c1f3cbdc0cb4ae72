"""Verbs by filter: whom a filter means is written down at once, and each of them is told, some hundred at a time.

It is carried out by whoever was asked; when that process ends in the middle of it, the chores go on. Each invocation is
told once, and is a line of its own in the audit log.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from perdure.protocol.ids import format_id
from runtime import steering
from runtime.core.access import Actor
from runtime.core.audit import Act
from runtime.core.filters import InvocationFilter
from runtime.core.invocation import Status
from runtime.errors import DatabaseError, RuntimeFault
from runtime.operations import Operations
from runtime.reading import invocations
from runtime.steering import KEEP, LATEST, Verb
from runtime.store import audit
from runtime.store import bulk as store
from runtime.store.bulk import Bulk
from runtime.store.link import Link, Pipeline

log = logging.getLogger(__name__)

AT_MOST = 1_000
"""Invocations that one may mean, unless it is said otherwise."""
MOST = 100_000
LOCKED = "locked"
"""What is said of an invocation that somebody else has locked for long."""

ALIVE = tuple(status for status in Status if status is not Status.COMPLETED)
MEANS: Mapping[Verb, Sequence[Status]] = {
    Verb.CANCEL: ALIVE,
    Verb.KILL: ALIVE,
    Verb.PAUSE: [status for status in ALIVE if status not in (Status.SCHEDULED, Status.PAUSED)],
    Verb.RESUME: (Status.PAUSED, Status.BACKING_OFF),
    Verb.RESTART: (Status.COMPLETED,),
    Verb.PURGE: (Status.COMPLETED,),
    Verb.PURGE_JOURNAL: (Status.COMPLETED,),
}
"""Those to whom it can be done: others are not meant, whatever the filter says."""


class TooManyMeant(RuntimeFault):
    """The filter means more invocations than were reckoned with; none of them was touched."""

    code = "too_many"
    hint = "Narrow the filter, or say `at_most`."


async def meant(verb: Verb, wanted: InvocationFilter, at_most: int) -> list[bytes]:
    """Whom it would be done to. Raises TooManyMeant."""
    statuses = tuple(status for status in MEANS[verb] if not wanted.statuses or status in wanted.statuses)
    if not statuses:
        return []
    ids = await invocations.ids(replace(wanted, statuses=statuses), limit=at_most + 1)
    if len(ids) > at_most:
        raise TooManyMeant(f"The filter means more than {at_most} invocations.")
    return ids


async def begin(
    here: Operations,
    verb: Verb,
    ids: Sequence[bytes],
    by: Actor,
    said: Mapping[str, Any],
    deployment: str | None = None,
    services: Sequence[str] | None = None,
) -> bytes:
    """Write it down; `said` is the filter in words, `services` are the only ones that it is about.

    Answers its id. Raises Disconnected, DatabaseError.
    """
    deployment = deployment or (LATEST if verb is Verb.RESTART else KEEP)
    bulk = Bulk(secrets.token_bytes(16), verb, deployment, by, services)
    act = Act(by, f"invocations.{verb}", str(UUID(bytes=bulk.id)), {"filter": said, "total": len(ids)})
    await here.run(lambda link: store.begin(link, bulk, said, ids, act))
    return bulk.id


async def stop(here: Operations, id: bytes, by: Actor) -> bool:
    """Tell nobody else; False: it is finished already. Raises Disconnected, DatabaseError.

    Who has been told stays told.
    """
    act = Act(by, "bulk.stop", str(UUID(bytes=id)))
    return await here.run(lambda link: store.stop(link, id, act))


async def carry_out(here: Operations, id: bytes, told: Callable[[int], None] = lambda _: None) -> None:
    """Tell those who have not been told yet; `told` hears how many each time. Raises Disconnected.

    Of two who do it at once one gives up.
    """
    bulk = await here.run(lambda link: store.find(link, id))
    if bulk is None:
        return
    after = bytes(16)
    while ids := await here.run(lambda link: store.next_of(link, id, after)):  # noqa: B023 -- awaited here
        if not await _tell(here, bulk, ids):
            return
        told(len(ids))
        after = ids[-1]
    await here.run(lambda link: store.finish(link, id))


async def _tell(here: Operations, bulk: Bulk, ids: Sequence[bytes]) -> bool:
    """Tell them, or as many as can be; False: somebody else does."""
    note = _noting(bulk)
    try:
        await steering.tell_all(here, Verb(bulk.verb), ids, note, bulk.deployment)
    except DatabaseError as error:
        if store.is_not_alone(error):
            return False
        if len(ids) > 1:  # somebody keeps one of them locked: the others need not suffer for it
            return all([await _tell(here, bulk, [id]) for id in ids])
        log.warning("%s was not told to %s: %s", format_id(ids[0]), bulk.verb, error)
        await here.run(lambda link: _give_up(link, note, ids))
    return True


async def _give_up(link: Link, note: audit.Note, ids: Sequence[bytes]) -> None:
    pipeline = Pipeline()
    note(pipeline, dict.fromkeys(ids, LOCKED))
    await link.run(pipeline)


def _noting(bulk: Bulk) -> audit.Note:
    """A line in the audit log for each of them, and how far it has come."""

    def note(pipeline: Pipeline, came: Mapping[bytes, str]) -> None:
        details = {"bulk": str(UUID(bytes=bulk.id))}
        acts = {id: Act(bulk.by, f"invocation.{bulk.verb}", format_id(id), details) for id in came}
        audit.noting(acts)(pipeline, came)
        store.count(pipeline, bulk.id, came)

    return note
