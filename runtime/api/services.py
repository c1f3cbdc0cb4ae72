"""Services and their handlers: what they offer, what is set on them, and how callers describe them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Body, Router, Schema

from runtime import hall
from runtime.api.guard import actor, admin, touch, viewer
from runtime.api.names import Name
from runtime.api.parameters import Duration
from runtime.api.problems import Problem
from runtime.core import openapi
from runtime.core.audit import Act
from runtime.core.delays import write_delay
from runtime.core.options import read_options, write_options
from runtime.core.registry import HandlerInfo, UnknownHandler, UnknownService
from runtime.reading import services
from runtime.reading.services import Served
from runtime.store.options import set_options

router = Router(tags=["services"])


class Settings(Schema):
    """How its invocations are kept and tried again. Durations are as in `1h 30m`."""

    public: bool
    """Whether callers outside reach it."""
    idempotency_retention: str
    journal_retention: str
    inactivity_timeout: str | None
    """How long a waiting handler stays in memory; null: as long as engines think fit."""
    abort_timeout: str | None
    retry_initial_interval: str
    retry_factor: float
    retry_max_interval: str
    retry_max_attempts: int | None
    """Null: without end."""
    retry_on_max_attempts: str
    queue: str
    state_history: bool
    """Whether what its handlers do to an object's values is written down."""
    deadlock_policy: str
    """Only kept for now: nothing is done about deadlocks yet."""

    @staticmethod
    def fields_of(handler: HandlerInfo) -> dict[str, Any]:
        retry = handler.retry
        return {
            "public": handler.is_public,
            "idempotency_retention": write_delay(handler.idempotency_retention * 1000),
            "journal_retention": write_delay(handler.retention * 1000),
            "inactivity_timeout": None if handler.inactivity_ms is None else write_delay(handler.inactivity_ms),
            "abort_timeout": None if handler.abort_ms is None else write_delay(handler.abort_ms),
            "retry_initial_interval": write_delay(retry.initial_ms),
            "retry_factor": retry.factor,
            "retry_max_interval": write_delay(retry.max_ms),
            "retry_max_attempts": retry.max_attempts,
            "retry_on_max_attempts": retry.on_max_attempts.lower(),
            "queue": handler.queue,
            "state_history": handler.keeps_history,
            "deadlock_policy": handler.deadlocks,
        }


class NamedHandler(Schema):
    name: str
    ty: str | None
    """EXCLUSIVE or SHARED; null in a service that is no object."""
    documentation: str | None


class Handler(Settings, NamedHandler):
    input_json_schema: Any = None
    output_json_schema: Any = None

    @classmethod
    def of(cls, handler: HandlerInfo) -> Handler:
        return cls(
            name=handler.name,
            ty=handler.mode.upper() if handler.is_keyed else None,
            documentation=handler.documentation or None,
            input_json_schema=handler.input.get("jsonSchema"),
            output_json_schema=handler.output.get("jsonSchema"),
            **cls.fields_of(handler),
        )


class Handlers(Schema):
    handlers: list[Handler]


class NamedService(Schema):
    name: str
    ty: str
    """SERVICE, VIRTUAL_OBJECT or WORKFLOW."""
    documentation: str | None
    deployment_id: str
    revision: int
    modified_at: datetime
    location: str
    """Where its code is: module:attribute, or a URL."""
    loaded: bool
    """Whether a living engine has its code; without one, what is invoked waits."""


class Service(Settings, NamedService):
    """Its settings hold for handlers that say nothing of their own; `public`: whether any of them is."""

    set: dict[str, Any]
    """What operators have set; it goes before what the code says."""
    handlers: list[Handler]

    @classmethod
    def of(cls, served: Served) -> Service:
        info = served.info
        said = cls.fields_of(served.common)
        said["public"] = any(handler.is_public for handler in info.handlers.values())
        return cls(
            name=info.name,
            ty=info.type,
            handlers=[Handler.of(handler) for handler in info.handlers.values()],
            deployment_id=info.deployment,
            revision=info.revision,
            documentation=info.documentation or None,
            location=served.location,
            loaded=served.is_loaded,
            modified_at=served.modified_at,
            set=write_options(info.options),
            **said,
        )


class ChangedService(Service):
    warnings: list[str]
    """What is still to be done for it to take effect."""


class Services(Schema):
    services: list[Service]


class Change(Schema, extra="forbid"):
    """Options to set, null to take one back: then what the code says holds again. Others stay as they are."""

    public: bool | None = None
    idempotency_retention: Duration | None = None
    """Durations are as in `1h 30m`, `PT60S`, or milliseconds."""
    journal_retention: Duration | None = None
    inactivity_timeout: Duration | None = None
    abort_timeout: Duration | None = None
    retry_initial_interval: Duration | None = None
    retry_factor: float | None = None
    retry_max_interval: Duration | None = None
    retry_max_attempts: int | None = None
    retry_on_max_attempts: str | None = None
    """`pause` or `kill`."""
    queue: str | None = None
    state_history: bool | None = None
    deadlock_policy: str | None = None
    """`report`, `refuse` or `cancel-youngest`. Only kept for now: nothing is done about deadlocks yet."""


@router.get("/services", response={200: Services, 503: Problem}, auth=viewer.scoped, summary="All services")
async def list_services(request: HttpRequest) -> Any:
    by = actor(request)
    return {"services": [Service.of(one) for one in await services.services() if by.may_touch(one.info.name)]}


@router.get(
    "/services/{name}",
    response={200: Service, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="One service",
)
async def get_service(request: HttpRequest, name: Name) -> Any:
    await touch(request, name)
    return Service.of(await _served(name))


@router.patch(
    "/services/{name}",
    response={200: ChangedService, 400: Problem, 404: Problem, 503: Problem},
    auth=admin,
    summary="Set options of a service, or take them back",
)
async def change_service(request: HttpRequest, name: Name, change: Body[Change]) -> Any:
    """What is set goes before what the code says, of the service and of its handlers, also after it is registered anew.

    Engines and ingresses follow within a second. What has begun keeps its queue; retry policy and time-outs hold from
    an invocation's next attempt on. `deadlock_policy` is only kept for now.
    """
    said = change.dict(exclude_unset=True)
    manifest = read_options(said)
    act = Act(actor(request), "service.set", name, said)
    here = await hall.operations()
    await here.run(lambda link: set_options(link, name, manifest, act))
    service = Service.of(await _served(name))
    return ChangedService(**service.dict(), warnings=await _unserved(service.queue))


@router.get(
    "/services/{name}/handlers",
    response={200: Handlers, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="The handlers of a service",
)
async def list_handlers(request: HttpRequest, name: Name) -> Any:
    await touch(request, name)
    return {"handlers": [Handler.of(handler) for handler in (await _served(name)).info.handlers.values()]}


@router.get(
    "/services/{name}/handlers/{handler}",
    response={200: Handler, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="One handler of a service",
)
async def get_handler(request: HttpRequest, name: Name, handler: Name) -> Any:
    await touch(request, name)
    info = (await _served(name)).info.handlers.get(handler)
    if info is None:
        raise UnknownHandler(f"The service {name!r} has no handler {handler!r}.")
    return Handler.of(info)


@router.get(
    "/services/{name}/openapi",
    response={200: dict[str, Any], 400: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="How callers call it, as OpenAPI",
)
async def describe_service(request: HttpRequest, name: Name) -> Any:
    """The document that the ingress serves at /restate/openapi/{service}: its public handlers, as calls and sends."""
    await touch(request, name)
    served = await _served(name)
    return openapi.describe(served.info, has_keys=bool(await services.keys(name)))


async def _unserved(queue: str) -> list[str]:
    if await services.is_served(queue):
        return []
    return [f"No engine serves the queue {queue!r}: what is invoked waits there. Engines serve PERDURE_QUEUES."]


async def _served(name: str) -> Served:
    """Raises UnknownService."""
    served = await services.service(name)
    if served is None:
        raise UnknownService(f"There is no service {name!r}.")
    return served
