"""Commit: everything that happened since the last flush becomes true in one transaction, in the lock order.

This is the one place that knows the order of the statements. Engines run it behind `fence`, others behind `vouch`
for the engines to which they give work.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from runtime.core.changes import Changes, Completed, Mail, Parked
from runtime.core.invocation import Mode
from runtime.errors import DatabaseError
from runtime.store import attach, claim, finish, journal, mail, pack, park, promises, submit, timers
from runtime.store.claim import Claim, Claimed, Key
from runtime.store.link import Link, Pipeline, Statement, rows

FENCE = Statement("SELECT fence($1::uuid)", pack.UUID)
VOUCH = Statement("SELECT vouch($1::uuid[])", pack.UUIDS)


class Receipt(Struct):
    """What a committed transaction answered."""

    created: set[bytes] = field(default_factory=set)
    """Births that happened; a repetition of an idempotency key is not among them."""
    keys: dict[Key, bytes | None] = field(default_factory=dict)
    """Keys that got something new in their inbox, and the engine that leases each."""
    told: dict[bytes, bytes | None] = field(default_factory=dict)
    """Invocations that have mail, and the engine that drives each."""
    answers: list[tuple[Mail, bytes | None]] = field(default_factory=list)
    """Mail that the database has written itself, and the engine that drives each target; None: see there."""
    parked: set[bytes] = field(default_factory=set)
    released: set[Key] = field(default_factory=set)
    claimed: Claimed = field(default_factory=Claimed)


async def commit(
    link: Link,
    all_changes: Sequence[Changes],
    *,
    engine: bytes | None = None,
    release: Sequence[Key] = (),
    wanted: Claim | None = None,
) -> Receipt:
    """Make `all_changes` true at once. When this returns they are durable.

    Raises DatabaseError: nothing was done (`is_fence`: this engine is dead; `is_vouch`: one that was given work is).
    Raises Disconnected: nobody knows whether it was done.
    """
    receipt = Receipt()
    try:
        pipeline = statements(all_changes, receipt, engine, release, wanted)
    except (struct.error, UnicodeEncodeError) as error:  # it does not even reach the database
        raise DatabaseError("22000", str(error)) from error
    if pipeline.calls:
        await link.run(pipeline)
    return receipt


def statements(
    all_changes: Sequence[Changes],
    receipt: Receipt,
    engine: bytes | None = None,
    release: Sequence[Key] = (),
    wanted: Claim | None = None,
) -> Pipeline:
    """What `commit` runs, for a transaction that does more than that."""
    pipeline = Pipeline()
    creations = [creation for change in all_changes for creation in change.creations]
    ended = [(change, change.ending) for change in all_changes if isinstance(change.ending, Completed)]
    parking = [(change, change.ending) for change in all_changes if isinstance(change.ending, Parked)]
    mails = [letter for change in all_changes for letter in change.mails]

    if engine is not None:
        pipeline.call(FENCE, engine)
    owners = {creation.owner for creation in creations if creation.owner is not None and creation.owner != engine}
    if owners:
        pipeline.call(VOUCH, pack.uuids(list(owners)))

    stillborn = [one for change in all_changes for one in change.stillborn]
    # Of one key's submissions those that can live are the first.
    submit.claim_idempotency(pipeline, [*creations, *(one.creation for one in stillborn)])
    finish.expire_idempotency(pipeline, ended)
    asking = [(change.invocation, asked) for change in all_changes for asked in change.promises]
    promises.hold(pipeline, asking)

    entering = submit.entered(creations)
    parked = [change.invocation for change, _ in parking if change.invocation.mode is Mode.EXCLUSIVE]
    if parked or release:  # all at once: what is only entered is locked in order by that
        claim.hold_keys(pipeline, {*entering, *release, *((held.service, held.key or "") for held in parked)})
    submit.enter(pipeline, entering, lambda result: _read_keys(result, receipt))
    changed = {change.invocation.id for change in all_changes if change.ending is not None or change.begun is not None}
    got_on = [
        change.invocation.id
        for change in all_changes
        if change.invocation.crashes and change.frames and change.ending is None
    ]
    changed.update(got_on)
    changed.update(letter.target for letter in mails)
    changed.update(creation.invocation.id for creation in submit.awaiting(creations))
    attaching = [(change.invocation.id, wanted) for change in all_changes for wanted in change.attachments]
    changed.update(wanted.target for _, wanted in attaching)
    promises.lock_listeners(pipeline, asking, changed)
    if mails:
        mail.lock(pipeline, list(changed), lambda result: _read_told(result, receipt))
    else:
        mail.lock(pipeline, list(changed))

    if creations:
        submit.create(pipeline, creations, receipt.created)
        submit.attach_repetitions(pipeline, creations)
    attach.attach(pipeline, attaching, lambda result: _read_answers(result, receipt, engine))
    promises.answer(pipeline, asking, lambda result: _read_answers(result, receipt))
    first_words = [change for change in all_changes if change.is_first_word]
    claim.check_untouched(
        pipeline, [c.invocation.id for c in first_words if not isinstance(c.ending, Completed)], engine
    )
    if engine is not None:  # after what comes into their inboxes by this very flush
        claim.release(pipeline, engine, release, receipt.released)
    journal.begin(pipeline, [change for change in all_changes if change.ending is None])
    journal.got_on(pipeline, got_on)
    journal.append(
        pipeline, [change for change in all_changes if change.frames and not isinstance(change.ending, Completed)]
    )
    journal.write_state(pipeline, all_changes)
    timers.arm(pipeline, all_changes)
    mail.mark_read(pipeline, [(change.invocation.id, slot) for change in all_changes for slot in change.read])
    mail.tell(pipeline, mails)
    park.park(
        pipeline,
        parking,
        engine,
        lambda result: receipt.parked.update(row[0] for row in rows(result)),
    )
    finish.finish(pipeline, ended, engine, lambda result: _read_answers(result, receipt))
    finish.bury(pipeline, stillborn)
    if wanted is not None and engine is not None:
        claim.claim(pipeline, engine, wanted, receipt.claimed)
    return pipeline


def _read_keys(result: Any, receipt: Receipt) -> None:
    for service, key, owner in rows(result):
        receipt.keys[service.decode(), key.decode()] = owner


def _read_answers(result: Any, receipt: Receipt, engine: bytes | None = None) -> None:
    """Mail, with the engine that drives its target, which is `engine` where the row does not say."""
    for target, slot, frame, *owner in rows(result):
        receipt.answers.append((Mail(target, pack.integer(slot), frame), owner[0] if owner else engine))


def _read_told(result: Any, receipt: Receipt) -> None:
    for id, _, owner in rows(result):
        receipt.told[id] = owner
