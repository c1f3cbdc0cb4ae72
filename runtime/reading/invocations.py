"""Invocations as people see them, alive or ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from perdure.protocol.ids import format_id
from runtime.core.invocation import Status
from runtime.models import Done, Invocation, Journal
from runtime.reading.journal import Entry, read_journal
from runtime.reading.services import missing_code

MOST = 1_000
"""More in one answer is a query for a database, not for eyes."""


class Summary(Struct, frozen=True, kw_only=True):
    """An invocation as one line of a list."""

    id: str
    target: str
    """As in `Mailbox/Mary/put`."""
    service: str
    handler: str
    key: str | None
    status: str
    outcome: str | None = None
    """How it ended."""
    created_at: datetime
    modified_at: datetime
    completed_at: datetime | None = None
    deployment_id: str | None
    idempotency_key: str | None
    invoked_by_id: str | None
    """The invocation that called it and awaits its result."""
    due_at: datetime | None = None
    """Scheduled: not before; backing off: the next attempt."""
    retry_count: int = 0
    failure: Mapping[str, Any] | None
    """Why it failed, or why its last attempt did."""


class Detail(Struct, frozen=True):
    """An invocation and all that it did."""

    summary: Summary
    journal: Sequence[Entry]
    missing_code: str | None = None
    """The code that it waits for, as in `hello:app (dp_…)`: no engine has loaded it."""


async def latest(limit: int) -> list[Summary]:
    """The newest invocations first."""
    alive = Invocation.objects.defer("input").order_by("-created_at")[:limit]
    ended = Done.objects.defer("input", "frames", "result").order_by("-created_at")[:limit]
    # The living first: one that ends between the two reads is then found twice, and not never.
    found = {row.id: _alive(row) async for row in alive}
    found |= {row.id: _ended(row) async for row in ended}
    return sorted(found.values(), key=lambda summary: summary.created_at, reverse=True)[:limit]


async def find(id: bytes) -> Detail | None:
    """One invocation with its journal; None when there is none, or none any more."""
    uuid = UUID(bytes=id)
    alive = await Invocation.objects.filter(id=uuid).afirst()
    if alive is not None:
        journal = read_journal([alive.input, *await _flushes(uuid)])
        return Detail(_alive(alive), journal, await missing_code(alive.service, alive.deployment))
    ended = await Done.objects.filter(id=uuid).afirst()
    if ended is not None:
        return Detail(_ended(ended), read_journal([ended.input, *await _flushes(uuid), ended.frames, ended.result]))
    return None


async def _flushes(id: UUID) -> list[bytes | memoryview]:
    rows = Journal.objects.filter(invocation=id).order_by("first").values_list("frames", flat=True)
    return [frames async for frames in rows]


def _alive(row: Invocation) -> Summary:
    return Summary(
        **_common(row),
        status=row.status,
        modified_at=row.modified_at,
        due_at=row.due_at,
        retry_count=row.retries,
    )


def _ended(row: Done) -> Summary:
    return Summary(
        **_common(row),
        status=Status.COMPLETED,
        outcome=row.outcome,
        modified_at=row.completed_at,
        completed_at=row.completed_at,
    )


def _common(row: Invocation | Done) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "target": row.target,
        "service": row.service,
        "handler": row.handler,
        "key": row.key,
        "created_at": row.created_at,
        "deployment_id": row.deployment,
        "idempotency_key": row.idempotency_key,
        "invoked_by_id": None if row.caller is None else format_id(row.caller.bytes),
        "failure": row.failure,
    }
