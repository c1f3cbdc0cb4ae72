"""Sends that are not due yet: moved to another time, or taken back.

Whoever takes the timer has the send. It is taken here without waiting, behind the lock of the invocation: a timer that
is not there any more, or is locked, is being fired, by an engine that waits for that lock, or will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from perdure.protocol.messages import Failure, Output
from runtime.core.audit import Act
from runtime.core.changes import Changes, Completed
from runtime.core.invocation import Invocation, Mode, Outcome
from runtime.core.lifecycle import complete
from runtime.core.registry import DAY
from runtime.core.scheduled import Key, Move, Place, passes
from runtime.errors import DatabaseError
from runtime.store import audit, claim, finish, pack
from runtime.store.link import Link, Pipeline, Statement, rows, whole
from runtime.store.verbs import TRIES

BATCH = 500
"""Sends of one transaction."""
MOST_PASSED = 50_000
"""Timers that are looked through for sends of the same keys."""


class Word(StrEnum):
    """What came of it, for one send."""

    DONE = "done"
    BEGUN = "begun"  # it is or was due: nothing can be done about its time any more
    UNKNOWN = "unknown"


class Rescheduled(Struct):
    """What came of a verb on scheduled sends."""

    words: dict[bytes, Word] = field(default_factory=dict)
    due: dict[bytes, int] = field(default_factory=dict)
    """When those that were moved begin now, in milliseconds since the epoch."""
    passes: dict[Key, int] | None = field(default_factory=dict)
    """For each key how often a moved send has passed another; None: there are too many to tell."""

    def count(self, word: Word) -> int:
        return sum(one is word for one in self.words.values())

    @property
    def in_words(self) -> str | None:
        """What it did to the order of a key's sends; None: nothing."""
        if self.passes is None:
            return f"There are too many timers between ({MOST_PASSED} and more) to tell the order of a key's sends."
        if not self.passes:
            return None
        keys = ", ".join(f"{service}/{key}" for service, key in sorted(self.passes)[:5])
        keys += f" and {len(self.passes) - 5} keys more" if len(self.passes) > 5 else ""
        return f"The order of the sends to {keys} has changed ({sum(self.passes.values())} passed)."


LOCK_ONCE = Statement(
    "SELECT FROM idempotency WHERE invocation = ANY ($1::uuid[]) ORDER BY invocation FOR NO KEY UPDATE", pack.UUIDS
)
LOCK = Statement(
    f"""
SELECT {claim.COLUMNS}, due_at FROM invocation WHERE id = ANY ($1::uuid[]) AND status = 'scheduled'
ORDER BY id FOR NO KEY UPDATE
""",
    pack.UUIDS,
)
TAKE_TIMERS = Statement(
    """
DELETE FROM timer WHERE (due, invocation, slot) IN (
    SELECT timer.due, timer.invocation, timer.slot
    FROM unnest($1::uuid[]) AS wanted (id)
    JOIN invocation ON invocation.id = wanted.id AND invocation.status = 'scheduled'
    JOIN timer ON timer.due = invocation.due_at AND timer.invocation = invocation.id AND timer.slot = -1
    FOR UPDATE OF timer SKIP LOCKED
) RETURNING invocation, position
""",
    pack.UUIDS,
)
EXISTS = Statement(
    """
SELECT wanted.id FROM unnest($1::uuid[]) AS wanted (id)
WHERE EXISTS (SELECT FROM invocation WHERE invocation.id = wanted.id)
    OR EXISTS (SELECT FROM done WHERE done.id = wanted.id)
""",
    pack.UUIDS,
)
# What was due in one order is due in the same order afterwards, be it at one moment: a microsecond apart.
MOVE = Statement(
    """
WITH moved AS (
    UPDATE invocation SET modified_at = now(),
        due_at = coalesce(wanted.due, now()) + ($3::int + wanted.nth - 1) * interval '1 microsecond'
    FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS wanted (id, due, nth)
    WHERE invocation.id = wanted.id
    RETURNING invocation.id, invocation.due_at, invocation.service, invocation.handler, invocation.key
)
INSERT INTO timer (due, invocation, slot, position, service, handler, key)
SELECT due_at, id, -1, nextval('timer_position'), service, handler, key FROM moved RETURNING invocation, due, position
""",
    pack.UUIDS,
    pack.TIMESTAMPTZS,
    pack.INT4,
)
# A range of the timers' only index, whoever's they are; of those the sends of these keys.
COUNT_BETWEEN = Statement(
    f"""
SELECT count(*) FROM (
    SELECT FROM timer WHERE due BETWEEN $1::timestamptz AND $2::timestamptz LIMIT {MOST_PASSED + 1}
) AS ranged
""",
    pack.TIMESTAMPTZ,
    pack.TIMESTAMPTZ,
)
BETWEEN = Statement(
    f"""
SELECT invocation.service, invocation.key, ranged.due, ranged.position, ranged.invocation
FROM (
    SELECT due, position, invocation FROM timer WHERE due BETWEEN $1::timestamptz AND $2::timestamptz AND slot = -1
    ORDER BY due LIMIT {MOST_PASSED}
) AS ranged,
LATERAL (SELECT * FROM invocation WHERE invocation.id = ranged.invocation OFFSET 0) AS invocation
JOIN unnest($3::text[], $4::text[]) AS wanted (service, key) USING (service, key)
WHERE invocation.mode = 'exclusive'
""",
    pack.TIMESTAMPTZ,
    pack.TIMESTAMPTZ,
    pack.TEXTS,
    pack.TEXTS,
)


ActOn = Callable[[Sequence[bytes]], Act]
"""Who asks it of these sends: for the audit log, a line for each transaction."""


async def move(link: Link, ids: Sequence[bytes], due: int, act_on: ActOn) -> Rescheduled:
    """Let sends be due at `due` (milliseconds since the epoch; 0: now); those that are given in order stay so.

    Raises DatabaseError, Disconnected.
    """
    came, moved = Rescheduled(), list[_Scheduled]()
    places: dict[bytes, Place] = {}

    def moving(pipeline: Pipeline, taken: Sequence[_Scheduled]) -> None:
        pipeline.call(
            MOVE,
            pack.uuids([one.invocation.id for one in taken]),
            pack.times([due] * len(taken)),
            pack.int4(len(moved)),
            read=lambda result: places.update((id, _place(due, position)) for id, due, position in rows(result)),
        )

    for some in _batches(ids):
        words, taken = await _tell(link, some, act_on(some), moving)
        came.words |= words
        moved += taken
    came.due = {one.invocation.id: pack.milliseconds(pack.int8(places[one.invocation.id][0])) for one in moved}
    moves = {
        one.invocation.id: Move(key, one.place, places[one.invocation.id])
        for one in moved
        if (key := _key(one.invocation)) is not None
    }
    came.passes = await _passes(link, moves)
    return came


async def cancel(link: Link, ids: Sequence[bytes], act_on: ActOn) -> Rescheduled:
    """Take sends back: they end without having begun. Raises DatabaseError, Disconnected."""
    came = Rescheduled()
    for some in _batches(ids):
        words, _ = await _tell(link, some, act_on(some), _end)
        came.words |= words
    return came


def _end(pipeline: Pipeline, taken: Sequence[_Scheduled]) -> None:
    ended: list[tuple[Changes, Completed]] = []
    for one in taken:
        changes = Changes(one.invocation, first=1)
        complete(one.invocation, changes, Outcome.CANCELLED, Output(Failure(409, "cancelled")), DAY, None)
        assert isinstance(changes.ending, Completed)
        ended.append((changes, changes.ending))
    finish.expire_idempotency(pipeline, ended)
    finish.finish(pipeline, ended, None)


def _batches(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


class _Scheduled(Struct):
    """A send whose timer was taken."""

    invocation: Invocation
    due: bytes
    position: bytes

    @property
    def place(self) -> Place:
        return _place(self.due, self.position)


Words = dict[bytes, Word]
Acting = Callable[[Pipeline, Sequence[_Scheduled]], None]


async def _tell(link: Link, ids: Sequence[bytes], act: Act, acting: Acting) -> tuple[Words, list[_Scheduled]]:
    """Do it to those whose timers can be taken; answers these too, in the order in which they were due."""
    for attempt in range(1, TRIES + 1):
        try:
            return await _try(link, ids, act, acting)
        except DatabaseError as error:
            if not (error.is_transient or error.is_lock_timeout) or attempt == TRIES:
                raise
    raise AssertionError("unreachable")


async def _try(link: Link, ids: Sequence[bytes], act: Act, acting: Acting) -> tuple[Words, list[_Scheduled]]:
    """One transaction."""
    packed = pack.uuids(ids)
    there: list[tuple[Invocation, bytes]] = []
    free: dict[bytes, bytes] = {}
    known: set[bytes] = set()

    def read_there(result: Any) -> None:
        there.extend((claim.from_row(columns, None).invocation, due) for *columns, due in rows(result))

    looking = Pipeline()
    looking.begin()
    looking.call(LOCK_ONCE, packed)
    looking.call(LOCK, packed, read=read_there)
    looking.call(TAKE_TIMERS, packed, read=lambda result: free.update(map(tuple, rows(result))))
    looking.call(EXISTS, packed, read=lambda result: known.update(row[0] for row in rows(result)))
    async with whole(link):
        await link.run(looking)
        taken = [_Scheduled(one, due, free[one.id]) for one, due in there if one.id in free]
        taken.sort(key=lambda one: one.place)
        words = {id: Word.DONE if id in free else Word.BEGUN if id in known else Word.UNKNOWN for id in ids}
        doing = Pipeline()
        if taken:
            acting(doing, taken)
        audit.note(doing, act, _in_words(words))
        doing.commit()
        await link.run(doing)
    return words, taken


def _in_words(words: Words) -> str:
    """For the audit log: what came of one, or how many it was done to."""
    if len(words) == 1:
        return next(iter(words.values()))
    return f"{sum(word is Word.DONE for word in words.values())} of {len(words)} done"


async def _passes(link: Link, moves_by_id: Mapping[bytes, Move]) -> dict[Key, int] | None:
    """What the order of the keys' sends has become; a read of its own, that holds no lock."""
    if not moves_by_id:
        return {}
    moves = list(moves_by_id.values())
    times = [place[0] for one in moves for place in (one.before, one.after)]
    keys = sorted({one.key for one in moves})
    others: dict[Key, list[Place]] = {}
    counted: list[int] = []

    def read(result: Any) -> None:
        for service, key, due, position, id in rows(result):
            if id not in moves_by_id:
                others.setdefault((service.decode(), key.decode()), []).append(_place(due, position))

    between = pack.int8(min(times)), pack.int8(max(times))
    services, names = pack.texts([service for service, _ in keys]), pack.texts([key for _, key in keys])
    pipeline = Pipeline()
    pipeline.call(
        COUNT_BETWEEN, *between, read=lambda result: counted.extend(pack.integer(row[0]) for row in rows(result))
    )
    pipeline.call(BETWEEN, *between, services, names, read=read)
    await link.run(pipeline)
    return passes(moves, others) if counted[0] <= MOST_PASSED else None


def _place(due: bytes, position: bytes) -> Place:
    return pack.integer(due), pack.integer(position)


def _key(invocation: Invocation) -> Key | None:
    """Of an object whose sends have an order."""
    if invocation.mode is not Mode.EXCLUSIVE or invocation.key is None:
        return None
    return invocation.service, invocation.key
