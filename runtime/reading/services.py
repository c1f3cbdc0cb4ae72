"""Services as people see them: what they offer, and which code runs them."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from runtime.core.registry import ServiceInfo, read_service
from runtime.models import Service


class Served(Struct, frozen=True):
    """A service and where its code comes from."""

    info: ServiceInfo
    kind: str
    location: str
    modified_at: datetime


async def services() -> list[Served]:
    """All services, by name."""
    return [_served(row) async for row in Service.objects.select_related("deployment").order_by("name")]


async def service(name: str) -> Served | None:
    row = await Service.objects.select_related("deployment").filter(name=name).afirst()
    return None if row is None else _served(row)


def _served(row: Service) -> Served:
    deployment = row.deployment
    (manifest,) = (entry for entry in deployment.manifest["services"] if entry["name"] == row.name)
    return Served(
        read_service(manifest, deployment.id, row.revision), deployment.kind, deployment.location, row.modified_at
    )
