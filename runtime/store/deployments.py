"""The registry's rows: which deployments there are, and which of them takes the new invocations of each service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field
from psycopg.pq.abc import PGresult

from perdure.protocol.manifest import Manifest
from runtime.core.audit import Act
from runtime.core.deployments import HttpDeployment, HttpVersion, Reached
from runtime.core.registry import Registry, read_service
from runtime.errors import RuntimeFault
from runtime.store import audit, pack
from runtime.store.link import Link, Pipeline, Row, Statement, rows, whole

# One change at a time, so that whoever sees a later change of a service has seen all earlier ones.
ONE_AT_A_TIME = Statement("SELECT pg_advisory_xact_lock(hashtext('perdure registry'))")

BEFORE = Statement(
    """
SELECT service.name, service.type, deployment.id, deployment.location, deployment.kind
FROM service JOIN deployment ON deployment.id = service.deployment WHERE service.name = ANY ($1::text[])
ORDER BY service.name
""",
    pack.TEXTS,
)

# What is under way of handlers that the new code does not have; a dot is in the names of the runtime's own only.
# What has begun behind another URL goes on there. A walk over all that lives: registering is rare.
NEEDED = Statement(
    """
SELECT invocation.service, invocation.handler, count(*) FROM invocation
JOIN service ON service.name = invocation.service AND service.deployment <> $1::text
LEFT JOIN deployment AS begun ON begun.id = invocation.deployment
WHERE invocation.service = ANY ($2::text[]) AND position('.' IN invocation.handler) = 0
AND (begun.kind IS DISTINCT FROM 'http' OR begun.location = $5::text)
AND (invocation.service, invocation.handler) NOT IN (
    SELECT service, handler FROM unnest($3::text[], $4::text[]) AS offered (service, handler)
)
GROUP BY invocation.service, invocation.handler ORDER BY invocation.service, invocation.handler
""",
    pack.TEXT,
    pack.TEXTS,
    pack.TEXTS,
    pack.TEXTS,
    pack.TEXT,
)

# Other code that was found behind the same URL: it is there no more. Of a known deployment it matters only when that
# other code takes new invocations.
REPLACED = Statement(
    """
SELECT deployment.id, (SELECT count(*) FROM invocation WHERE invocation.deployment = deployment.id) FROM deployment
WHERE deployment.kind = 'http' AND deployment.location = $2::text AND deployment.id <> $1::text
AND (EXISTS (SELECT FROM service WHERE service.deployment = deployment.id)
     OR NOT EXISTS (SELECT FROM deployment AS same WHERE same.id = $1::text))
ORDER BY deployment.created_at
""",
    pack.TEXT,
    pack.TEXT,
)

STORE = Statement(
    """
INSERT INTO deployment (id, kind, location, manifest) VALUES ($1::text, $2::text, $3::text, $4::text::jsonb)
ON CONFLICT (id) DO UPDATE SET location = excluded.location
""",
    *[pack.TEXT] * 4,
)

# Its version of the invocation protocol stays: there may be journals in it.
STORE_HTTP = Statement(
    """
INSERT INTO deployment (id, kind, location, manifest, protocol_mode, http_version, protocol_version, sdk, headers,
    metadata)
VALUES ($1::text, 'http', $2::text, $3::text::jsonb, $3::text::jsonb ->> 'protocolMode', $4::text, $5::int, $6::text,
    coalesce($7::text::jsonb, '{}'), coalesce($8::text::jsonb, '{}'))
ON CONFLICT (id) DO UPDATE SET http_version = excluded.http_version, sdk = excluded.sdk,
    headers = coalesce($7::text::jsonb, deployment.headers), metadata = coalesce($8::text::jsonb, deployment.metadata),
    edits = deployment.edits + 1
WHERE (deployment.http_version, deployment.sdk, deployment.headers, deployment.metadata) IS DISTINCT FROM
    (excluded.http_version, excluded.sdk, coalesce($7::text::jsonb, deployment.headers),
     coalesce($8::text::jsonb, deployment.metadata))
""",
    *[pack.TEXT] * 4,
    pack.INT4,
    *[pack.TEXT] * 3,
)

BEHIND_URLS = Statement(
    """
SELECT id, location, http_version, protocol_version, protocol_mode, headers::text, manifest::text FROM deployment
WHERE kind = 'http' ORDER BY created_at, id
"""
)

SERVE = Statement(
    """
INSERT INTO service (name, type, deployment, modified_at)
SELECT name, type, $1::text, clock_timestamp() FROM unnest($2::text[], $3::text[]) AS wanted (name, type)
ON CONFLICT (name) DO UPDATE SET deployment = excluded.deployment, revision = service.revision + 1,
    modified_at = excluded.modified_at
WHERE service.deployment <> excluded.deployment
""",
    pack.TEXT,
    pack.TEXTS,
    pack.TEXTS,
)

IS_KNOWN = Statement("SELECT FROM deployment WHERE id = $1::text", pack.TEXT)

# What began on it, and what would begin on it.
BOUND = Statement(
    """
SELECT count(*) FROM invocation WHERE deployment = $1::text
OR deployment IS NULL AND service IN (SELECT name FROM service WHERE service.deployment = $1::text)
""",
    pack.TEXT,
)
RETIRE = Statement("DELETE FROM service WHERE deployment = $1::text RETURNING name", pack.TEXT)
DELETE = Statement("DELETE FROM deployment WHERE id = $1::text", pack.TEXT)

# A few dozen rows: no index helps. Revisions and edits only grow, so no two registries have the same version.
VERSION = Statement(
    """
SELECT count(*) || '-' || coalesce(sum(revision), 0) || '-' || coalesce(max(modified_at), 'epoch')
       || '-' || (SELECT coalesce(sum(edits), 0) FROM service_options)
       || '-' || (SELECT coalesce(sum(edits), 0) FROM deployment)
FROM service
"""
)

SERVING = Statement(
    """
SELECT service.deployment, service.revision, described.entry::text, coalesce(said.options, '{}')::text
FROM service JOIN deployment ON deployment.id = service.deployment
LEFT JOIN service_options AS said ON said.service = service.name,
    jsonb_array_elements(deployment.manifest -> 'services') AS described (entry)
WHERE described.entry ->> 'name' = service.name
ORDER BY service.name
"""
)


KEYS = Statement("SELECT service, digest FROM ingress_key")


class RegistrationRefused(RuntimeFault):
    """This deployment does not go with what is registered, or with what is under way."""


class ServiceTypeChanged(RegistrationRefused):
    """A service was registered as something else before."""

    code = "service_type_changed"
    hint = "Its invocations and its state need the old type: give the new service another name."


class ServiceElsewhere(RegistrationRefused):
    """A service of this name is somewhere else already."""

    code = "service_elsewhere"
    hint = "Is that another service? Then give one of them another name. If it has moved, register it with force."


class HandlerNeeded(RegistrationRefused):
    """Invocations under way need a handler that this code does not have."""

    code = "handler_needed"
    hint = "Keep the handler until they have ended. With force their attempts fail, until code comes that has it."


class UrlTaken(RegistrationRefused):
    """Behind this URL there was other code before."""

    code = "url_taken"
    hint = (
        "Give the new revision a URL of its own, and let the old one run until nothing is under way on it. If the old "
        "code is gone, register with force: what is under way goes on with the new code, if its journal fits."
    )


class UnknownDeployment(RuntimeFault):
    """There is no deployment of this id."""

    code = "unknown_deployment"
    hint = "`./dev manage deployments` lists them."


class DeploymentNeeded(RuntimeFault):
    """Invocations under way need this deployment."""

    code = "deployment_needed"
    hint = "Let them end, or delete it with force: they wait until their service is registered again."


class Registered(Struct, frozen=True):
    """What a registration came to, or would come to."""

    deployment_id: str
    services: tuple[str, ...]
    is_new: bool
    """False: the deployment was known. It takes the new invocations of its services again, if it did not already."""
    warnings: tuple[str, ...] = ()
    """What would have been a reason to refuse it, had it not been forced."""


class Deleted(Struct, frozen=True):
    """A deployment that is gone."""

    deployment_id: str
    services: tuple[str, ...]
    """Those that nobody serves any more."""
    invocations: int
    """Under way, and bound to it: they wait until their service is registered again."""


class _Found(Struct):
    """What a registration meets."""

    before: list[Row] = field(default_factory=list)
    replaced: list[Row] = field(default_factory=list)
    needed: list[Row] = field(default_factory=list)
    is_known: bool = False


async def store_deployment(
    link: Link,
    *,
    id: str,
    location: str,
    manifest: Manifest,
    reached: Reached | None = None,
    force: bool = False,
    dry_run: bool = False,
    act: Act | None = None,
) -> Registered:
    """Make a deployment the one that takes new invocations of its services. Repeating it changes nothing.

    `reached`: it is behind a URL; None: its location is a module's. Raises RegistrationRefused in its kinds: then
    nothing was stored.
    """
    types = {service.name: service.ty.value for service in manifest.services}
    offered = [(service.name, handler.name) for service in manifest.services for handler in service.handlers]
    names = pack.texts(list(types))
    found = _Found()
    looking = Pipeline()
    looking.begin()
    looking.call(ONE_AT_A_TIME)
    looking.call(IS_KNOWN, id.encode(), read=lambda result: setattr(found, "is_known", result.ntuples > 0))
    looking.call(BEFORE, names, read=lambda result: found.before.extend(rows(result)))
    looking.call(
        NEEDED,
        id.encode(),
        names,
        pack.texts([service for service, _ in offered]),
        pack.texts([handler for _, handler in offered]),
        location.encode(),
        read=lambda result: found.needed.extend(rows(result)),
    )
    if reached is not None:
        looking.call(REPLACED, id.encode(), location.encode(), read=lambda result: found.replaced.extend(rows(result)))
    storing = Pipeline()
    async with whole(link):
        await link.run(looking)
        doubts = _doubts(found, id, location, types, is_module=reached is None)
        if doubts and not force:
            raise doubts[0]
        registered = Registered(id, tuple(types), not found.is_known, tuple(map(str, doubts)))
        if not dry_run:
            _store(storing, id, location, manifest, reached)
            storing.call(SERVE, id.encode(), names, pack.texts(list(types.values())))
            audit.note(storing, act, "registered" if registered.is_new else "known")
        storing.commit()
        await link.run(storing)
    return registered


def _store(pipeline: Pipeline, id: str, location: str, manifest: Manifest, reached: Reached | None) -> None:
    if reached is None:
        pipeline.call(STORE, id.encode(), b"module", location.encode(), manifest.to_json())
        return
    pipeline.call(
        STORE_HTTP,
        id.encode(),
        location.encode(),
        manifest.to_json(),
        reached.http_version.encode(),
        pack.int4(reached.protocol_version),
        None if reached.sdk is None else reached.sdk.encode(),
        None if reached.headers is None else msgspec.json.encode(reached.headers),
        None if reached.metadata is None else msgspec.json.encode(reached.metadata),
    )


def _doubts(
    found: _Found, id: str, location: str, types: Mapping[str, str], *, is_module: bool
) -> list[RegistrationRefused]:
    """What speaks against it; raises ServiceTypeChanged, which nothing forces."""
    before = [tuple(value.decode() for value in row) for row in found.before]
    if clashes := [
        f"{name!r} is registered as {type} and would become {types[name]}."
        for name, type, *_ in before
        if type != types[name]
    ]:
        raise ServiceTypeChanged(" ".join(clashes))
    elsewhere = [
        f"{name!r} is served by {place} and would move to {location}."
        for name, _, deployment, place, kind in before
        if deployment != id and place != location and (is_module or kind == "module")  # a URL more is a new revision
    ]
    needed = [
        f"{service.decode()}/{handler.decode()} is not in this code, and {counted(pack.integer(count))} it."
        for service, handler, count in found.needed
    ]
    doubts: list[RegistrationRefused] = []
    if found.replaced:
        others = ", ".join(f"{other.decode()} (begun on it: {pack.integer(count)})" for other, count in found.replaced)
        doubts.append(UrlTaken(f"{location} was registered before, and said other things of itself: {others}."))
    if elsewhere:
        doubts.append(ServiceElsewhere(" ".join(elsewhere)))
    if needed:
        doubts.append(HandlerNeeded(" ".join(needed)))
    return doubts


def counted(count: int) -> str:
    """So many invocations, before what they all do.

    >>> counted(1), counted(3)
    ('1 invocation under way needs', '3 invocations under way need')
    """
    return "1 invocation under way needs" if count == 1 else f"{count} invocations under way need"


async def delete_deployment(link: Link, id: str, *, force: bool = False, act: Act | None = None) -> Deleted:
    """Forget a deployment, and the services that it serves. What is under way stays.

    Raises UnknownDeployment; DeploymentNeeded, while something under way is bound to it, unless forced.
    """
    name = id.encode()
    known: list[int] = []
    bound: list[int] = []
    looking = Pipeline()
    looking.begin()
    looking.call(ONE_AT_A_TIME)
    looking.call(IS_KNOWN, name, read=lambda result: known.append(result.ntuples))
    looking.call(BOUND, name, read=lambda result: bound.extend(pack.integer(row[0]) for row in rows(result)))
    retired: list[str] = []
    deleting = Pipeline()
    async with whole(link):
        await link.run(looking)
        if not known[0]:
            raise UnknownDeployment(f"There is no deployment {id!r}.")
        if bound[0] and not force:
            raise DeploymentNeeded(f"{counted(bound[0])} the deployment {id}.")
        deleting.call(RETIRE, name, read=lambda result: retired.extend(row[0].decode() for row in rows(result)))
        deleting.call(DELETE, name)
        audit.note(deleting, act, "deleted")
        deleting.commit()
        await link.run(deleting)
    return Deleted(id, tuple(sorted(retired)), bound[0])


async def http_deployments(link: Link) -> list[HttpDeployment]:
    """All code behind URLs, the oldest first. It changes with the registry's version."""
    found: list[HttpDeployment] = []

    def read(result: PGresult) -> None:
        for id, url, http, version, mode, headers, manifest in rows(result):
            found.append(
                HttpDeployment(
                    id.decode(),
                    url.decode(),
                    HttpVersion(http.decode()),
                    pack.integer(version),
                    mode.decode(),
                    msgspec.json.decode(headers),
                    manifest,
                )
            )

    pipeline = Pipeline()
    pipeline.call(BEHIND_URLS, read=read)
    await link.run(pipeline)
    return found


async def load_registry(link: Link, known: Registry | None = None) -> Registry:
    """The registry as it is now; `known` itself when nothing has changed since that was loaded."""
    version = await _version(link)
    if known is not None and known.version == version:
        return known
    found: list[Sequence[bytes]] = []
    keys: dict[str, set[bytes]] = {}
    pipeline = Pipeline()
    # The version may have moved on by now: then the next look finds another one, and reads once more than it must.
    pipeline.call(SERVING, read=lambda result: found.extend(rows(result)))
    pipeline.call(KEYS, read=lambda result: _read_keys(result, keys))
    await link.run(pipeline)
    return Registry(
        [
            read_service(
                msgspec.json.decode(entry), deployment.decode(), pack.integer(revision), msgspec.json.decode(options)
            )
            for deployment, revision, entry, options in found
        ],
        version,
        {service: frozenset(digests) for service, digests in keys.items()},
    )


def _read_keys(result: PGresult, keys: dict[str, set[bytes]]) -> None:
    for service, digest in rows(result):
        keys.setdefault(service.decode(), set()).add(digest)


async def _version(link: Link) -> str:
    found: list[bytes] = []
    pipeline = Pipeline()
    pipeline.call(VERSION, read=lambda result: found.extend(row[0] for row in rows(result)))
    await link.run(pipeline)
    return found[0].decode()
