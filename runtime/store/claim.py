"""An engine takes work: from the queue, from its keys' inboxes, and with all that an attempt must know."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct, field

from runtime.core.invocation import Invocation, Mode, Status
from runtime.store import mail, pack
from runtime.store.link import Link, Pipeline, Reader, Statement, rows

INBOX_WINDOW = 200

# Oldest first. SKIP LOCKED: engines never wait for one another. Runs behind fence() in the same transaction.
# A row of the queue is an invocation or a key. `floor` passes over the dead entries at the head (five times the
# claims while an old snapshot is held); positions may commit out of order, so now and then it is 0.
# IS NOT DISTINCT FROM: for IS NULL the planner looks through all keys whose holders sleep.
CLAIM = Statement(
    """
WITH loaded AS (
    SELECT * FROM unnest($3::text[], $4::text[]) AS loaded (service, deployment)
), due AS (
    SELECT queue, position FROM ready
    WHERE queue = ANY ($2::text[]) AND position >= $5::bigint
        AND CASE WHEN deployment IS NULL THEN service IN (SELECT service FROM loaded)
                 ELSE deployment = ANY ($6::text[]) END
    ORDER BY position LIMIT $7::int FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM ready USING due WHERE ready.queue = due.queue AND ready.position = due.position
    RETURNING ready.position, ready.invocation, ready.service, ready.key
), owned AS (
    UPDATE invocation SET owner = $1::uuid, status = 'running', modified_at = now(),
        deployment = coalesce(invocation.deployment,
                              (SELECT deployment FROM loaded WHERE loaded.service = invocation.service))
    FROM taken WHERE invocation.id = taken.invocation AND invocation.status = 'ready'
    RETURNING invocation.id
), noted AS (
    INSERT INTO claimed (engine, invocation) SELECT $1::uuid, id FROM owned
), leased AS (
    UPDATE object_key SET owner = $1::uuid, leased_at = now() FROM taken
    WHERE taken.invocation IS NULL AND object_key.service = taken.service AND object_key.key = taken.key
        AND object_key.owner IS NOT DISTINCT FROM NULL::uuid
    RETURNING object_key.service, object_key.key
)
SELECT id, NULL::text, NULL::text, NULL::bigint FROM owned
UNION ALL SELECT NULL, service, key, NULL FROM leased
UNION ALL SELECT NULL, NULL, NULL, max(position) FROM taken
""",
    pack.UUID, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.INT8, pack.TEXTS, pack.INT4,
)  # fmt: skip

IS_WAITING = Statement("SELECT FROM ready WHERE queue = ANY ($1::text[]) LIMIT 1", pack.TEXTS)

# All keys whose rows this transaction will change, in one order for everybody.
HOLD_KEYS = Statement(
    """
SELECT FROM object_key JOIN unnest($1::text[], $2::text[]) AS held (service, key) USING (service, key)
ORDER BY object_key.service, object_key.key FOR NO KEY UPDATE OF object_key
""",
    pack.TEXTS,
    pack.TEXTS,
)

# A lease at rest is given back, unless somebody came meanwhile: first the lock, then the look. The key of a holder
# that sleeps stays, without an owner. Where the engine is drained, or the queue of who is next, the key goes back into
# the queue with all its inbox, unless its holder has begun.
RELEASE = Statement(
    """
WITH held AS (
    SELECT object_key.service, object_key.key, head.queue, head.deployment,
           CASE WHEN head.status IS NULL THEN 'none'
                WHEN head.status IN ('suspended', 'backing-off', 'paused') THEN 'asleep'
                WHEN head.status IN ('pending', 'ready') AND (
                    head.is_drained OR EXISTS (SELECT FROM engine WHERE id = $3::uuid AND drained_at IS NOT NULL)
                ) THEN 'held back' END AS head
    FROM unnest($1::text[], $2::text[]) AS rested (service, key),
    LATERAL (
        SELECT * FROM object_key WHERE object_key.service = rested.service AND object_key.key = rested.key OFFSET 0
    ) AS object_key
    LEFT JOIN LATERAL (
        SELECT invocation.status, invocation.queue, invocation.deployment,
               EXISTS (SELECT FROM drained_queue WHERE drained_queue.queue = invocation.queue) AS is_drained
        FROM inbox JOIN invocation ON invocation.id = inbox.invocation
        WHERE inbox.service = object_key.service AND inbox.key = object_key.key ORDER BY inbox.position LIMIT 1
    ) AS head ON true
    WHERE object_key.owner = $3::uuid
), freed AS (
    DELETE FROM object_key USING held
    WHERE object_key.service = held.service AND object_key.key = held.key AND held.head = 'none'
), parked AS (
    UPDATE object_key SET owner = NULL FROM held
    WHERE object_key.service = held.service AND object_key.key = held.key AND held.head IN ('asleep', 'held back')
), queued AS (
    INSERT INTO ready (queue, service, key, deployment)
    SELECT queue, service, key, deployment FROM held WHERE head = 'held back'
)
SELECT service, key FROM held WHERE head IS NOT NULL
""",
    pack.TEXTS,
    pack.TEXTS,
    pack.UUID,
)

COLUMNS = """invocation.id, invocation.service, invocation.handler, invocation.key, invocation.mode, invocation.queue,
    invocation.input, invocation.caller, invocation.caller_completion, invocation.idempotency_key,
    invocation.deployment, invocation.retries, invocation.stuck,
    (extract(epoch FROM clock_timestamp() - invocation.stuck_since) * 1000)::bigint, invocation.crashes,
    invocation.status, invocation.awaited"""

LOAD = Statement(
    f"SELECT {COLUMNS} FROM invocation WHERE id = ANY ($1::uuid[]) AND owner = $2::uuid",
    pack.UUIDS,
    pack.UUID,
)
LOAD_JOURNALS = Statement(
    "SELECT invocation, count, frames FROM journal WHERE invocation = ANY ($1::uuid[]) ORDER BY invocation, first",
    pack.UUIDS,
)
LOAD_STATE = Statement(
    "SELECT wanted.service, wanted.key, state.name, state.value"
    " FROM unnest($1::text[], $2::text[]) AS wanted (service, key), LATERAL ("
    "SELECT name, value FROM state WHERE state.service = wanted.service AND state.key = wanted.key OFFSET 0) AS state",
    pack.TEXTS,
    pack.TEXTS,
)
# All that is to be known of an inbox, in one snapshot: whether it is ours, for it is read by its key's owner only, and
# what stands in it above the watermark. Positions are drawn under the key's lock, so none comes in behind that.
# LATERAL with OFFSET 0, here and elsewhere, keeps the planner from joining with all leases of the engine, or with a
# scan of a whole table, which it takes for the cheaper way as long as that is empty. Measured, 30 inboxes with one
# letter each: of an engine with 30 leases 0.9 -> 0.6 ms, with 1,000 5.1 -> 0.6 ms, with 10,000 up to 65 -> 0.7 ms.
LOAD_INBOXES = Statement(
    f"""
SELECT wanted.nth, letter.position, letter.has_mail, {COLUMNS}
FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS wanted (service, key, watermark, nth),
LATERAL (
    SELECT owner FROM object_key WHERE object_key.service = wanted.service AND object_key.key = wanted.key OFFSET 0
) AS lease
LEFT JOIN LATERAL (
    SELECT position, invocation AS id, EXISTS (SELECT FROM mail WHERE mail.target = inbox.invocation) AS has_mail
    FROM inbox
    WHERE inbox.service = wanted.service AND inbox.key = wanted.key AND inbox.position > wanted.watermark
    ORDER BY position LIMIT {INBOX_WINDOW}
) AS letter ON true
LEFT JOIN LATERAL (SELECT * FROM invocation WHERE invocation.id = letter.id OFFSET 0) AS invocation ON true
WHERE lease.owner = $4::uuid
ORDER BY wanted.nth, letter.position
""",
    pack.TEXTS,
    pack.TEXTS,
    pack.INT8S,
    pack.UUID,
)
OWNED = Statement(
    "SELECT invocation, NULL, NULL FROM claimed WHERE engine = $1::uuid"
    " UNION ALL SELECT NULL, service, key FROM object_key WHERE owner = $1::uuid",
    pack.UUID,
)

Key = tuple[str, str]


class Claim(Struct):
    """What an engine asks of the queue: at most `room` rows, for the code it has loaded."""

    room: int
    floor: int
    queues: list[str]
    services: dict[str, str]
    """Service -> the deployment of it that is loaded here and is its newest."""
    deployments: list[str]


class Claimed(Struct):
    invocations: list[bytes] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    last_position: int = 0


class Inbox(Struct):
    """What a lease's owner reads: the letters above its watermark, in order."""

    letters: list[Loaded] = field(default_factory=list)
    state: dict[str, bytes] = field(default_factory=dict)
    """Only when it was asked for."""


# What was driven on a hint's word alone. The hint may have come late: it was found without it, and has been parked,
# given to another engine, or has ended since.
UNTOUCHED = Statement(
    """
SELECT expect('untouched', (SELECT count(*) FROM invocation
    WHERE id = ANY ($1::uuid[]) AND owner = $2::uuid AND modified_at = created_at), $3::bigint)
""",
    pack.UUIDS,
    pack.UUID,
    pack.INT8,
)


class Loaded(Struct):
    """All that a new attempt must know."""

    invocation: Invocation
    status: Status
    frames: bytes = b""
    entries: int = 0
    mail: list[tuple[int, bytes]] = field(default_factory=list)
    position: int | None = None
    is_hearsay: bool = False
    """Somebody said so; the database was not asked."""


def check_untouched(pipeline: Pipeline, ids: Sequence[bytes], engine: bytes | None) -> None:
    if ids:
        pipeline.call(UNTOUCHED, pack.uuids(ids), engine, pack.int8(len(ids)))


def claim(pipeline: Pipeline, engine: bytes, wanted: Claim, claimed: Claimed) -> None:
    def read(result: Any) -> None:
        for id, service, key, position in rows(result):
            if id is not None:
                claimed.invocations.append(id)
            elif service is not None and key is not None:
                claimed.keys.append((service.decode(), key.decode()))
            elif position is not None:
                claimed.last_position = pack.integer(position)

    pipeline.call(
        CLAIM,
        engine,
        pack.texts(wanted.queues),
        pack.texts(list(wanted.services)),
        pack.texts(list(wanted.services.values())),
        pack.int8(wanted.floor),
        pack.texts(wanted.deployments),
        pack.int4(wanted.room),
        read=read,
    )


async def is_waiting(link: Link, queues: Sequence[str]) -> bool:
    """Whether there is anything in these queues: a look costs no commit, as a claim would."""
    found: list[int] = []
    pipeline = Pipeline()
    pipeline.call(IS_WAITING, pack.texts(queues), read=lambda result: found.append(result.ntuples))
    await link.run(pipeline)
    return bool(found[0])


def hold_keys(pipeline: Pipeline, keys: Collection[Key]) -> None:
    pipeline.call(HOLD_KEYS, pack.texts([service for service, _ in keys]), pack.texts([key for _, key in keys]))


def release(pipeline: Pipeline, engine: bytes, keys: Sequence[Key], released: set[Key]) -> None:
    """Give back what is at rest among these keys, which are held already; reads those that were."""
    if keys:
        pipeline.call(
            RELEASE,
            pack.texts([service for service, _ in keys]),
            pack.texts([key for _, key in keys]),
            engine,
            read=lambda result: released.update((s.decode(), k.decode()) for s, k in rows(result) if s and k),
        )


async def load(link: Link, engine: bytes, ids: Sequence[bytes]) -> list[Loaded]:
    """The invocations among `ids` that this engine owns, with journals and mail."""
    found: dict[bytes, Loaded] = {}
    pipeline = Pipeline()
    packed = pack.uuids(ids)
    pipeline.call(
        LOAD, packed, engine, read=lambda result: found.update((one.invocation.id, one) for one in _loaded(result))
    )
    _load_past(pipeline, packed, found)
    await link.run(pipeline)
    return list(found.values())


async def load_inboxes(link: Link, engine: bytes, watermarks: dict[Key, int], fresh: Sequence[Key]) -> dict[Key, Inbox]:
    """The inboxes of those keys that this engine leases, above the watermarks; with state for those `fresh` here."""
    inboxes: dict[Key, Inbox] = {}
    grown_up: dict[bytes, Loaded] = {}
    """Under way when the lease ended, or born with a journal, or told something before it began."""
    wanted = list(watermarks)

    def read_inboxes(result: Any) -> None:
        for nth, position, has_mail, *row in rows(result):
            inbox = inboxes.setdefault(wanted[pack.integer(nth) - 1], Inbox())
            if position is None:  # it is ours, and empty
                continue
            letter = from_row(row, pack.integer(position))
            inbox.letters.append(letter)
            if has_mail == b"\x01" or letter.status is not Status.PENDING or letter.invocation.deployment is not None:
                grown_up[letter.invocation.id] = letter

    def read_states(result: Any) -> None:
        for service, key, name, value in rows(result):
            inbox = inboxes.get((service.decode(), key.decode()))
            if inbox is not None:
                inbox.state[name.decode()] = value

    pipeline = Pipeline()
    pipeline.call(
        LOAD_INBOXES,
        pack.texts([service for service, _ in wanted]),
        pack.texts([key for _, key in wanted]),
        pack.int8s(list(watermarks.values())),
        engine,
        read=read_inboxes,
    )
    load_state(pipeline, fresh, read_states)
    await link.run(pipeline)
    if grown_up:
        pipeline = Pipeline()
        _load_past(pipeline, pack.uuids(list(grown_up)), grown_up)
        await link.run(pipeline)
    return inboxes


def load_state(pipeline: Pipeline, keys: Sequence[Key], read: Reader) -> None:
    if keys:
        pipeline.call(
            LOAD_STATE, pack.texts([service for service, _ in keys]), pack.texts([key for _, key in keys]), read=read
        )


async def owned(link: Link, engine: bytes) -> Claimed:
    """All that the database says is this engine's: what a lost hint has not told it."""
    found = Claimed()

    def read(result: Any) -> None:
        for id, service, key in rows(result):
            if id is not None:
                found.invocations.append(id)
            else:
                found.keys.append((service.decode(), key.decode()))

    pipeline = Pipeline()
    pipeline.call(OWNED, engine, read=read)
    await link.run(pipeline)
    return found


def _load_past(pipeline: Pipeline, ids: bytes, found: dict[bytes, Loaded]) -> None:
    """Journals and mail of those that are found by then."""

    def read_journal(result: Any) -> None:
        for id, count, frames in rows(result):
            if id in found:
                found[id].frames += frames
                found[id].entries += pack.integer(count)

    def read_mail(result: Any) -> None:
        for target, slot, frame in rows(result):
            if target in found:
                found[target].mail.append((pack.integer(slot), frame))

    pipeline.call(LOAD_JOURNALS, ids, read=read_journal)
    pipeline.call(mail.WAITING, ids, read=read_mail)


def _loaded(result: Any) -> list[Loaded]:
    return [from_row(row, None) for row in rows(result)]


def from_row(row: Any, position: int | None) -> Loaded:
    (id, service, handler, key, mode, queue, input, caller, caller_completion, idempotency_key, deployment,
     retries, stuck, stuck_ms, crashes, status, awaited) = row  # fmt: skip
    invocation = Invocation(
        id=id,
        service=service.decode(),
        handler=handler.decode(),
        key=None if key is None else key.decode(),
        mode=Mode(mode.decode()),
        queue=queue.decode(),
        input=input,
        caller=caller,
        caller_completion=0 if caller_completion is None else pack.integer(caller_completion),
        idempotency_key=None if idempotency_key is None else idempotency_key.decode(),
        deployment=None if deployment is None else deployment.decode(),
        retries=pack.integer(retries),
        stuck=pack.integer(stuck),
        stuck_ms=0 if stuck_ms is None else max(0, pack.integer(stuck_ms)),
        crashes=pack.integer(crashes),
        awaited=awaited or b"",
    )
    return Loaded(invocation, Status(status.decode()), position=position)
