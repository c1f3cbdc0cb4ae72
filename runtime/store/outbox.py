"""The outbox: what applications have sent in transactions of their own is taken in order, a batch at a time.

A batch is deleted and its invocations are created in one transaction, so each message becomes one invocation whatever
dies between two lines. That transaction's lock is the mutex, as for timers.

Positions are drawn in order, but come to light when their transactions commit. So the lowest that is visible goes
first: what one transaction sent keeps its order, and so does what was sent after another's commit was seen, for where
the later one is visible, the earlier one is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct, field
from psycopg.pq.abc import PGresult

from runtime.core.changes import Changes
from runtime.store import commit, pack
from runtime.store.claim import Key
from runtime.store.commit import Receipt
from runtime.store.link import Link, Pipeline, Row, Statement, rows, whole

BATCH = 500

IS_WAITING = Statement("SELECT FROM outbox WHERE position > $1::bigint LIMIT 1", pack.INT8)

# A locked key is waited for no longer than this: the others wait with it.
PATIENCE = Statement("SET LOCAL lock_timeout = '250ms'")
LAST = Statement(
    """
SELECT CASE WHEN is_called THEN last_value ELSE 0 END, pg_snapshot_xmin(pg_current_snapshot())::text::bigint
FROM outbox_position
"""
)
TAKE = Statement(
    """
SELECT position, id, service, handler, key, payload, idempotency_key, due_at
FROM take_outbox($1::bigint, $2::int, $3::text[], $4::text[], $5::boolean)
""",
    pack.INT8,
    pack.INT4,
    pack.TEXTS,
    pack.TEXTS,
    pack.BOOL,
)
STANDING = Statement(
    """
SELECT pg_current_xact_id_if_assigned()::text::bigint,
       NOT EXISTS (SELECT FROM outbox WHERE position > $1::bigint AND position <= $2::bigint)
""",
    pack.INT8,
    pack.INT8,
)


class Sent(Struct, frozen=True):
    """A message as an application has left it."""

    position: int
    id: bytes
    service: str
    handler: str
    key: str | None
    payload: bytes
    idempotency_key: str | None
    due: int
    """Milliseconds since the epoch; 0: now."""


class Selection(Struct):
    """What to take of the outbox."""

    settled: int = 0
    """All positions up to this one have been taken, or will never be seen."""
    expected: int = 0
    """A higher one, of which it is asked whether anything can still be seen up to it."""
    batch: int = BATCH
    keys: Sequence[Key] = ()
    inside: bool = False
    """Of these keys only; else of all but these."""


class Taken(Struct):
    """What a batch was, and what has become of it."""

    messages: list[Sent] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    receipt: Receipt = field(default_factory=Receipt)
    last: int = 0
    """The last position that had been drawn before."""
    oldest: int = 0
    """Every transaction with a lower id had ended before."""
    id: int | None = None
    """The batch's own transaction."""
    is_passed: bool = False
    """Nothing is left up to the expected position."""


Decide = Callable[[Sequence[Sent]], Awaitable[Changes]]


class Floor:
    """Up to which position the outbox is settled for good, so that its dead rows need not be walked over again.

    Who draws a position has its transaction's id before. So all who drew up to `last` had lower ids than a batch that
    took its own later, and have ended when the oldest id under way is above that: what then is not there, never comes.
    A reader's long transaction keeps dead rows, and does not hold up the floor; a writer's holds up both.
    """

    def __init__(self) -> None:
        self.settled = 0
        self.expected = 0
        self._by = 0
        """The id of a transaction that is younger than all who drew what is expected to be settled next."""

    def learn(self, taken: Taken) -> None:
        """From a committed batch."""
        if self.expected and taken.is_passed and taken.oldest > self._by:
            self.settled, self.expected = self.expected, 0
        if not self.expected and taken.id is not None:
            self.expected, self._by = taken.last, taken.id


async def is_waiting(link: Link, settled: int) -> bool:
    """Whether there is anything to take: a look that locks nothing and commits nothing."""
    found: list[int] = []
    pipeline = Pipeline()
    pipeline.call(IS_WAITING, pack.int8(settled), read=lambda result: found.append(result.ntuples))
    await link.run(pipeline)
    return bool(found[0])


async def relay(link: Link, selection: Selection, taken: Taken, decide: Decide) -> None:
    """Take the first messages of a selection and make true what `decide` makes of them; `taken` tells how far it came.

    Nothing is taken while another batch is under way. Raises DatabaseError: nothing was done (`is_vouch`: an engine
    that was given work is dead). Raises Disconnected: nobody knows whether it was done.
    """
    taking = Pipeline()
    taking.begin()
    taking.call(PATIENCE)
    taking.call(LAST, read=lambda result: _read_last(result, taken))
    taking.call(
        TAKE,
        pack.int8(selection.settled),
        pack.int4(selection.batch),
        pack.texts([service for service, _ in selection.keys]),
        pack.texts([key for _, key in selection.keys]),
        b"\x01" if selection.inside else b"\x00",
        read=lambda result: taken.messages.extend(map(_sent, rows(result))),
    )
    taking.call(
        STANDING,
        pack.int8(selection.settled),
        pack.int8(selection.expected),
        read=lambda result: _read_standing(result, taken),
    )
    async with whole(link):
        await link.run(taking)
        taken.changes = await decide(taken.messages)
        making = commit.statements([taken.changes], taken.receipt)
        making.commit()
        await link.run(making)


def _read_last(result: PGresult, taken: Taken) -> None:
    ((last, oldest),) = rows(result)
    taken.last, taken.oldest = pack.integer(last), pack.integer(oldest)


def _read_standing(result: PGresult, taken: Taken) -> None:
    ((id, is_passed),) = rows(result)
    taken.id = None if id is None else pack.integer(id)
    taken.is_passed = is_passed == b"\x01"


def _sent(row: Row) -> Sent:
    position, id, service, handler, key, payload, once, due = row
    return Sent(
        pack.integer(position),
        id,
        service.decode(),
        handler.decode(),
        key and key.decode(),
        payload,
        once and once.decode(),
        pack.milliseconds(due) if due else 0,
    )
