"""The guard of the web process: what a browser sends on behalf of a page from elsewhere is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.decorators import async_only_middleware

SAFE = ("GET", "HEAD", "OPTIONS")


@async_only_middleware
def same_origin(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """Refuse what would change something, unless it comes from our own pages or from no page at all."""

    async def answer(request: HttpRequest) -> HttpResponseBase:
        # On reading too: a page from elsewhere may have had its own name pointed at us.
        try:
            host = request.get_host()
        except DisallowedHost:
            return _refuse(400, "This server does not go by that name: ALLOWED_HOSTS lists the names it has.")
        origin = request.headers.get("Origin")
        if request.method not in SAFE and origin is not None and urlsplit(origin).netloc != host:
            return _refuse(403, f"A page from {origin} may not change anything here.")
        return await get_response(request)

    return answer


def _refuse(status: int, message: str) -> HttpResponseBase:
    return JsonResponse({"message": message, "restate_code": None}, status=status)
