"""Verbs by filter as people see them: how far they have come."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from runtime import models
from runtime.store.bulk import WORKED


class Bulk(Struct, frozen=True, kw_only=True):
    """A verb on all that a filter meant."""

    id: str
    verb: str
    filter: Mapping[str, Any]
    """As it was said."""
    deployment: str
    asked_by: str
    total: int
    told: int
    """To how many it was done, or who were asked."""
    refused: int
    """To how many it could not be done."""
    came: Mapping[str, int]
    """What came of it, and of how many."""
    created_at: datetime
    finished_at: datetime | None


async def find(id: UUID) -> Bulk | None:
    """One; None when there is none, or none any more."""
    row = await models.Bulk.objects.filter(id=id).afirst()
    return None if row is None else _bulk(row)


async def latest(limit: int) -> list[Bulk]:
    """The newest first."""
    return [_bulk(row) async for row in models.Bulk.objects.order_by("-created_at", "-id")[:limit]]


def _bulk(row: models.Bulk) -> Bulk:
    told = sum(times for word, times in row.came.items() if word in WORKED)
    return Bulk(
        id=str(row.id),
        verb=row.verb,
        filter=row.filter,
        deployment=row.deployment,
        asked_by=row.actor,
        total=row.total,
        told=told,
        refused=sum(row.came.values()) - told,
        came=row.came,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
