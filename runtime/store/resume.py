"""Resuming: what is paused or backs off is tried again now, afresh and on the code that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from runtime.core.invocation import Status
from runtime.store import pack
from runtime.store.audit import Note
from runtime.store.link import Link, Pipeline, Statement, rows, whole
from runtime.store.verbs import ARE_DONE, DISARM, LOCK_KEYS, tried


class Resumed(StrEnum):
    """What came of it."""

    RESUMED = "resumed"  # it will be tried as soon as an engine with the code has room
    NOT_STARTED = "not_started"  # it has no attempt yet that could be resumed
    AT_WORK = "at_work"  # it is neither paused nor backing off
    ALREADY_ENDED = "already_ended"
    NO_SUCH_CODE = "no_such_code"  # there is no such deployment, or it lacks the service
    CODE_DELETED = "code_deleted"  # what it began on is registered no more, nor is it loaded anywhere
    NO_SERVICE = "no_service"  # none that is registered has its service any more
    UNKNOWN = "unknown"


UNSTARTED = (Status.SCHEDULED, Status.PENDING)

LOCK = Statement(
    "SELECT id, status FROM invocation WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE", pack.UUIDS
)
# Whether there is the code that they are to go on with ($2, $3: as below), and whether there is any of their service.
HAVE_CODE = Statement(
    """
SELECT invocation.id,
       CASE WHEN $3::text IS NOT NULL THEN EXISTS (
                SELECT FROM deployment WHERE id = $3::text AND manifest @> jsonb_build_object(
                    'services', jsonb_build_array(jsonb_build_object('name', invocation.service))))
            WHEN $2::bool THEN invocation.deployment IS NULL
                OR EXISTS (SELECT FROM deployment WHERE id = invocation.deployment)
                OR EXISTS (SELECT FROM engine WHERE alive AND invocation.deployment = ANY (deployments))
            ELSE EXISTS (SELECT FROM service WHERE name = invocation.service) END,
       EXISTS (SELECT FROM service WHERE name = invocation.service)
FROM invocation WHERE invocation.id = ANY ($1::uuid[])
""",
    pack.UUIDS,
    pack.BOOL,
    pack.TEXT,
)
# $2: keep their code; else the code is $3, or with null the service's newest.
RESUME = Statement(
    """
WITH resumed AS (
    UPDATE invocation SET status = 'ready', due_at = NULL, modified_at = now(), retries = 0, stuck = 0,
        stuck_since = NULL, crashes = 0, deployment = CASE WHEN $2::bool THEN deployment ELSE $3::text END
    WHERE id = ANY ($1::uuid[]) AND status IN ('paused', 'backing-off')
    RETURNING id, mode, queue, service, key, deployment
)
INSERT INTO ready (queue, invocation, service, key, deployment)
SELECT queue, CASE WHEN mode <> 'exclusive' THEN id END, service, CASE WHEN mode = 'exclusive' THEN key END, deployment
FROM resumed ORDER BY id
""",
    pack.UUIDS,
    pack.BOOL,
    pack.TEXT,
)


async def resume(
    link: Link, ids: Collection[bytes], deployment: str | None, note: Note, *, keep: bool = False
) -> dict[bytes, Resumed]:
    """Try invocations again, all in one transaction.

    On `deployment`; None: on the newest of its service; `keep`: on the one it had.
    """
    return await tried(lambda: _try_to_resume(link, sorted({*ids}), deployment, note, keep))


async def _try_to_resume(
    link: Link, ids: Sequence[bytes], deployment: str | None, note: Note, keep: bool
) -> dict[bytes, Resumed]:
    """One transaction."""
    packed, code = pack.uuids(ids), None if deployment is None else deployment.encode()
    statuses: dict[bytes, Status] = {}
    ended: set[bytes] = set()
    codes: dict[bytes, Resumed] = {}
    looking = Pipeline()
    looking.begin()
    looking.call(LOCK_KEYS, packed)
    looking.call(
        LOCK,
        packed,
        read=lambda result: statuses.update((id, Status(status.decode())) for id, status in rows(result)),
    )
    looking.call(ARE_DONE, packed, read=lambda result: ended.update(row[0] for row in rows(result)))
    looking.call(
        HAVE_CODE,
        packed,
        bytes([keep]),
        code,
        read=lambda result: codes.update((id, _code(*found, is_named=code is not None)) for id, *found in rows(result)),
    )
    acting = Pipeline()
    async with whole(link):
        await link.run(looking)
        came = {id: Resumed.ALREADY_ENDED if id in ended else Resumed.UNKNOWN for id in ids}
        came |= {id: _judge(status, codes[id]) for id, status in statuses.items()}
        if resumed := [id for id in ids if came[id] is Resumed.RESUMED]:
            acting.call(DISARM, pack.uuids(resumed))
            acting.call(RESUME, pack.uuids(resumed), bytes([keep]), code)
        note(acting, came)
        acting.commit()
        await link.run(acting)
    return came


def _code(has_code: bytes, has_service: bytes, *, is_named: bool) -> Resumed:
    """What can come of it, by the code that there is."""
    if has_code == b"\x01":
        return Resumed.RESUMED
    if has_service != b"\x01":
        return Resumed.NO_SERVICE
    return Resumed.NO_SUCH_CODE if is_named else Resumed.CODE_DELETED


def _judge(status: Status, code: Resumed) -> Resumed:
    if status in UNSTARTED:
        return Resumed.NOT_STARTED
    if status not in (Status.PAUSED, Status.BACKING_OFF):
        return Resumed.AT_WORK
    return code
