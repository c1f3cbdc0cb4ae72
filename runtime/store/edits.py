"""An edit of an object's values is put into its key's inbox, together with its line in the audit log."""

from __future__ import annotations

from runtime.core.audit import Act
from runtime.core.changes import Changes, Creation
from runtime.errors import DatabaseError
from runtime.store import audit, commit
from runtime.store.commit import Receipt
from runtime.store.link import Link
from runtime.store.verbs import TRIES


async def submit(link: Link, creation: Creation, act: Act) -> Receipt:
    """Make it an invocation. Raises DatabaseError (`is_vouch`: the engine it was given to is dead), Disconnected."""
    for attempt in range(1, TRIES + 1):
        receipt = Receipt()
        pipeline = commit.statements([Changes(creations=[creation])], receipt)
        audit.note(pipeline, act, "queued")
        try:
            await link.run(pipeline)
        except DatabaseError as error:
            if not (error.is_transient or error.is_lock_timeout) or attempt == TRIES:
                raise
        else:
            return receipt
    raise AssertionError("unreachable")
