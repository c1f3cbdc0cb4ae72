"""The audit log: appended to in the transaction of what it tells of, and never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from runtime.core.audit import Act
from runtime.store import pack
from runtime.store.link import Pipeline, Statement

Note = Callable[[Pipeline, Mapping[bytes, str]], None]
"""Writes down what came of a verb, for each invocation that was told, in the transaction that does it."""

NOTE = Statement(
    """
INSERT INTO audit (actor, role, origin, verb, target, details, result)
SELECT actor, role, origin, verb, target, details::jsonb, result
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS noted (actor, role, origin, verb, target, details, result)
""",
    *[pack.TEXTS] * 7,
)


def note(pipeline: Pipeline, act: Act | None, result: str) -> None:
    """Add what came of an act; None: nobody asked for it but the runtime itself."""
    if act is not None:
        note_all(pipeline, [(act, result)])


def note_all(pipeline: Pipeline, noted: Sequence[tuple[Act, str]]) -> None:
    """Add acts in their order, each with what came of it."""
    if noted:
        texts = [
            (act.actor.name, act.actor.role.name.lower(), act.actor.origin, act.verb, act.target, act.described, result)
            for act, result in noted
        ]
        pipeline.call(NOTE, *(pack.texts(column) for column in zip(*texts, strict=True)))


def noting(acts: Mapping[bytes, Act]) -> Note:
    """For verbs that somebody asked for: an act for each invocation."""

    def note(pipeline: Pipeline, came: Mapping[bytes, str]) -> None:
        note_all(pipeline, [(acts[id], word) for id, word in came.items()])

    return note


def unnoted(_: Pipeline, __: Mapping[bytes, str]) -> None:
    """For what the runtime does by itself."""
