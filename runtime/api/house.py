"""The house: whether it stands, and which Perdure it is."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from runtime import __version__

ADMIN_API_VERSION = 3  # of Restate's API, whose paths and codes these are

router = Router(tags=["house"])


class Health(Schema):
    status: str


class Version(Schema):
    version: str
    min_admin_api_version: int
    max_admin_api_version: int
    features: dict[str, Any]


@router.get("/health", response=Health, auth=None, summary="Whether this process answers")
async def health(request: HttpRequest) -> Any:
    """Of the database it says nothing, or a pause there would restart this process."""
    return {"status": "ok"}


@router.get("/version", response=Version, auth=None, summary="Which Perdure this is")
async def version(request: HttpRequest) -> Any:
    return {
        "version": __version__,
        "min_admin_api_version": ADMIN_API_VERSION,
        "max_admin_api_version": ADMIN_API_VERSION,
        "features": {},
    }
