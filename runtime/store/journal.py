"""What a running invocation has done: journal entries, state, and that it runs at all."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.changes import Changes
from runtime.store import pack
from runtime.store.link import Pipeline, Statement

# The owner's first word of an invocation that was born pending: until then its inbox place says that it runs.
BEGIN = Statement(
    """
UPDATE invocation SET status = 'running', deployment = begun.deployment, modified_at = now(),
    begun_at = coalesce(begun_at, now())
FROM unnest($1::uuid[], $2::text[]) AS begun (id, deployment) WHERE invocation.id = begun.id
""",
    pack.UUIDS,
    pack.TEXTS,
)

# What gets on is not what kills its engines: its count begins anew.
GOT_ON = Statement("UPDATE invocation SET crashes = 0 WHERE id = ANY ($1::uuid[])", pack.UUIDS)

# A row per invocation and flush (1.6 ms for 400 of them, against 4.6 for a row per entry).
APPEND = Statement(
    "INSERT INTO journal (invocation, first, count, frames)"
    " SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::bytea[])",
    pack.UUIDS,
    pack.INT4S,
    pack.INT4S,
    pack.BYTEAS,
)

CLEAR_STATE = Statement(
    "DELETE FROM state USING unnest($1::text[], $2::text[]) AS cleared (service, key)"
    " WHERE state.service = cleared.service AND state.key = cleared.key",
    pack.TEXTS,
    pack.TEXTS,
)
SET_STATE = Statement(
    "INSERT INTO state (service, key, name, value)"
    " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[])"
    " ON CONFLICT (service, key, name) DO UPDATE SET value = excluded.value",
    pack.TEXTS,
    pack.TEXTS,
    pack.TEXTS,
    pack.BYTEAS,
)
UNSET_STATE = Statement(
    "DELETE FROM state USING unnest($1::text[], $2::text[], $3::text[]) AS gone (service, key, name)"
    " WHERE state.service = gone.service AND state.key = gone.key AND state.name = gone.name",
    pack.TEXTS,
    pack.TEXTS,
    pack.TEXTS,
)

# A row for each value that has become another in this flush, where that is kept. Of one key's changes in one flush the
# positions are drawn in order, too. Measured in pairs, off and on by turns, on a busy machine: 64 callers of a handler
# that sets a value, 972/s and 1,002/s on one key, 746/s and 732/s on 1,000 keys, which is noise; the statements of
# `write_state` alone, for 64 values, 142 and 171 us a value. So it is off until somebody wants it.
KEEP_HISTORY = Statement(
    """
INSERT INTO state_history (service, key, name, invocation, handler, actor, before, after, expires_on)
SELECT service, key, name, invocation, handler, actor, before, after,
       (now() + retention * interval '1 second')::date
FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::bytea[], $8::bytea[],
            $9::int[])
    AS changed (service, key, name, invocation, handler, actor, before, after, retention)
""",
    pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.UUIDS, pack.TEXTS, pack.TEXTS, pack.BYTEAS, pack.BYTEAS, pack.INT4S,
)  # fmt: skip


def begin(pipeline: Pipeline, changes: Sequence[Changes]) -> None:
    begun = [change for change in changes if change.begun is not None]
    if begun:
        pipeline.call(
            BEGIN, pack.uuids([change.invocation.id for change in begun]), pack.texts([c.begun for c in begun])
        )


def got_on(pipeline: Pipeline, ids: Sequence[bytes]) -> None:
    if ids:
        pipeline.call(GOT_ON, pack.uuids(ids))


def append(pipeline: Pipeline, changes: Sequence[Changes]) -> None:
    if changes:
        pipeline.call(
            APPEND,
            pack.uuids([change.invocation.id for change in changes]),
            pack.int4s([change.first for change in changes]),
            pack.int4s([len(change.frames) for change in changes]),
            pack.byteas([b"".join(change.frames) for change in changes]),
        )


def write_state(pipeline: Pipeline, changes: Sequence[Changes]) -> None:
    """The last word of each name wins: several invocations of one key may be in one flush."""
    cleared: dict[tuple[str, str], None] = {}
    written: dict[tuple[str, str], dict[str, bytes | None]] = {}
    kept_history: list[Changes] = []
    for change in changes:
        invocation = change.invocation
        if not (change.cleared or change.state):
            continue
        if change.history:
            kept_history.append(change)
        assert invocation.key is not None
        where = (invocation.service, invocation.key)
        if change.cleared:
            cleared[where] = None
            written.pop(where, None)
        if change.state:
            written.setdefault(where, {}).update(change.state)
    if cleared:
        pipeline.call(CLEAR_STATE, pack.texts([s for s, _ in cleared]), pack.texts([k for _, k in cleared]))
    rows = [(*where, name, value) for where, values in written.items() for name, value in values.items()]
    kept = [row for row in rows if row[3] is not None]
    gone = [row for row in rows if row[3] is None]
    if kept:
        pipeline.call(
            SET_STATE,
            pack.texts([row[0] for row in kept]),
            pack.texts([row[1] for row in kept]),
            pack.texts([row[2] for row in kept]),
            pack.byteas([row[3] for row in kept]),
        )
    if gone:
        pipeline.call(
            UNSET_STATE,
            pack.texts([row[0] for row in gone]),
            pack.texts([row[1] for row in gone]),
            pack.texts([row[2] for row in gone]),
        )
    if kept_history:
        _keep_history(pipeline, kept_history)


def _keep_history(pipeline: Pipeline, changes: Sequence[Changes]) -> None:
    changed = [
        (change, name, before, after) for change in changes for name, (before, after) in (change.history or {}).items()
    ]
    invocations = [change.invocation for change, *_ in changed]
    pipeline.call(
        KEEP_HISTORY,
        pack.texts([invocation.service for invocation in invocations]),
        pack.texts([invocation.key for invocation in invocations]),
        pack.texts([name for _, name, _, _ in changed]),
        pack.uuids([invocation.id for invocation in invocations]),
        pack.texts([invocation.handler for invocation in invocations]),
        pack.texts([change.by for change, *_ in changed]),
        pack.byteas([before for _, _, before, _ in changed]),
        pack.byteas([after for _, _, _, after in changed]),
        pack.int4s([change.history_retention for change, *_ in changed]),
    )
