"""Resuming: what is paused or backs off is tried again now, afresh and on the code that is asked for."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from runtime.core.audit import Act
from runtime.core.invocation import Status
from runtime.errors import DatabaseError
from runtime.store import audit, pack
from runtime.store.link import Link, Pipeline, Statement, rows, whole
from runtime.store.verbs import DISARM, IS_DONE, LOCK_KEY, TRIES


class Resumed(StrEnum):
    """What came of it."""

    RESUMED = "resumed"  # it will be tried as soon as an engine with the code has room
    NOT_STARTED = "not_started"  # it has no attempt yet that could be resumed
    AT_WORK = "at_work"  # it is neither paused nor backing off
    ALREADY_ENDED = "already_ended"
    NO_SUCH_CODE = "no_such_code"  # there is no such deployment, or it lacks the service
    UNKNOWN = "unknown"


UNSTARTED = (Status.SCHEDULED, Status.PENDING)

LOCK = Statement("SELECT status FROM invocation WHERE id = $1::uuid FOR NO KEY UPDATE", pack.UUID)
HAS_CODE = Statement(
    """
SELECT FROM invocation JOIN deployment ON deployment.id = $2::text
    AND deployment.manifest @> jsonb_build_object('services', jsonb_build_array(jsonb_build_object('name', service)))
WHERE invocation.id = $1::uuid
""",
    pack.UUID,
    pack.TEXT,
)
# $2: keep its code; else the code is $3, or with null the service's newest.
RESUME = Statement(
    """
WITH resumed AS (
    UPDATE invocation SET status = 'ready', due_at = NULL, modified_at = now(), retries = 0, stuck = 0,
        stuck_since = NULL, crashes = 0, deployment = CASE WHEN $2::bool THEN deployment ELSE $3::text END
    WHERE id = $1::uuid AND status IN ('paused', 'backing-off')
    RETURNING id, mode, queue, service, key, deployment
)
INSERT INTO ready (queue, invocation, service, key, deployment)
SELECT queue, CASE WHEN mode <> 'exclusive' THEN id END, service, CASE WHEN mode = 'exclusive' THEN key END, deployment
FROM resumed RETURNING 1
""",
    pack.UUID,
    pack.BOOL,
    pack.TEXT,
)


async def resume(link: Link, id: bytes, deployment: str | None, act: Act | None, *, keep: bool = False) -> Resumed:
    """Try an invocation again on `deployment`; None: on the newest of its service; `keep`: on the one it had."""
    for attempt in range(1, TRIES + 1):
        try:
            return await _try_to_resume(link, id, deployment, act, keep)
        except DatabaseError as error:
            if not (error.is_transient or error.is_lock_timeout) or attempt == TRIES:
                raise
    raise AssertionError("unreachable")


async def _try_to_resume(link: Link, id: bytes, deployment: str | None, act: Act | None, keep: bool) -> Resumed:
    """One transaction."""
    code = None if deployment is None else deployment.encode()
    found: dict[str, Any] = {"has_code": True}
    looking = Pipeline()
    looking.begin()
    looking.call(LOCK_KEY, id)
    looking.call(LOCK, id, read=lambda result: found.update(row=rows(result)))
    looking.call(IS_DONE, id, read=lambda result: found.update(is_done=result.ntuples > 0))
    if code is not None:
        looking.call(HAS_CODE, id, code, read=lambda result: found.update(has_code=result.ntuples > 0))
    acting = Pipeline()
    async with whole(link):
        await link.run(looking)
        resumed = _judge(found)
        if resumed is Resumed.RESUMED:
            acting.call(DISARM, id)
            acting.call(RESUME, id, bytes([keep]), code)
        audit.note(acting, act, resumed)
        acting.commit()
        await link.run(acting)
    return resumed


def _judge(found: dict[str, Any]) -> Resumed:
    if not found["row"]:
        return Resumed.ALREADY_ENDED if found["is_done"] else Resumed.UNKNOWN
    status = Status(found["row"][0][0].decode())
    if status in UNSTARTED:
        return Resumed.NOT_STARTED
    if status not in (Status.PAUSED, Status.BACKING_OFF):
        return Resumed.AT_WORK
    return Resumed.RESUMED if found["has_code"] else Resumed.NO_SUCH_CODE
