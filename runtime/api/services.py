"""Services and their handlers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status

from runtime.api.guard import viewer
from runtime.api.names import Name
from runtime.api.problems import Problem
from runtime.core.registry import HandlerInfo
from runtime.reading import services
from runtime.reading.services import Served

router = Router(tags=["services"])


class Handler(Schema):
    name: str
    ty: str | None
    """EXCLUSIVE or SHARED; null in a service that is no object."""
    public: bool
    documentation: str | None
    input_json_schema: Any = None
    output_json_schema: Any = None

    @classmethod
    def of(cls, handler: HandlerInfo) -> Handler:
        return cls(
            name=handler.name,
            ty=handler.mode.upper() if handler.is_keyed else None,
            public=handler.is_public,
            documentation=handler.documentation or None,
            input_json_schema=handler.input.get("jsonSchema"),
            output_json_schema=handler.output.get("jsonSchema"),
        )


class Service(Schema):
    name: str
    ty: str
    """SERVICE, VIRTUAL_OBJECT or WORKFLOW."""
    handlers: list[Handler]
    deployment_id: str
    revision: int
    public: bool
    """Whether callers outside reach any of its handlers."""
    documentation: str | None
    location: str
    """Where its code is: module:attribute, or a URL."""
    loaded: bool
    """Whether a living engine has its code; without one, what is invoked waits."""
    modified_at: datetime

    @classmethod
    def of(cls, served: Served) -> Service:
        info = served.info
        return cls(
            name=info.name,
            ty=info.type,
            handlers=[Handler.of(handler) for handler in info.handlers.values()],
            deployment_id=info.deployment,
            revision=info.revision,
            public=any(handler.is_public for handler in info.handlers.values()),
            documentation=info.documentation or None,
            location=served.location,
            loaded=served.is_loaded,
            modified_at=served.modified_at,
        )


class Services(Schema):
    services: list[Service]


@router.get("/services", response={200: Services, 503: Problem}, auth=viewer, summary="All services")
async def list_services(request: HttpRequest) -> Any:
    return {"services": [Service.of(served) for served in await services.services()]}


@router.get(
    "/services/{name}",
    response={200: Service, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer,
    summary="One service",
)
async def get_service(request: HttpRequest, name: Name) -> Any:
    served = await services.service(name)
    if served is None:
        return Status(404, Problem(message=f"There is no service {name!r}."))
    return Service.of(served)
