"""What the API answers, as its OpenAPI document describes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ninja import Schema

from runtime.core.registry import HandlerInfo
from runtime.reading.invocations import Detail, Summary
from runtime.reading.services import Served


class Problem(Schema):
    """Why a request was refused."""

    message: str
    restate_code: str | None = None


class Health(Schema):
    status: str


class Version(Schema):
    version: str
    min_admin_api_version: int
    max_admin_api_version: int
    features: dict[str, Any]


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
            modified_at=served.modified_at,
        )


class Services(Schema):
    services: list[Service]


class Failure(Schema):
    """Why an invocation failed, or why its last attempt did."""

    code: int
    message: str = ""
    stacktrace: str | None = None
    command: int | None = None
    """The index of the command that the failure is about."""
    name: str | None = None
    type: int | None = None


class Invocation(Schema):
    id: str
    target: str
    service: str
    handler: str
    key: str | None
    status: str
    outcome: str | None
    created_at: datetime
    modified_at: datetime
    completed_at: datetime | None
    deployment_id: str | None
    idempotency_key: str | None
    invoked_by_id: str | None
    due_at: datetime | None
    retry_count: int
    failure: Failure | None

    @classmethod
    def of(cls, summary: Summary) -> Invocation:
        return cls.from_orm(summary)


class Invocations(Schema):
    invocations: list[Invocation]


class Entry(Schema):
    index: int
    type: str
    name: str
    completed: bool | None
    details: dict[str, Any]


class InvocationDetail(Invocation):
    journal: list[Entry]

    @classmethod
    def of_detail(cls, detail: Detail) -> InvocationDetail:
        return cls(**Invocation.of(detail.summary).dict(), journal=[Entry.from_orm(entry) for entry in detail.journal])


class Told(Schema):
    """What came of it: `done`, it has ended; `asked`, whoever drives it will end it."""

    id: str
    verdict: str
