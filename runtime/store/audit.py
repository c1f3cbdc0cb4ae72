"""The audit log: appended to in the transaction of what it tells of, and never changed."""

from __future__ import annotations

from runtime.core.audit import Act
from runtime.store import pack
from runtime.store.link import Pipeline, Statement

NOTE = Statement(
    """
INSERT INTO audit (actor, role, origin, verb, target, details, result)
VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $6::text::jsonb, $7::text)
""",
    *[pack.TEXT] * 7,
)


def note(pipeline: Pipeline, act: Act | None, result: str) -> None:
    """Add what came of an act; None: nobody asked for it but the runtime itself."""
    if act is not None:
        actor = act.actor
        texts = (actor.name, actor.role.name.lower(), actor.origin, act.verb, act.target, act.described, result)
        pipeline.call(NOTE, *(text.encode() for text in texts))
