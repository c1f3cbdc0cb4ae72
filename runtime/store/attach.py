"""Attaching: an invocation asks how another ends, or whether it has.

The other's row is locked when this looks, and locked again by whoever ends it: either it is over by now, and the answer
is mail to the asker in this very transaction, or its end finds the waiter.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.protocol.codec import encode
from perdure.protocol.messages import Failure, Output
from runtime.core.changes import Attachment
from runtime.store import pack
from runtime.store.link import Pipeline, Reader, Statement

NOT_FOUND = encode(Output(Failure(404, "not found")))
"""The answer about an invocation that nobody knows, or not any more."""

ATTACH = Statement(
    """
WITH asked AS (
    SELECT wanted.*, living.id IS NOT NULL AS lives
    FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::bool[]) AS wanted (target, caller, completion, is_patient)
    LEFT JOIN LATERAL (SELECT id FROM invocation WHERE invocation.id = wanted.target OFFSET 0) AS living ON true
), waiting AS (
    INSERT INTO waiter (invocation, caller, completion)
    SELECT target, caller, completion FROM asked WHERE lives AND is_patient
)
INSERT INTO mail (target, slot, frame)
SELECT asked.caller, asked.completion, CASE WHEN asked.lives THEN '' ELSE coalesce(ended.result, $5::bytea) END
FROM asked
LEFT JOIN LATERAL (SELECT result FROM done WHERE done.id = asked.target OFFSET 0) AS ended ON NOT asked.lives
WHERE NOT (asked.lives AND asked.is_patient)
RETURNING target, slot, frame
""",
    pack.UUIDS,
    pack.UUIDS,
    pack.INT4S,
    pack.BOOLS,
    pack.BYTEA,
)


def attach(pipeline: Pipeline, attaching: Sequence[tuple[bytes, Attachment]], read: Reader) -> None:
    """Ask for each caller; reads (target, slot, frame) of the mail that answers at once."""
    if attaching:
        pipeline.call(
            ATTACH,
            pack.uuids([wanted.target for _, wanted in attaching]),
            pack.uuids([caller for caller, _ in attaching]),
            pack.int4s([wanted.slot for _, wanted in attaching]),
            pack.bools([wanted.is_patient for _, wanted in attaching]),
            NOT_FOUND,
            read=read,
        )
