"""What the API answers to what it refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.utils.decorators import async_only_middleware
from ninja import Schema

PAGES = "/ui/"


class Problem(Schema):
    """Why a request was refused."""

    message: str
    restate_code: str | None = None
    where: str | None = None
    """What is not as it must be, the first of it: as in `body.filter.key`, `query.limit`, `path.id`."""


def misfit(errors: Iterable[Mapping[str, Any]]) -> Problem:
    """What a request has that does not fit its operation: pydantic's findings, in sentences of ours."""
    sentences: dict[str, str] = {}
    for error in errors:
        source, *path = _place(*error["loc"])
        name = ".".join(map(str, path))
        what = f"`{name}` in the {source}" if path else f"The {source}"
        sentences.setdefault(".".join(map(str, (source, *path))), f"{what} {_finding(error)}.")
    return Problem(message=" ".join(sentences.values()), where=next(iter(sentences), None))


def _place(source: str, *path: str | int) -> tuple[str | int, ...]:
    """As the request has it: without what our functions call a body, nor a place in a list of parameters."""
    if source == "body":
        return (source, *path[1:])
    return (source, *[part for part in path if isinstance(part, str)][-1:])


# By the beginning of pydantic's name for it: the first that fits.
FINDINGS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "has a character that is not allowed here, as NUL is",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} characters at most",
    "string_unicode": "must be valid Unicode (it holds a lone surrogate)",
    "string": "must be a text",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a number",
    "bool": "must be true or false",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have {max_length} items at most",
    "date": "must be a time with a time zone, as in 2030-01-31T08:00:00Z",
    "timezone": "must be a time with a time zone, as in 2030-01-31T08:00:00Z",
    "uuid": "must be a UUID",
    "list": "must be a list",
    "tuple": "must be a list",
    "dict": "must be a JSON object",
    "model": "must be a JSON object",
    "value_error": "{error}",
}


def _finding(error: Mapping[str, Any]) -> str:
    for beginning, words in FINDINGS.items():
        if str(error["type"]).startswith(beginning):
            return words.format(**error.get("ctx", {}))
    return f"is not as it must be: {error['msg']}"


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
    """Django's answer to a path that nobody has; below /ui/ the dashboard has a page for these."""
    message = f"There is nothing at {request.path}. GET /openapi says what there is."
    return JsonResponse({"message": message, "restate_code": None}, status=404)
