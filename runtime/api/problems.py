"""What the API answers to what it refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.utils.decorators import async_only_middleware
from django.views.defaults import page_not_found
from ninja import Schema

PAGES = "/ui/"


class Problem(Schema):
    """Why a request was refused."""

    message: str
    restate_code: str | None = None


@async_only_middleware
def methods_in_words(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """Say in JSON which methods a path has, as all that is refused to programs is."""

    async def answer(request: HttpRequest) -> HttpResponseBase:
        response = await get_response(request)
        if not isinstance(response, HttpResponseNotAllowed) or request.path.startswith(PAGES):
            return response
        allowed = ", ".join(sorted(response.headers["Allow"].split(", ")))
        message = f"{request.path} does not take {request.method}, only {allowed}. GET /openapi says what there is."
        return JsonResponse({"message": message, "restate_code": None}, status=405, headers={"Allow": allowed})

    return answer


def unknown_path(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Django's answer to a path that nobody has: a page for people below /ui/, JSON for programs elsewhere."""
    if request.path.startswith(PAGES):
        return page_not_found(request, exception)
    message = f"There is nothing at {request.path}. GET /openapi says what there is."
    return JsonResponse({"message": message, "restate_code": None}, status=404)
