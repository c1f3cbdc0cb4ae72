"""Engines as rows: their birth, their pulse, their death, and who takes over.

The rescuer takes the engine's row FOR UPDATE, which waits for any flush that has passed the fence and turns away
every later one. A frozen client's open transaction keeps its locks, so its backends are ended first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from runtime.store import pack
from runtime.store.link import Link, Pipeline, Statement, rows

BATCH = 500
SUSPICIOUS = 3
"""An invocation that was being driven in this many engines as they died, and got on in none, may be what kills them."""
CRASH_LIMIT = 5
"""After so many it is paused."""

_WHY_PAUSED = f"""jsonb_build_object('code', 500, 'message',
    '{CRASH_LIMIT} engines died while driving it, and it got on in none of them: it may be what kills them (see their '
    'logs). Resume it when that is mended, or kill it.')"""

REGISTER = Statement(
    """
WITH born AS (
    INSERT INTO engine (id, host, pid, address, queues, deployments, lock_key, backends, drained_at)
    VALUES ($1::uuid, $2::text, $3::int, $4::text, $5::text[], $6::text[], $7::bigint, $8::int[],
            CASE WHEN $9::bool THEN now() END)
)
INSERT INTO heartbeat (engine) VALUES ($1::uuid)
""",
    pack.UUID, pack.TEXT, pack.INT4, pack.TEXT, pack.TEXTS, pack.TEXTS, pack.INT8, pack.INT4S, pack.BOOL,
)  # fmt: skip
TELL_CODE = Statement("UPDATE engine SET deployments = $2::text[] WHERE id = $1::uuid", pack.UUID, pack.TEXTS)
FENCE = Statement("SELECT fence($1::uuid)", pack.UUID)
SUSPECT = Statement("UPDATE engine SET suspect = $2::uuid WHERE id = $1::uuid", pack.UUID, pack.UUID)
BACKENDS = Statement("UPDATE engine SET backends = $2::int[] WHERE id = $1::uuid", pack.UUID, pack.INT4S)

# Taking a free lock for a moment is the look; whoever lives holds it in its pulse thread's session.
LOOK = Statement(
    """
SELECT engine.id, heartbeat.beat, pg_try_advisory_xact_lock(engine.lock_key),
       now() - pg_postmaster_start_time() < interval '2 seconds'
FROM engine LEFT JOIN heartbeat ON heartbeat.engine = engine.id
WHERE engine.alive AND engine.id <> $1::uuid
""",
    pack.UUID,
)

END_BACKENDS = Statement(
    """
SELECT count(pg_terminate_backend(pg_stat_activity.pid))
FROM engine JOIN pg_stat_activity ON pg_stat_activity.pid = ANY (engine.backends)
WHERE engine.id = $1::uuid AND pg_stat_activity.application_name = 'perdure engine ' || $1::text
    AND pg_stat_activity.pid <> pg_backend_pid()
""",
    pack.UUID,
)
LOCK_ENGINE = Statement("SELECT FROM engine WHERE id = $1::uuid FOR UPDATE", pack.UUID)
MARK_DEAD = Statement(
    """
WITH dead AS (UPDATE engine SET alive = false, ended_at = now() WHERE id = $1::uuid AND alive)
DELETE FROM heartbeat WHERE engine = $1::uuid
""",
    pack.UUID,
)

# Whom its death counts against: the culprit, if it is known; else all that it drove, but of the suspects only the one
# that it tried.
_BLAMED = f"""
SELECT taken.invocation, CASE
        WHEN engine.culprit IS NOT NULL THEN CASE WHEN engine.culprit = taken.invocation THEN $2::int ELSE 0 END
        WHEN engine.suspect = taken.invocation OR engine.suspect IS NULL OR driven.crashes < {SUSPICIOUS} THEN $2::int
        ELSE 0 END AS crashes
FROM taken JOIN engine ON engine.id = $1::uuid,
LATERAL (SELECT crashes FROM invocation WHERE invocation.id = taken.invocation OFFSET 0) AS driven
"""

# What it drove, and the heads of its keys' inboxes: behind the locks of those, and all at once.
LOCK_INVOCATIONS = Statement(
    f"""
SELECT FROM invocation WHERE id = ANY (ARRAY(
    (SELECT invocation FROM claimed WHERE engine = $1::uuid ORDER BY invocation LIMIT {BATCH})
    UNION ALL
    SELECT head.invocation
    FROM (SELECT * FROM object_key WHERE owner = $1::uuid ORDER BY service, key LIMIT {BATCH}) AS object_key,
    LATERAL (
        SELECT invocation FROM inbox WHERE inbox.service = object_key.service AND inbox.key = object_key.key
        ORDER BY position LIMIT 1
    ) AS head
)) ORDER BY id FOR NO KEY UPDATE
""",
    pack.UUID,
)
TAKE_CLAIMED = Statement(
    f"""
WITH taken AS (
    DELETE FROM claimed WHERE engine = $1::uuid AND invocation IN (
        SELECT invocation FROM claimed WHERE engine = $1::uuid ORDER BY invocation LIMIT {BATCH}
    ) RETURNING invocation
), blamed AS ({_BLAMED}), freed AS (
    UPDATE invocation SET owner = NULL, crashes = invocation.crashes + blamed.crashes, modified_at = now(),
        status = CASE WHEN invocation.crashes + blamed.crashes >= {CRASH_LIMIT} THEN 'paused' ELSE 'ready' END,
        failure = CASE WHEN invocation.crashes + blamed.crashes >= {CRASH_LIMIT} THEN {_WHY_PAUSED} ELSE failure END
    FROM blamed WHERE invocation.id = blamed.invocation AND invocation.owner = $1::uuid
    RETURNING id, queue, service, deployment, status
), queued AS (
    INSERT INTO ready (queue, invocation, service, deployment)
    SELECT queue, id, service, deployment FROM freed WHERE status = 'ready' ORDER BY id
)
SELECT count(*) FROM taken
""",
    pack.UUID,
    pack.INT4,
)

# A key goes on with its inbox's head: one that was running goes back to ready first. One that sleeps was not being
# driven: it sleeps on, and what wakes it puts the key in the queue. Lock, then look.
LOCK_KEYS = Statement(
    f"""
SELECT FROM object_key WHERE (service, key) IN (
    SELECT service, key FROM object_key WHERE owner = $1::uuid ORDER BY service, key LIMIT {BATCH}
) ORDER BY service, key FOR UPDATE
""",
    pack.UUID,
)
TAKE_KEYS = Statement(
    f"""
WITH taken AS (
    SELECT object_key.service, object_key.key, object_key.queue, head.invocation
    FROM (SELECT * FROM object_key WHERE owner = $1::uuid ORDER BY service, key LIMIT {BATCH}) AS object_key
    LEFT JOIN LATERAL (
        SELECT invocation FROM inbox WHERE inbox.service = object_key.service AND inbox.key = object_key.key
        ORDER BY position LIMIT 1
    ) AS head ON true
), idle AS (
    DELETE FROM object_key USING taken
    WHERE taken.invocation IS NULL AND object_key.service = taken.service AND object_key.key = taken.key
), freed AS (
    UPDATE object_key SET owner = NULL FROM taken
    WHERE taken.invocation IS NOT NULL AND object_key.service = taken.service AND object_key.key = taken.key
), blamed AS ({_BLAMED}), heads AS (
    UPDATE invocation SET crashes = invocation.crashes + blamed.crashes, modified_at = now(),
        status = CASE WHEN invocation.crashes + blamed.crashes >= {CRASH_LIMIT} THEN 'paused'
                      WHEN status = 'running' THEN 'ready' ELSE status END,
        failure = CASE WHEN invocation.crashes + blamed.crashes >= {CRASH_LIMIT} THEN {_WHY_PAUSED} ELSE failure END
    FROM blamed WHERE invocation.id = blamed.invocation AND invocation.status IN ('pending', 'ready', 'running')
    RETURNING invocation.id, invocation.status, invocation.deployment
), queued AS (
    INSERT INTO ready (queue, service, key, deployment)
    SELECT taken.queue, taken.service, taken.key, heads.deployment
    FROM taken JOIN heads ON heads.id = taken.invocation WHERE heads.status <> 'paused'
)
SELECT count(*) FROM taken
""",
    pack.UUID,
    pack.INT4,
)
UNFINISHED = Statement(
    """
SELECT id FROM engine WHERE NOT alive AND (
    EXISTS (SELECT FROM claimed WHERE engine = engine.id) OR EXISTS (SELECT FROM object_key WHERE owner = engine.id)
)
"""
)


class Look(Struct):
    """What one look at another engine shows."""

    engine: bytes
    beat: int
    is_unlocked: bool


async def register(
    link: Link,
    *,
    id: bytes,
    host: str,
    pid: int,
    address: str,
    queues: Sequence[str],
    deployments: Sequence[str],
    lock_key: int,
    backends: Sequence[int],
    is_drained: bool = False,
) -> None:
    """Make the engine known. Its pulse holds the advisory lock already, or the next look would bury it."""
    pipeline = Pipeline()
    pipeline.call(
        REGISTER,
        id,
        host.encode(),
        pack.int4(pid),
        address.encode(),
        pack.texts(queues),
        pack.texts(deployments),
        pack.int8(lock_key),
        pack.int4s(backends),
        bytes([is_drained]),
    )
    await link.run(pipeline)


async def tell_code(link: Link, engine: bytes, deployments: Sequence[str]) -> None:
    """What a living engine drives has changed: this is all of it."""
    pipeline = Pipeline()
    pipeline.call(FENCE, engine)
    pipeline.call(TELL_CODE, engine, pack.texts(deployments))
    await link.run(pipeline)


async def suspect(link: Link, engine: bytes, invocation: bytes | None) -> None:
    """Note what a living engine tries; of all suspects its death counts against that only. None: nothing."""
    pipeline = Pipeline()
    pipeline.call(FENCE, engine)
    pipeline.call(SUSPECT, engine, invocation)
    await link.run(pipeline)


async def look(link: Link, self_id: bytes) -> list[Look]:
    """Every other engine that counts as alive; nothing within 2 s of a start of the server, when all lock anew."""
    found: list[Look] = []
    pipeline = Pipeline()
    pipeline.call(
        LOOK,
        self_id,
        read=lambda result: found.extend(
            Look(id, pack.integer(beat or b"\0"), free == b"\x01")
            for id, beat, free, is_starting in rows(result)
            if is_starting == b"\x00"
        ),
    )
    await link.run(pipeline)
    return found


async def bury(link: Link, engine: bytes, *, crashed: bool = True) -> int:
    """Declare an engine dead and put all its work back; returns how many invocations and keys that were.

    Repeatable at any point. `crashed=False` for one that stops by itself: nothing counts against its invocations.
    """
    ending = Pipeline()
    ending.call(END_BACKENDS, engine)
    await link.run(ending)
    marking = Pipeline()
    marking.call(LOCK_ENGINE, engine)
    marking.call(MARK_DEAD, engine)
    await link.run(marking)
    total = 0
    while taken := await _take_batch(link, engine, int(crashed)):
        total += taken
    return total


async def unfinished(link: Link) -> list[bytes]:
    """Dead engines whose work is not put back yet: their rescuer died too."""
    found: list[bytes] = []
    pipeline = Pipeline()
    pipeline.call(UNFINISHED, read=lambda result: found.extend(row[0] for row in rows(result)))
    await link.run(pipeline)
    return found


async def _take_batch(link: Link, engine: bytes, crashes: int) -> int:
    counts: list[int] = []
    pipeline = Pipeline()
    pipeline.call(LOCK_ENGINE, engine)  # one rescuer at a time
    pipeline.call(LOCK_KEYS, engine)
    pipeline.call(LOCK_INVOCATIONS, engine)
    for statement in (TAKE_KEYS, TAKE_CLAIMED):
        pipeline.call(
            statement,
            engine,
            pack.int4(crashes),
            read=lambda result: counts.extend(pack.integer(row[0]) for row in rows(result)),
        )
    await link.run(pipeline)
    return sum(counts)


class Seat(Struct):
    """A living engine as those see it who have work to give: what is drained takes none."""

    id: bytes
    address: str
    queues: frozenset[str]
    deployments: frozenset[str]
    is_attached: bool
    room: int

    def serves(self, deployment: str, queue: str) -> bool:
        """Whether it has the code, and looks at the queue."""
        return deployment in self.deployments and queue in self.queues


ROSTER = Statement(
    """
SELECT engine.id, address,
       array_to_string(ARRAY(SELECT unnest(queues) EXCEPT SELECT queue FROM drained_queue), ','),
       array_to_string(deployments, ','), heartbeat.attached AND drained_at IS NULL, heartbeat.room
FROM engine JOIN heartbeat ON heartbeat.engine = engine.id WHERE engine.alive
"""
)


async def roster(link: Link) -> list[Seat]:
    """The engines that live, as their last beats say."""
    found: list[Seat] = []
    pipeline = Pipeline()
    pipeline.call(ROSTER, read=lambda result: found.extend(map(_seat, rows(result))))
    await link.run(pipeline)
    return found


def _seat(row: Any) -> Seat:
    id, address, queues, deployments, attached, room = row
    return Seat(
        id,
        address.decode(),
        frozenset(queues.decode().split(",")),
        frozenset(deployments.decode().split(",")),
        attached == b"\x01",
        pack.integer(room),
    )
