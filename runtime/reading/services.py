"""Services as people see them: what they offer, which code runs them, and whether anybody has loaded it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Now
from msgspec import Struct

from runtime.core.registry import NOTHING, HandlerInfo, ServiceInfo, read_common, read_service
from runtime.models import Deployment, Engine, Heartbeat, IngressKey, Service, ServiceOptions

FRESH = timedelta(seconds=5)
"""Engines that were killed all at once are in nobody's books as dead, but their hearts do not beat."""


class Served(Struct, frozen=True):
    """A service and where its code comes from."""

    info: ServiceInfo
    common: HandlerInfo
    """What holds for handlers that say nothing of their own."""
    kind: str
    location: str
    modified_at: datetime
    is_loaded: bool
    """Whether a living engine has its code; without one, what is invoked waits."""
    reached: Behind | None = None


class Behind(Struct, frozen=True):
    """How code behind a URL is driven. What is sent to it with every request may be secret, so it stands nowhere."""

    http_version: str
    protocol_version: int
    protocol_mode: str
    sdk: str | None
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, row: Deployment) -> Behind | None:
        """None: it is a module."""
        if row.http_version is None or row.protocol_version is None or row.protocol_mode is None:
            return None
        return cls(row.http_version, row.protocol_version, row.protocol_mode, row.sdk, row.metadata)

    @property
    def words(self) -> str:
        """What it is built with, and how it is driven."""
        how = "on streams" if self.protocol_mode == "BIDI_STREAM" and self.http_version == "HTTP/2" else "by requests"
        return f"{self.sdk or 'unknown SDK'}, V{self.protocol_version} over {self.http_version}, {how}"


async def services() -> list[Served]:
    """All services, by name."""
    rows = [row async for row in Service.objects.select_related("deployment").order_by("name")]
    loaded = await loaded_deployments()
    said = {row.service: row.options async for row in ServiceOptions.objects.all()}
    return [_served(row, said.get(row.name, NOTHING), loaded) for row in rows]


async def service(name: str) -> Served | None:
    row = await Service.objects.select_related("deployment").filter(name=name).afirst()
    if row is None:
        return None
    said = await ServiceOptions.objects.filter(service=name).afirst()
    return _served(row, said.options if said else NOTHING, await loaded_deployments())


async def keys(service: str) -> list[IngressKey]:
    """What is kept of the keys with which callers may call a service, the oldest first; none: it is open."""
    return [key async for key in IngressKey.objects.filter(service=service).order_by("created_at", "id")]


async def missing_code(service: str, deployment: str | None) -> str | None:
    """The code that an invocation needs (of its first attempt, else its service's newest), if no engine has it.

    What is behind a URL every engine has.
    """
    code = Deployment.objects.filter(id=deployment) if deployment else Deployment.objects.filter(service__name=service)
    needed = await code.afirst()
    if needed is None and not deployment:
        return f"a service {service!r} that is registered"
    id = needed.id if needed else deployment
    if (needed and needed.kind == "http") or id in await loaded_deployments():
        return None
    return f"{needed.location} ({id})" if needed else f"a deployment that was deleted ({id})"


async def is_unregistered_code_loaded() -> bool:
    """Whether a living engine has code that nobody has registered: what was changed in place is such code."""
    loaded = await loaded_deployments()
    return await Deployment.objects.filter(id__in=loaded).acount() < len(loaded)


async def is_served(queue: str) -> bool:
    """Whether a living engine takes what is in a queue."""
    return await _living().filter(queues__contains=[queue]).aexists()


async def loaded_deployments() -> set[str]:
    """What the living engines have loaded, and all code behind URLs: that is driven by any of them."""
    rows = [loaded async for loaded in _living().values_list("deployments", flat=True)]
    found = {deployment for loaded in rows for deployment in loaded}
    if rows:
        found.update([id async for id in Deployment.objects.filter(kind="http").values_list("id", flat=True)])
    return found


async def is_any_engine_alive() -> bool:
    return await _living().aexists()


def _living() -> QuerySet[Engine]:
    beating = Heartbeat.objects.filter(beat_at__gt=Now() - FRESH).values("engine")
    return Engine.objects.filter(alive=True, id__in=beating)


def _served(row: Service, options: Mapping[str, Any], loaded: set[str]) -> Served:
    deployment = row.deployment
    (manifest,) = (entry for entry in deployment.manifest["services"] if entry["name"] == row.name)
    return Served(
        read_service(manifest, deployment.id, row.revision, options),
        read_common(manifest, options),
        deployment.kind,
        deployment.location,
        row.modified_at,
        deployment.id in loaded,
        Behind.of(deployment),
    )
