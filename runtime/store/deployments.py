"""The registry's rows: which deployments there are, and which of them takes the new invocations of each service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field
from psycopg.pq.abc import PGresult

from perdure.protocol.manifest import Manifest
from runtime.core.audit import Act
from runtime.core.registry import Registry, read_service
from runtime.errors import RuntimeFault
from runtime.store import audit, pack
from runtime.store.link import Link, Pipeline, Row, Statement, rows, whole

# One change at a time, so that whoever sees a later change of a service has seen all earlier ones.
ONE_AT_A_TIME = Statement("SELECT pg_advisory_xact_lock(hashtext('perdure registry'))")

BEFORE = Statement(
    """
SELECT service.name, service.type, deployment.id, deployment.location
FROM service JOIN deployment ON deployment.id = service.deployment WHERE service.name = ANY ($1::text[])
ORDER BY service.name
""",
    pack.TEXTS,
)

# What is under way of handlers that the new code does not have; a dot is in the names of the runtime's own only.
# A walk over all that lives: registering is rare.
NEEDED = Statement(
    """
SELECT invocation.service, invocation.handler, count(*) FROM invocation
JOIN service ON service.name = invocation.service AND service.deployment <> $1::text
WHERE invocation.service = ANY ($2::text[]) AND position('.' IN invocation.handler) = 0
AND (invocation.service, invocation.handler) NOT IN (
    SELECT service, handler FROM unnest($3::text[], $4::text[]) AS offered (service, handler)
)
GROUP BY invocation.service, invocation.handler ORDER BY invocation.service, invocation.handler
""",
    pack.TEXT,
    pack.TEXTS,
    pack.TEXTS,
    pack.TEXTS,
)

# xmax is 0 in a row that was not there before.
STORE = Statement(
    """
INSERT INTO deployment (id, kind, location, manifest) VALUES ($1::text, $2::text, $3::text, $4::text::jsonb)
ON CONFLICT (id) DO UPDATE SET location = excluded.location
RETURNING xmax = 0
""",
    *[pack.TEXT] * 4,
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
    needed: list[Row] = field(default_factory=list)
    is_known: bool = False


async def store_deployment(
    link: Link,
    *,
    id: str,
    kind: str,
    location: str,
    manifest: Manifest,
    force: bool = False,
    dry_run: bool = False,
    act: Act | None = None,
) -> Registered:
    """Make a deployment the one that takes new invocations of its services. Repeating it changes nothing.

    Raises RegistrationRefused in its kinds: nothing was stored.
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
        read=lambda result: found.needed.extend(rows(result)),
    )
    storing = Pipeline()
    async with whole(link):
        await link.run(looking)
        doubts = _doubts(found, id, location, types)
        if doubts and not force:
            raise doubts[0]
        registered = Registered(id, tuple(types), not found.is_known, tuple(map(str, doubts)))
        if not dry_run:
            storing.call(STORE, id.encode(), kind.encode(), location.encode(), manifest.to_json())
            storing.call(SERVE, id.encode(), names, pack.texts(list(types.values())))
            audit.note(storing, act, "registered" if registered.is_new else "known")
        storing.commit()
        await link.run(storing)
    return registered


def _doubts(found: _Found, id: str, location: str, types: Mapping[str, str]) -> list[RegistrationRefused]:
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
        for name, _, deployment, place in before
        if deployment != id and place != location
    ]
    needed = [
        f"{service.decode()}/{handler.decode()} is not in this code, and {counted(pack.integer(count))} it."
        for service, handler, count in found.needed
    ]
    doubts: list[RegistrationRefused] = []
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
