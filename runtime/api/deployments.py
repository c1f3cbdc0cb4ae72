"""Deployments: the code that takes invocations; registered, listed, deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from ninja import Field, Router, Schema, Status

from runtime import hall
from runtime.api.guard import actor, admin, viewer
from runtime.api.names import Name
from runtime.api.problems import Problem
from runtime.api.services import Handler
from runtime.conf import settings
from runtime.core.audit import Act
from runtime.core.deployments import NEWEST_PROTOCOL, OLDEST_PROTOCOL
from runtime.core.registry import ServiceInfo
from runtime.discovery import Discovered, discover_apart
from runtime.reading import deployments
from runtime.reading.deployments import Known
from runtime.registering import Wanted, check_listed, find, register
from runtime.store import deployments as store
from runtime.store.deployments import UnknownDeployment

router = Router(tags=["deployments"])

NO_ENGINE = "No engine lives: what is invoked waits until one does."
NOT_LOADED = (
    "No engine has loaded this code: what is invoked waits until one has. Engines load it when they start, "
    "if it is among their --services."
)


Noted = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]


class Offer(Schema):
    """A service as a deployment has it."""

    name: str
    ty: str
    revision: int | None
    """Null: another deployment takes its new invocations."""
    handlers: list[Handler]

    @classmethod
    def of(cls, info: ServiceInfo, *, is_current: bool) -> Offer:
        return cls(
            name=info.name,
            ty=info.type,
            revision=info.revision if is_current else None,
            handlers=[Handler.of(handler) for handler in info.handlers.values()],
        )


class Deployment(Schema):
    id: str
    ty: str
    """`module`: code in the engines' own processes; `http`: code behind a URL."""
    location: str
    """Where its code is: module:attribute, or a URL."""
    uri: str | None
    """Of code behind a URL, as are those that follow."""
    http_version: str | None
    """HTTP/2 or HTTP/1.1."""
    protocol_version: int | None
    """Of the invocation protocol, in which it is driven for ever."""
    protocol_mode: str | None
    """BIDI_STREAM or REQUEST_RESPONSE."""
    sdk_version: str | None
    metadata: dict[str, str]
    created_at: datetime
    min_protocol_version: int
    max_protocol_version: int
    loaded: bool
    """Whether a living engine has its code, or drives it; without one, what is bound to it waits."""
    services: list[Offer]

    @classmethod
    def of(cls, known: Known) -> Deployment:
        behind = known.reached
        return cls(
            uri=known.location if behind else None,
            http_version=behind.http_version if behind else None,
            protocol_version=behind.protocol_version if behind else None,
            protocol_mode=behind.protocol_mode if behind else None,
            sdk_version=behind.sdk if behind else None,
            metadata=dict(behind.metadata) if behind else {},
            id=known.id,
            ty=known.kind,
            location=known.location,
            created_at=known.created_at,
            min_protocol_version=known.min_protocol_version,
            max_protocol_version=known.max_protocol_version,
            loaded=known.is_loaded,
            services=[Offer.of(info, is_current=info.name in known.serves) for info in known.offers],
        )


class Deployments(Schema):
    deployments: list[Deployment]


class DeploymentDetail(Deployment):
    invocations: int
    """Under way, and bound to it: begun on it, or about to."""
    draining: bool
    """It takes nothing new any more, and some are still under way on it."""


class Registration(Schema, extra="forbid"):
    """What to register: code behind a URL, or a module of this installation."""

    uri: str | None = None
    """Where the service listens, as in `http://greeter.internal:9080`."""
    use_http_11: bool = False
    """Speak HTTP/1.1 with it; otherwise HTTP/2 is tried first."""
    additional_headers: dict[str, str] | None = None
    """Sent to it with every request, now and later. They are never shown again. Null: those that are kept already."""
    metadata: Annotated[dict[Noted, Noted], Field(max_length=64)] | None = None
    """What else to remember of it."""
    max_protocol_version: Annotated[int, Field(ge=OLDEST_PROTOCOL, le=NEWEST_PROTOCOL)] = NEWEST_PROTOCOL
    """The newest version of the invocation protocol to drive it in."""
    module: str | None = None
    """`package.module:attribute`, where the attribute is an Endpoint."""
    force: bool = False
    """Also when other code was behind the URL before, a service moves here from a module, or a handler is gone that
    invocations under way need."""
    breaking: bool = False
    """Restate's word for it."""
    dry_run: bool = False
    """Check everything, store nothing."""


class Registered(Deployment):
    dry_run: bool
    warnings: list[str]
    """What was forced, and what is still to be done."""


class Deleted(Schema):
    id: str
    services: list[str]
    """Those that nobody serves any more."""
    invocations: int
    """Under way and bound to it: they wait until their service is registered again."""


@router.post(
    "/deployments",
    response={
        200: Registered, 201: Registered,
        400: Problem, 403: Problem, 409: Problem, 502: Problem, 503: Problem,
    },
    auth=admin,
    summary="Register an endpoint",
)  # fmt: skip
async def register_deployment(request: HttpRequest, wanted: Registration, response: HttpResponse) -> Any:
    """From now on it takes the new invocations of its services. 201: it is new; 200: it was known, or a dry run.

    What is behind a URL is asked what it can do: over HTTP/2, else over HTTP/1.1. It must be at an address that
    PERDURE_DEPLOYMENT_ADDRESSES allows. 502: nobody answers there, or not as a deployment does.

    A module must be among PERDURE_SERVICES, those that the processes were started with, or PERDURE_MODULES. It is
    imported by a process of its own, as it is on disk now. Engines load code when they start.
    """
    if (wanted.uri is None) == (wanted.module is None):
        return Status(400, Problem(message='Name the endpoint: {"uri": "http://…"}, or {"module": "…:…"}.'))
    found = await _found(wanted)
    here = await hall.operations()
    by, force = actor(request), wanted.force or wanted.breaking
    done = await here.run(lambda link: register(found, link, by=by, force=force, dry_run=wanted.dry_run))
    known = None if wanted.dry_run else await deployments.deployment(found.id)
    if known is None:
        known = await deployments.preview(found)
    idle = NOT_LOADED if found.reached is None else NO_ENGINE
    warnings = [*done.warnings, *([] if known.is_loaded else [idle])]
    answer = Registered(**Deployment.of(known).dict(), dry_run=wanted.dry_run, warnings=warnings)
    if wanted.dry_run:
        return Status(200, answer)
    response["location"] = f"deployments/{known.id}"
    return Status(201 if done.is_new else 200, answer)


async def _found(wanted: Registration) -> Discovered:
    if wanted.uri is not None:
        how = Wanted(wanted.use_http_11, wanted.additional_headers, wanted.metadata, wanted.max_protocol_version)
        return await find(wanted.uri, how, settings())
    assert wanted.module is not None
    check_listed(wanted.module, [*settings().services, *settings().modules])
    return await discover_apart(wanted.module)


@router.get("/deployments", response={200: Deployments, 503: Problem}, auth=viewer, summary="All deployments")
async def list_deployments(request: HttpRequest) -> Any:
    """The newest first."""
    return {"deployments": [Deployment.of(known) for known in await deployments.deployments()]}


@router.get(
    "/deployments/{id}",
    response={200: DeploymentDetail, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer,
    summary="One deployment, and how many invocations are bound to it",
)
async def get_deployment(request: HttpRequest, id: Name) -> Any:
    known = await deployments.deployment(id)
    if known is None:
        raise UnknownDeployment(f"There is no deployment {id!r}.")
    count = await deployments.bound(id)
    return DeploymentDetail(**Deployment.of(known).dict(), invocations=count, draining=count > 0 and not known.serves)


@router.delete(
    "/deployments/{id}",
    response={202: Deleted, 400: Problem, 404: Problem, 409: Problem, 503: Problem},
    auth=admin,
    summary="Forget a deployment, and the services that it serves",
)
async def delete_deployment(request: HttpRequest, id: Name, force: bool = False) -> Any:
    """Refused with 409 and a count while invocations under way are bound to it, unless forced.

    Nothing of theirs is lost: they go on while engines have the code, else they wait until it is registered again.
    """
    act = Act(actor(request), "deployment.delete", id, {"force": force})
    here = await hall.operations()
    deleted = await here.run(lambda link: store.delete_deployment(link, id, force=force, act=act))
    return Status(
        202,
        Deleted(id=deleted.deployment_id, services=list(deleted.services), invocations=deleted.invocations),
    )
