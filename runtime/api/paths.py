"""Paths with keys in them: a key may be any text, slashes and all, and is one segment of the path, percent-encoded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import quote, unquote

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import async_only_middleware
from ninja import Path
from pydantic import AfterValidator

from runtime.core.lifecycle import CommandRefused, check_key

WITH_KEYS = "/objects/"


@async_only_middleware
def whole_segments(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """Leave segments encoded where a key may be one: decoded, its slashes would be the path's."""

    async def answer(request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(WITH_KEYS):
            request.path_info = _as_sent(request)
        return await get_response(request)

    return answer


def _as_sent(request: HttpRequest) -> str:
    sent: Any = request.scope.get("raw_path") if isinstance(request, ASGIRequest) else None
    if sent is None:
        return quote(request.path_info)
    path: bytes = sent.partition(b"?")[0]  # some servers leave the query in it
    return path.decode("utf-8", "surrogateescape")


def _read(segment: str) -> str:
    try:
        text = unquote(segment, errors="strict")
        check_key(text, "It")
    except UnicodeDecodeError as error:
        raise ValueError("must be UTF-8, percent-encoded") from error
    except CommandRefused as error:
        raise ValueError(str(error).removeprefix("It ").rstrip(".")) from error
    return text


Service = Annotated[str, Path(), AfterValidator(_read)]
Key = Annotated[str, Path(description="Of an object: any text, percent-encoded."), AfterValidator(_read)]
