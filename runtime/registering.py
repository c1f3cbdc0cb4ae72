"""Registering: an endpoint that was found becomes the one that takes the new invocations of its services."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from perdure.protocol.manifest import Manifest
from runtime.conf import Settings
from runtime.core.access import Actor
from runtime.core.audit import Act
from runtime.core.deployments import NEWEST_PROTOCOL, HttpDeployment, HttpVersion
from runtime.discovery import Discovered, discover, parse_location
from runtime.errors import RuntimeFault
from runtime.outbound import Guard, OutboundError, Peer
from runtime.outbound.discovery import PATIENCE, discover_url
from runtime.outbound.identity import Identity
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


class BadHeader(RuntimeFault):
    """This cannot be sent as a header, or is not for operators to set."""

    code = "bad_header"
    hint = "A header has a name of letters, digits and dashes, and a value of printable ASCII."


class Wanted(Struct, frozen=True):
    """How a URL is to be asked, now and later."""

    uses_http_11: bool = False
    """Speak HTTP/1.1 and nothing else; otherwise what works is found out."""
    headers: Mapping[str, str] | None = None
    """Sent with every request: they may be secrets. None: of known code, those that are kept of it already."""
    metadata: Mapping[str, str] | None = None
    newest: int = NEWEST_PROTOCOL
    """The newest version of the invocation protocol to choose."""


async def find(url: str, wanted: Wanted, settings: Settings, *, patience: float = PATIENCE) -> Discovered:
    """What is behind a URL; raises BadHeader, and OutboundError in its kinds."""
    headers = checked_headers(wanted.headers)
    guard, identity = Guard.of(settings), Identity.of(settings)

    def ask(http: HttpVersion) -> Peer:
        return Peer(url, http=http, guard=guard, headers=headers, identity=identity)

    return await discover_url(
        ask,
        http=HttpVersion.HTTP_1_1 if wanted.uses_http_11 else None,
        headers=headers,
        metadata=wanted.metadata,
        newest=wanted.newest,
        is_signed=identity is not None,
        patience=patience,
    )


async def ask_again(deployment: HttpDeployment, settings: Settings) -> None:
    """Raises OutboundError when it is not as it was when it was registered."""
    wanted = Wanted(deployment.http_version is HttpVersion.HTTP_1_1, deployment.headers)
    found = await find(deployment.url, wanted, settings, patience=0)
    if found.id != deployment.id:
        raise UrlChanged(f"{deployment.url} has other services, handlers or options than were registered.")


class UrlChanged(OutboundError):
    """Behind this URL there is other code than was registered."""

    code = "url_changed"
    hint = "Put the old code back, and register the new one behind a URL of its own; or register it with force."


def checked_headers(said: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Headers as they are sent, their names in lower case; raises BadHeader, which tells no value.

    >>> checked_headers({"Authorization": "Bearer x"})
    {'authorization': 'Bearer x'}
    """
    if said is None:
        return None
    if len(said) > MOST_HEADERS:
        raise BadHeader(f"{len(said)} headers are too many: {MOST_HEADERS} are the most.")
    headers: dict[str, str] = {}
    for name, value in said.items():
        lower = name.lower()
        if not NAME.fullmatch(lower):
            raise BadHeader(f"{name[:100]!r} is not the name of a header.")
        if lower in OURS or lower.startswith("x-restate-"):
            raise BadHeader(f"The header {lower!r} is Perdure's own to send.")
        if not VALUE.fullmatch(value):
            raise BadHeader(f"The value of the header {lower!r} cannot be sent.")
        if lower in headers:
            raise BadHeader(f"The header {lower!r} is there twice.")
        headers[lower] = value
    return headers


MOST_HEADERS = 32
NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}")
VALUE = re.compile(r"[!-~](?:[ !-~]{0,4094}[!-~])?")
OURS = frozenset(
    (
        *("accept", "connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer"),
        *("proxy-connection", "traceparent", "tracestate", "transfer-encoding", "upgrade"),
    )
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
        reached=found.reached,
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
