"""Verbs by filter as people see them: how far they have come."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
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
    stopped_by: str | None
    """Who has stopped it before all were told."""


async def find(id: UUID, services: Collection[str] | None = None) -> Bulk | None:
    """One that is about these services only (None: about any); None when there is none, or none any more."""
    row = await _about(services).filter(id=id).afirst()
    return None if row is None else _bulk(row)


async def latest(limit: int, services: Collection[str] | None = None) -> list[Bulk]:
    """The newest first, of those that are about these services only (None: about any)."""
    return [_bulk(row) async for row in _about(services).order_by("-created_at", "-id")[:limit]]


def _about(services: Collection[str] | None) -> QuerySet[models.Bulk]:
    every = models.Bulk.objects.all()
    return every if services is None else every.filter(services__contained_by=sorted(services))


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
        stopped_by=row.stopped_by,
    )
