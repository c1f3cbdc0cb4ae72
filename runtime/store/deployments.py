"""The registry's rows: which deployments there are, and which of them takes the new invocations of each service."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from perdure.protocol.manifest import Manifest
from runtime.core.registry import Registry, read_service
from runtime.errors import RuntimeFault
from runtime.store import pack
from runtime.store.link import Link, Pipeline, Statement, rows

# One registration at a time, so that whoever sees a later change of a service has seen all earlier ones.
ONE_AT_A_TIME = Statement("SELECT pg_advisory_xact_lock(hashtext('perdure registry'))")

# All or nothing: one service of another type, and nothing is stored. xmax is 0 in a row that was not there before.
STORE = Statement(
    """
WITH wanted AS (
    SELECT * FROM unnest($5::text[], $6::text[]) AS wanted (name, type)
), clashing AS (
    SELECT service.name, service.type FROM service JOIN wanted USING (name) WHERE service.type <> wanted.type
), stored AS (
    INSERT INTO deployment (id, kind, location, manifest)
    SELECT $1::text, $2::text, $3::text, $4::text::jsonb WHERE NOT EXISTS (SELECT FROM clashing)
    ON CONFLICT (id) DO UPDATE SET location = excluded.location
    RETURNING xmax = 0 AS is_new
), serving AS (
    INSERT INTO service (name, type, deployment, modified_at)
    SELECT name, type, $1::text, clock_timestamp() FROM wanted WHERE NOT EXISTS (SELECT FROM clashing)
    ON CONFLICT (name) DO UPDATE SET deployment = excluded.deployment, revision = service.revision + 1,
        modified_at = excluded.modified_at
    WHERE service.deployment <> excluded.deployment
)
SELECT (SELECT is_new FROM stored), clashing.name, clashing.type FROM (SELECT) AS always LEFT JOIN clashing ON true
""",
    pack.TEXT,
    pack.TEXT,
    pack.TEXT,
    pack.TEXT,
    pack.TEXTS,
    pack.TEXTS,
)

# A few dozen rows: no index helps. Revisions only grow, so no two registries have the same version.
VERSION = Statement(
    "SELECT count(*) || '-' || coalesce(sum(revision), 0) || '-' || coalesce(max(modified_at), 'epoch') FROM service"
)

SERVING = Statement(
    """
SELECT service.deployment, service.revision, described.entry::text
FROM service JOIN deployment ON deployment.id = service.deployment,
    jsonb_array_elements(deployment.manifest -> 'services') AS described (entry)
WHERE described.entry ->> 'name' = service.name
ORDER BY service.name
"""
)


class ServiceTypeChanged(RuntimeFault):
    """A service was registered as something else before."""

    code = "service_type_changed"
    hint = "Its invocations and its state need the old type: give the new service another name."


class Registered(Struct, frozen=True):
    """What a registration came to."""

    deployment_id: str
    services: tuple[str, ...]
    is_new: bool
    """False: the deployment was known. It takes the new invocations of its services again, if it did not already."""


async def store_deployment(link: Link, *, id: str, kind: str, location: str, manifest: Manifest) -> Registered:
    """Make a deployment the one that takes new invocations of its services. Repeating it changes nothing.

    Raises ServiceTypeChanged: nothing was stored.
    """
    services = [(service.name, service.ty.value) for service in manifest.services]
    answers: list[Sequence[bytes | None]] = []
    pipeline = Pipeline()
    pipeline.call(ONE_AT_A_TIME)
    pipeline.call(
        STORE,
        id.encode(),
        kind.encode(),
        location.encode(),
        manifest.to_json(),
        pack.texts([name for name, _ in services]),
        pack.texts([type for _, type in services]),
        read=lambda result: answers.extend(rows(result)),
    )
    await link.run(pipeline)
    clashes = [(name.decode(), type.decode()) for _, name, type in answers if name and type]
    if clashes:
        wanted = dict(services)
        raise ServiceTypeChanged(
            " ".join(f"{name!r} is registered as {type} and would become {wanted[name]}." for name, type in clashes)
        )
    return Registered(id, tuple(name for name, _ in services), is_new=answers[0][0] == b"\x01")


async def load_registry(link: Link, known: Registry | None = None) -> Registry:
    """The registry as it is now; `known` itself when nothing has changed since that was loaded."""
    version = await _version(link)
    if known is not None and known.version == version:
        return known
    found: list[Sequence[bytes]] = []
    pipeline = Pipeline()
    # The version may have moved on by now: then the next look finds another one, and reads once more than it must.
    pipeline.call(SERVING, read=lambda result: found.extend(rows(result)))
    await link.run(pipeline)
    return Registry(
        [
            read_service(msgspec.json.decode(entry), deployment.decode(), pack.integer(revision))
            for deployment, revision, entry in found
        ],
        version,
    )


async def _version(link: Link) -> str:
    found: list[bytes] = []
    pipeline = Pipeline()
    pipeline.call(VERSION, read=lambda result: found.extend(row[0] for row in rows(result)))
    await link.run(pipeline)
    return found[0].decode()
