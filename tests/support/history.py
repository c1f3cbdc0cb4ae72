"""Invocations as rows: what engines would have left behind, for tests of those who read it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from perdure.protocol.codec import encode
from perdure.protocol.ids import format_id
from perdure.protocol.messages import Entry, Input, Output, Value
from runtime.core.invocation import Mode, Outcome, Status
from runtime.models import Done, Invocation, Journal, Timer

BEGINNING = datetime(2026, 1, 1, 12, tzinfo=UTC)

_numbers = itertools.count(1)


async def alive(target: str = "Greeter/greet", *, status: Status = Status.RUNNING, entries: Sequence[Entry] = (),
                created_at: datetime = BEGINNING, **fields: Any) -> str:  # fmt: skip
    """An invocation under way, with the entries that follow its input; answers its id."""
    row = {"id": _fresh(), "queue": "default", "modified_at": created_at, **_born(target, created_at), **fields}
    await Invocation.objects.acreate(status=status, **row)
    if status in (Status.SCHEDULED, Status.BACKING_OFF) and row.get("due_at") is not None:
        slot = Timer.START if status is Status.SCHEDULED else Timer.RETRY
        whose = {name: row[name] for name in ("service", "handler", "key")} if slot == Timer.START else {}
        await Timer.objects.acreate(due=row["due_at"], invocation_id=row["id"], slot=slot, **whose)
    await _flushed(row["id"], entries)
    return format_id(row["id"].bytes)


async def ended(target: str = "Greeter/greet", *, outcome: Outcome = Outcome.SUCCEEDED, entries: Sequence[Entry] = (),
                last: Sequence[Entry] = (), result: Output | None = None, created_at: datetime = BEGINNING,
                took: timedelta = timedelta(seconds=1), **fields: Any) -> str:  # fmt: skip
    """An invocation of history; `last` are the entries that its last flush brought with the result. Answers its id."""
    id = _fresh()
    await Done.objects.acreate(
        id=id,
        outcome=outcome,
        completed_at=created_at + took,
        expires_at=created_at + timedelta(days=1),
        expires_on=(created_at + timedelta(days=1)).date(),
        entries=2 + len(entries) + len(last),
        frames=b"".join(map(encode, last)),
        result=encode(result or Output(Value(b'"done"'))),
        **_born(target, created_at),
        **fields,
    )
    await _flushed(id, entries)
    return format_id(id.bytes)


def _born(target: str, created_at: datetime) -> dict[str, Any]:
    service, *key, handler = target.split("/")
    return {
        "service": service,
        "handler": handler,
        "key": key[0] if key else None,
        "mode": Mode.EXCLUSIVE if key else Mode.SERVICE,
        "input": encode(Input(Value(b'"Mary"'))),
        "created_at": created_at,
    }


async def _flushed(id: UUID, entries: Sequence[Entry]) -> None:
    if entries:
        frames = b"".join(map(encode, entries))
        day = date(2026, 1, 1)
        await Journal.objects.acreate(invocation=id, first=1, count=len(entries), frames=frames, day=day)


def _fresh() -> UUID:
    return UUID(int=next(_numbers))
