"""The audit log, as accounts and the guard add to it, and as people read it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from runtime.core.audit import Act
from runtime.core.lifecycle import storable
from runtime.models import AuditEntry

DENIED = "denied"


def note(act: Act, result: str) -> None:
    """Add what came of an act to the audit log, in the transaction that is open, if one is."""
    actor = act.actor
    AuditEntry.objects.create(
        actor=storable(actor.name),
        role=actor.role.name.lower(),
        origin=storable(actor.origin),
        verb=act.verb,
        target=storable(act.target),
        details=msgspec.json.decode(act.described),
        result=result,
    )


def audit(*, actor: str | None = None, verb: str | None = None, target: str | None = None,
          result: str | None = None, since: datetime | None = None, before: int | None = None,
          limit: int = 100) -> list[AuditEntry]:  # fmt: skip
    """What the audit log tells, the newest first; a verb that ends with a dot means all of its kind."""
    entries = AuditEntry.objects.order_by("-id")
    for field, value in {
        "actor": actor,
        "target": target,
        "result": result,
        "at__gte": since,
        "id__lt": before,
    }.items():
        if value is not None:
            entries = entries.filter(**{field: value})
    if verb is not None:
        entries = entries.filter(**({"verb__startswith": verb} if verb.endswith(".") else {"verb": verb}))
    return list(entries[:limit])
