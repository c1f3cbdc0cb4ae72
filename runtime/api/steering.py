"""Invocations: what may be done to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status

from perdure.protocol.ids import format_id, parse_id
from runtime import hall, steering
from runtime.api.guard import actor, operator, reach
from runtime.api.problems import Problem
from runtime.store.purge import Purged
from runtime.store.resume import Resumed
from runtime.store.verbs import Verdict

router = Router(tags=["invocations"])

REFUSED = {400: Problem, 404: Problem, 409: Problem, 503: Problem}


class Told(Schema):
    """What came of it: `done`, it has ended; `asked`, whoever drives it has been told; `paused`, `already_paused`;
    `resumed`, it is tried again; `purged`."""

    id: str
    verdict: str


@router.patch(
    "/invocations/{id}/cancel",
    response={200: Told, 202: Told, **REFUSED},
    auth=operator.scoped,
    summary="Ask an invocation to end",
)
async def cancel(request: HttpRequest, id: str) -> Any:
    """It may undo what it did first. 200: it had not started, and has ended. 202: it has been asked."""
    key = await _reached(request, id)
    return _told(key, await steering.cancel(await hall.operations(), key, actor(request)), asked=202)


@router.patch(
    "/invocations/{id}/kill", response={200: Told, **REFUSED}, auth=operator.scoped, summary="End an invocation at once"
)
async def kill(request: HttpRequest, id: str) -> Any:
    """Its unfinished calls end with it. Nothing is undone, and what it committed stays."""
    key = await _reached(request, id)
    return _told(key, await steering.kill(await hall.operations(), key, actor(request)))


@router.patch(
    "/invocations/{id}/pause",
    response={200: Told, 202: Told, **REFUSED},
    auth=operator.scoped,
    summary="Let an invocation go no further until it is resumed",
)
async def pause(request: HttpRequest, id: str) -> Any:
    """What comes for it meanwhile is kept; an object's key stays its own. Cancelling it lets it go on, too.

    200: it is paused, or was. 202: it has been asked, and goes no further than the steps that it is executing.
    """
    key = await _reached(request, id)
    return _told(key, await steering.pause(await hall.operations(), key, actor(request)), asked=202)


@router.patch(
    "/invocations/{id}/resume",
    response={200: Told, 425: Problem, **REFUSED},
    auth=operator.scoped,
    summary="Try a paused or backing-off invocation again now",
)
async def resume(request: HttpRequest, id: str, deployment: str = steering.KEEP) -> Any:
    """On the code that it had (`keep`), on its service's newest (`latest`), or on that of a deployment's id.

    Its count of failed attempts begins anew. What the code does differently than the journal pauses it again.
    """
    key = await _reached(request, id)
    return _told(key, await steering.resume(await hall.operations(), key, actor(request), deployment))


@router.patch(
    "/invocations/{id}/purge",
    response={200: Told, **REFUSED},
    auth=operator.scoped,
    summary="Forget an invocation that has ended",
)
async def purge(request: HttpRequest, id: str) -> Any:
    """With its result and its idempotency key: who asks for them later finds nothing. An object's values stay."""
    key = await _reached(request, id)
    return _told(key, await steering.purge(await hall.operations(), key, actor(request)))


@router.patch(
    "/invocations/{id}/purge-journal",
    response={200: Told, **REFUSED},
    auth=operator.scoped,
    summary="Forget what an invocation that has ended did",
)
async def purge_journal(request: HttpRequest, id: str) -> Any:
    """Its input too; its result stays. It cannot be restarted afterwards."""
    key = await _reached(request, id)
    return _told(key, await steering.purge_journal(await hall.operations(), key, actor(request)))


async def _reached(request: HttpRequest, id: str) -> bytes:
    key = parse_id(id)
    await reach(request, key)
    return key


WHY_NOT: Mapping[str, tuple[int, str]] = {
    Verdict.ALREADY_ENDED: (409, "has ended already."),
    Verdict.NOT_STARTED: (409, "has not started yet: there is nothing to pause."),
    Resumed.AT_WORK: (409, "is neither paused nor backing off."),
    Resumed.NO_SUCH_CODE: (409, "cannot go on there: no such deployment has its service."),
    Purged.NOT_ENDED: (409, "has not ended yet: cancel or kill it first."),
}


def _told(id: bytes, came: Verdict | Resumed | Purged, *, asked: int = 200) -> Status[Any]:
    if came is Resumed.NOT_STARTED:
        status, reason = 425, "has not started yet: there is nothing to resume."
    elif came in WHY_NOT:
        status, reason = WHY_NOT[came]
    else:
        return Status(asked if came is Verdict.ASKED else 200, Told(id=format_id(id), verdict=came))
    return Status(status, Problem(message=f"The invocation {format_id(id)} {reason}"))
