"""The house: whether it stands, and which Perdure it is."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status

from runtime import __version__
from runtime.api.guard import viewer
from runtime.conf import settings
from runtime.reading import health as looks
from runtime.reading.health import Condition

ADMIN_API_VERSION = 3  # of Restate's API, whose paths and codes these are

router = Router(tags=["house"])


class Health(Schema):
    status: str


class Part(Schema):
    name: str
    status: Condition
    message: str
    hint: str
    """What to do, when it is not well."""
    milliseconds: float
    """How long the look took."""

    @classmethod
    def of(cls, part: looks.Part) -> Part:
        found = part.finding
        return cls(
            name=part.name,
            status=found.condition,
            message=found.words,
            hint=found.hint,
            milliseconds=part.milliseconds,
        )


class Parts(Schema):
    status: Condition
    """The worst of them."""
    parts: list[Part]


class Version(Schema):
    version: str
    min_admin_api_version: int
    max_admin_api_version: int
    features: dict[str, Any]


@router.get("/health", response=Health, auth=None, summary="Whether this process answers")
async def health(request: HttpRequest) -> Any:
    """Of the database it says nothing, or a pause there would restart this process."""
    return {"status": "ok"}


@router.get(
    "/health/parts",
    response={200: Parts, 503: Parts},
    auth=viewer,
    summary="How it stands with each part that Perdure needs",
)
async def health_of_parts(request: HttpRequest) -> Any:
    """Database, engines, what waits in queues and in the outbox, broker and channel layer.

    503 when one of them is down, so that what needs it stands still. It opens connections of its own: every few
    seconds is often enough. Whether to restart this process is what `/health` is for.
    """
    parts = await looks.parts(settings())
    worst = looks.overall(parts)
    answer = Parts(status=worst, parts=[Part.of(part) for part in parts])
    return Status(503 if worst is Condition.DOWN else 200, answer)


@router.get("/version", response=Version, auth=None, summary="Which Perdure this is")
async def version(request: HttpRequest) -> Any:
    return {
        "version": __version__,
        "min_admin_api_version": ADMIN_API_VERSION,
        "max_admin_api_version": ADMIN_API_VERSION,
        "features": {},
    }
