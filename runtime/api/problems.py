"""What the API answers to what it refuses."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.defaults import page_not_found
from ninja import Schema


class Problem(Schema):
    """Why a request was refused."""

    message: str
    restate_code: str | None = None


def unknown_path(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Django's answer to a path that nobody has: a page for people below /ui/, JSON for programs elsewhere."""
    if request.path.startswith("/ui/"):
        return page_not_found(request, exception)
    message = f"There is nothing at {request.path}. GET /openapi says what there is."
    return JsonResponse({"message": message, "restate_code": None}, status=404)
