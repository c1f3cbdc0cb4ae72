"""Promises: what is told once to a workflow's key, under a name, and heard by all who ask there.

Their rows are locked before anybody looks, so that of those who complete one the first wins, and no listener misses
it. Everything that is asked is answered by mail, in the transaction that records the question.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runtime.core.changes import PromiseAsk, Question
from runtime.core.invocation import Invocation
from runtime.core.lifecycle import COMPLETED_BEFORE
from runtime.store import pack
from runtime.store.link import Pipeline, Reader, Statement

Asking = Sequence[tuple[Invocation, PromiseAsk]]
"""Who asks, and what."""

# Locked or made, in one order for everybody. DO UPDATE, for DO NOTHING does not wait for whoever is deleting one.
HOLD = Statement(
    """
INSERT INTO promise (service, key, name)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (service, key, name) ORDER BY service, key, name
ON CONFLICT (service, key, name) DO UPDATE SET result = promise.result
""",
    pack.TEXTS,
    pack.TEXTS,
    pack.TEXTS,
)

# Those who await what is completed, together with all others that this transaction will change, in one order for
# everybody. Nobody can come to them any more: the promises are held.
LOCK_LISTENERS = Statement(
    """
SELECT FROM invocation WHERE id = ANY (ARRAY(
    SELECT unnest($1::uuid[]) UNION ALL
    SELECT listener.caller FROM unnest($2::text[], $3::text[], $4::text[]) AS completed (service, key, name),
    LATERAL (
        SELECT caller FROM promise_listener AS listener WHERE listener.service = completed.service
            AND listener.key = completed.key AND listener.name = completed.name OFFSET 0
    ) AS listener
)) ORDER BY id FOR NO KEY UPDATE
""",
    pack.UUIDS,
    pack.TEXTS,
    pack.TEXTS,
    pack.TEXTS,
)

# What a flush completes is known to all who ask in it: questions side by side have no order.
ANSWER = Statement(
    """
SELECT caller, completion, result, engine FROM answer_promises(
    $1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea
)
""",
    pack.UUIDS, pack.INT4S, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.TEXTS, pack.BYTEAS, pack.BYTEA,
)  # fmt: skip


def hold(pipeline: Pipeline, asking: Asking) -> None:
    """Lock the promises that are asked about."""
    if asking:
        pipeline.call(HOLD, *_named(asking))


def lock_listeners(pipeline: Pipeline, asking: Asking, changed: Collection[bytes]) -> None:
    """Lock those who will be told, and those that are changed anyhow."""
    completing = [(asker, asked) for asker, asked in asking if asked.question is Question.COMPLETE]
    if completing:
        pipeline.call(LOCK_LISTENERS, pack.uuids(list(changed)), *_named(completing))


def answer(pipeline: Pipeline, asking: Asking, read: Reader) -> None:
    """Answer what is asked; reads (target, slot, frame, engine) of the mail to those who asked, now or before."""
    if asking:
        pipeline.call(
            ANSWER,
            pack.uuids([asker.id for asker, _ in asking]),
            pack.int4s([asked.slot for _, asked in asking]),
            pack.texts([asker.service for asker, _ in asking]),
            pack.texts([asker.key for asker, _ in asking]),
            pack.texts([asked.name for _, asked in asking]),
            pack.texts([asked.question for _, asked in asking]),
            pack.byteas([asked.result for _, asked in asking]),
            COMPLETED_BEFORE,
            read=read,
        )


def _named(asking: Asking) -> list[bytes]:
    """Services, keys and names of the promises, each of them once."""
    promises = list({(asker.service, asker.key, asked.name): None for asker, asked in asking})
    return [pack.texts([promise[part] for promise in promises]) for part in range(3)]
