"""Timers: what is due is taken in order, a batch at a time, by whichever engine looks first.

The batch's transaction-level lock is the mutex, so there is no leader to lose; `due` is by the database's clock.

The timer of a sleep that its invocation did not wait for stays until it is due, and then finds nobody: to look for it
at each end would cost every invocation more than its narrow row costs the few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from runtime.core import slots
from runtime.core.changes import Changes, Mail
from runtime.core.invocation import Mode, Status
from runtime.store import mail, pack, submit
from runtime.store.link import Link, Pipeline, Row, Statement, rows, whole

BATCH = 500

ARM = Statement(
    "INSERT INTO timer (invocation, due, slot) SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int[])"
    " ON CONFLICT DO NOTHING",
    pack.UUIDS,
    pack.TIMESTAMPTZS,
    pack.INT4S,
)

TAKE_DUE = Statement("SELECT id, slot, mode, queue, service, key FROM take_due($1::int)", pack.INT4)
NEXT_DUE = Statement("SELECT min(due) FROM timer")
VOUCH = Statement("SELECT vouch($1::uuid[])", pack.UUIDS)

# Delayed sends begin: positions in the inboxes are drawn in the order in which they were due.
START_DUE = Statement(
    """
WITH started AS (
    UPDATE invocation SET status = due.status, owner = due.owner, due_at = NULL, modified_at = now()
    FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS due (id, status, owner, nth)
    WHERE invocation.id = due.id AND invocation.status = 'scheduled'
    RETURNING invocation.id, invocation.service, invocation.key, invocation.queue, due.status, due.owner, due.nth
), owned AS (
    INSERT INTO claimed (engine, invocation) SELECT owner, id FROM started WHERE owner IS NOT NULL
), queued AS (
    INSERT INTO ready (queue, invocation, service) SELECT queue, id, service FROM started WHERE status = 'ready'
), entered AS (
    INSERT INTO inbox (service, key, position, invocation)
    SELECT service, key, nextval('inbox_position'), id
    FROM (SELECT * FROM started WHERE status = 'pending' ORDER BY nth) AS in_order
)
SELECT id FROM started WHERE owner IS NOT NULL
""",
    pack.UUIDS,
    pack.TEXTS,
    pack.UUIDS,
)

RETRY_DUE = Statement(
    """
WITH woken AS (
    UPDATE invocation SET status = 'ready', due_at = NULL, modified_at = now()
    WHERE id = ANY ($1::uuid[]) AND status = 'backing-off' AND due_at <= clock_timestamp()
    RETURNING id, mode, queue, service, key, deployment
)
INSERT INTO ready (queue, invocation, service, key, deployment)
SELECT queue, CASE WHEN mode <> 'exclusive' THEN id END, service, CASE WHEN mode = 'exclusive' THEN key END, deployment
FROM woken
""",
    pack.UUIDS,
)


# A key or an invocation that somebody has locked for long would hold up all that is due together with it. Those that
# are locked now are found without waiting, in the lock order, and are due again in a second.
BUSY_KEYS = Statement(
    """
WITH wanted AS (
    SELECT * FROM unnest($1::text[], $2::text[]) AS wanted (service, key)
), free AS (
    SELECT object_key.service, object_key.key FROM object_key JOIN wanted USING (service, key)
    ORDER BY object_key.service, object_key.key FOR NO KEY UPDATE OF object_key SKIP LOCKED
)
SELECT service, key FROM object_key JOIN wanted USING (service, key) EXCEPT SELECT service, key FROM free
""",
    pack.TEXTS,
    pack.TEXTS,
)
BUSY_INVOCATIONS = Statement(
    """
WITH free AS (
    SELECT id FROM invocation WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
)
SELECT id FROM invocation WHERE id = ANY ($1::uuid[]) EXCEPT SELECT id FROM free
""",
    pack.UUIDS,
)
# What comes to these keys before that second is over is postponed too, or it would overtake what is locked.
TAKE_FOLLOWERS = Statement(
    """
WITH followers AS (
    SELECT timer.due, timer.position, timer.invocation
    FROM timer JOIN invocation ON invocation.id = timer.invocation AND invocation.mode = 'exclusive'
    JOIN unnest($1::text[], $2::text[]) AS held (service, key)
        ON held.service = invocation.service AND held.key = invocation.key
    WHERE timer.slot = -1 AND timer.due <= now() + interval '1 second'
    FOR UPDATE OF timer SKIP LOCKED
), taken AS (
    DELETE FROM timer USING followers
    WHERE timer.due = followers.due AND timer.invocation = followers.invocation AND timer.slot = -1
)
SELECT invocation FROM followers ORDER BY due, position
""",
    pack.TEXTS,
    pack.TEXTS,
)
POSTPONE = Statement(
    """
INSERT INTO timer (due, invocation, slot, position, service, handler, key)
SELECT now() + interval '1 second' + nth * interval '1 microsecond', postponed.invocation, slot,
       CASE WHEN slot = -1 THEN nextval('timer_position') END, send.service, send.handler, send.key
FROM unnest($1::uuid[], $2::int[]) WITH ORDINALITY AS postponed (invocation, slot, nth)
LEFT JOIN invocation AS send ON send.id = postponed.invocation AND slot = -1
""",
    pack.UUIDS,
    pack.INT4S,
)

Due = tuple[bytes, int, str, str, str, str | None]
"""Of a timer: invocation, slot; of its invocation: mode, queue, service, key."""


class Fired(Struct):
    """What a batch of due timers has set going."""

    taken: int = 0
    owned: list[bytes] = []
    """Invocations given to the engine that fired them."""
    keys: dict[tuple[str, str], bytes | None] = {}
    """Keys that got something new in their inbox, and the engine that leases each."""
    told: dict[bytes, bytes] = {}
    """Invocations that were looked at, and the engine that drives each."""
    mails: list[Mail] = []
    queued: bool = False
    postponed: int = 0
    """Timers that met a lock of somebody else's."""


def arm(pipeline: Pipeline, all_changes: Sequence[Changes]) -> None:
    timers = [(change.invocation.id, timer) for change in all_changes for timer in change.timers]
    if timers:
        pipeline.call(
            ARM,
            pack.uuids([id for id, _ in timers]),
            pack.times([timer.due for _, timer in timers]),
            pack.int4s([timer.slot for _, timer in timers]),
        )


async def next_due(link: Link) -> int | None:
    """When the earliest timer is due, in milliseconds since the epoch."""
    found: list[int] = []
    pipeline = Pipeline()
    pipeline.call(NEXT_DUE, read=lambda result: found.extend(pack.milliseconds(r[0]) for r in rows(result) if r[0]))
    await link.run(pipeline)
    return found[0] if found else None


async def fire_due(
    link: Link, engine: bytes, room: int, takes: Callable[[str, str], bool], *, around_locks: bool = False
) -> Fired:
    """Take the timers that are due, at most BATCH, and set going what they stand for.

    Of the services that this engine `takes` (by service and queue) up to `room` begin as its own; keys that nobody
    leases become its own too. `around_locks`: what somebody else has locked is postponed instead of waited for.
    Raises DatabaseError, with `is_vouch` when the engine is dead, with `is_lock_timeout` when a lock was waited for.
    """
    due: list[Due] = []
    taking = Pipeline()
    taking.begin()
    taking.call(TAKE_DUE, pack.int4(BATCH), read=lambda result: due.extend(map(_due, rows(result))))
    async with whole(link):
        await link.run(taking)
        fired = Fired(taken=len(due))
        if around_locks and due:
            due = await _postpone_busy(link, due, fired)
        await link.run(_setting_going(due, engine, room, takes, fired))
    return fired


async def _postpone_busy(link: Link, due: list[Due], fired: Fired) -> list[Due]:
    """Lock what is free; answers its timers."""
    keys: set[tuple[str, str]] = set()
    invocations: set[bytes] = set()
    entered = {
        (service, key or "") for _, slot, mode, _, service, key in due if slot == slots.START and mode == Mode.EXCLUSIVE
    }
    looking = Pipeline()
    looking.call(
        BUSY_KEYS,
        pack.texts([service for service, _ in entered]),
        pack.texts([key for _, key in entered]),
        read=lambda result: keys.update((service.decode(), key.decode()) for service, key in rows(result)),
    )
    looking.call(
        BUSY_INVOCATIONS,
        pack.uuids([timer[0] for timer in due]),
        read=lambda result: invocations.update(row[0] for row in rows(result)),
    )
    await link.run(looking)

    def enters(timer: Due, keys: set[tuple[str, str]]) -> bool:
        _, slot, mode, _, service, key = timer
        return slot == slots.START and mode == Mode.EXCLUSIVE and (service, key or "") in keys

    keys.update((timer[4], timer[5] or "") for timer in due if timer[0] in invocations and enters(timer, entered))
    busy = {timer for timer in due if timer[0] in invocations or enters(timer, keys)}
    if busy:
        postponed = [(timer[0], timer[1]) for timer in due if timer in busy]
        await _take_followers(link, keys, postponed)
        postponing = Pipeline()
        postponing.call(POSTPONE, pack.uuids([id for id, _ in postponed]), pack.int4s([slot for _, slot in postponed]))
        await link.run(postponing)
        fired.postponed = len(postponed)
    return [timer for timer in due if timer not in busy]


async def _take_followers(link: Link, keys: set[tuple[str, str]], postponed: list[tuple[bytes, int]]) -> None:
    """Add what would come to these keys before what is postponed."""
    if not keys:
        return
    taking = Pipeline()
    taking.call(
        TAKE_FOLLOWERS,
        pack.texts([service for service, _ in keys]),
        pack.texts([key for _, key in keys]),
        read=lambda result: postponed.extend((row[0], slots.START) for row in rows(result)),
    )
    await link.run(taking)


def _setting_going(
    due: list[Due],
    engine: bytes,
    room: int,
    takes: Callable[[str, str], bool],
    fired: Fired,
) -> Pipeline:
    pipeline = Pipeline()
    starts = [timer for timer in due if timer[1] == slots.START]
    retries = [timer[0] for timer in due if timer[1] == slots.RETRY]
    sleeps = [Mail(timer[0], timer[1]) for timer in due if timer[1] > 0]
    if starts:
        pipeline.call(VOUCH, pack.uuids([engine]))
    keys = {(service, key or ""): queue for _, _, mode, queue, service, key in starts if mode == Mode.EXCLUSIVE}
    if keys:
        pipeline.call(
            submit.ENTER,
            pack.texts([service for service, _ in keys]),
            pack.texts([key for _, key in keys]),
            pack.texts(list(keys.values())),
            pack.uuids([engine if takes(service, queue) else None for (service, _), queue in keys.items()]),
            read=lambda result: fired.keys.update(
                {(service.decode(), key.decode()): owner for service, key, owner in rows(result)}
            ),
        )
    fired.mails = sleeps
    ids = [timer[0] for timer in due]
    if ids:
        mail.lock(
            pipeline, ids, read=lambda result: fired.told.update({id: owner for id, _, owner in rows(result) if owner})
        )
    if starts:
        statuses, owners = [], []
        for _, _, mode, queue, service, _ in starts:
            own = mode != Mode.EXCLUSIVE and room > 0 and takes(service, queue)
            room -= own
            statuses.append(Status.PENDING if mode == Mode.EXCLUSIVE else Status.RUNNING if own else Status.READY)
            owners.append(engine if own else None)
        fired.queued = bool(retries) or Status.READY in statuses
        pipeline.call(
            START_DUE,
            pack.uuids([timer[0] for timer in starts]),
            pack.texts(statuses),
            pack.uuids(owners),
            read=lambda result: fired.owned.extend(row[0] for row in rows(result)),
        )
    mail.tell(pipeline, sleeps)
    if retries:
        fired.queued = True
        pipeline.call(RETRY_DUE, pack.uuids(retries))
    pipeline.commit()
    return pipeline


def _due(row: Row) -> Due:
    id, slot, mode, queue, service, key = row
    return id, pack.integer(slot), mode.decode(), queue.decode(), service.decode(), key and key.decode()
