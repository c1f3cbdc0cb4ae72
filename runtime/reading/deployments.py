"""Deployments as people see them: which code there is, what it serves, and who has loaded it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import Q
from msgspec import Struct, json

from runtime.core.registry import ServiceInfo, read_service
from runtime.discovery import Discovered
from runtime.models import Deployment, Invocation, Service
from runtime.reading.services import Behind, is_any_engine_alive, loaded_deployments


class Known(Struct, frozen=True):
    """A deployment and how it stands with it."""

    id: str
    kind: str
    location: str
    created_at: datetime
    min_protocol_version: int
    max_protocol_version: int
    offers: tuple[ServiceInfo, ...]
    serves: frozenset[str]
    """Those of its services whose new invocations it takes."""
    is_loaded: bool
    """Whether a living engine has its code; of code behind a URL: whether an engine lives."""
    reached: Behind | None = None
    """Of code behind a URL."""


async def deployments() -> list[Known]:
    """All deployments, the newest first."""
    loaded, serving = await loaded_deployments(), await _serving()
    rows = Deployment.objects.order_by("-created_at", "id")
    return [_known(row, loaded, serving) async for row in rows]


async def deployment(id: str) -> Known | None:
    row = await Deployment.objects.filter(id=id).afirst()
    return None if row is None else _known(row, await loaded_deployments(), await _serving())


async def preview(found: Discovered) -> Known:
    """Code as it would stand here if it were registered now."""
    reached, manifest = found.reached, json.decode(found.manifest)
    row = Deployment(
        id=found.id,
        kind="module" if reached is None else "http",
        location=found.location,
        manifest=manifest,
        created_at=datetime.now(UTC),
    )
    loaded = await loaded_deployments()
    if reached is not None:
        row.http_version, row.protocol_version = reached.http_version, reached.protocol_version
        row.protocol_mode, row.sdk = manifest["protocolMode"], reached.sdk
        row.metadata = dict(reached.metadata or {})
        if await is_any_engine_alive():
            loaded.add(found.id)
    return _known(row, loaded, {})


async def bound(id: str) -> int:
    """How many invocations under way began on a deployment, or would begin on it. A walk over all that lives."""
    served = Service.objects.filter(deployment=id).values("name")
    return await Invocation.objects.filter(Q(deployment=id) | Q(deployment__isnull=True, service__in=served)).acount()


async def _serving() -> dict[str, dict[str, int]]:
    """The services that each deployment serves, with their revisions."""
    found: dict[str, dict[str, int]] = {}
    async for name, id, revision in Service.objects.values_list("name", "deployment_id", "revision"):
        found.setdefault(id, {})[name] = revision
    return found


def _known(row: Deployment, loaded: set[str], serving: dict[str, dict[str, int]]) -> Known:
    manifest: dict[str, Any] = row.manifest
    serves = serving.get(row.id, {})
    return Known(
        row.id,
        row.kind,
        row.location,
        row.created_at,
        manifest["minProtocolVersion"],
        manifest["maxProtocolVersion"],
        tuple(read_service(entry, row.id, serves.get(entry["name"], 0)) for entry in manifest["services"]),
        frozenset(serves),
        row.id in loaded,
        Behind.of(row),
    )
