"""Registering: an endpoint that was found becomes the one that takes the new invocations of its services."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.protocol.manifest import Manifest
from runtime.core.access import Actor
from runtime.core.audit import Act
from runtime.discovery import Discovered, discover, parse_location
from runtime.errors import RuntimeFault
from runtime.store import deployments
from runtime.store.deployments import Registered
from runtime.store.link import Link


class NameClash(RuntimeFault):
    """Two of these endpoints have a service of the same name."""

    code = "name_clash"
    hint = "Give one of the services another name, by name=."


class NotListed(RuntimeFault):
    """Over HTTP only those endpoints are registered that the process was started with."""

    code = "not_listed"
    hint = (
        "Start it with ./dev up --services MODULE:APP,... or name it in PERDURE_MODULES; "
        "`./dev manage register MODULE:APP` takes any."
    )


async def register(
    found: Discovered, link: Link, *, by: Actor | None = None, force: bool = False, dry_run: bool = False
) -> Registered:
    """Register an endpoint: from now on it takes the new invocations of its services.

    Repeating it changes nothing. Raises RegistrationRefused in its kinds.
    """
    act = None if by is None else Act(by, "deployment.register", found.id, {"location": found.location, "force": force})
    return await deployments.store_deployment(
        link,
        id=found.id,
        location=found.location,
        manifest=Manifest.from_json(found.manifest),
        force=force,
        dry_run=dry_run,
        act=act,
    )


async def register_module(location: str, link: Link) -> Registered:
    """Register the Endpoint at `package.module:attribute`; raises as `discover` and `register`."""
    return await register(discover(location), link)


def check_apart(found: Sequence[Discovered]) -> None:
    """Raises NameClash for endpoints that would take each other's services."""
    owners: dict[str, str] = {}
    for one in found:
        for service in Manifest.from_json(one.manifest).services:
            other = owners.setdefault(service.name, one.location)
            if other != one.location:
                raise NameClash(f"{other} and {one.location} both have a service {service.name!r}.")


def check_listed(location: str, listed: Sequence[str]) -> None:
    """Raises LocationError for what is no location, NotListed for one that may not be registered."""
    parse_location(location)
    if location not in listed:
        raise NotListed(f"{location} is not among the endpoints that may be registered here: {', '.join(listed)}.")
