"""Invocations: what may be done to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Header, Query, Router, Schema, Status

from perdure.protocol.ids import format_id, parse_id
from runtime import hall, steering
from runtime.api.filters import Text
from runtime.api.guard import actor, operator, reach
from runtime.api.problems import Problem
from runtime.steering import Verb
from runtime.store.bulk import WORKED
from runtime.store.purge import Purged
from runtime.store.restart import Open, Restarted
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
    return await _tell(request, Verb.CANCEL, id, asked=202)


@router.patch(
    "/invocations/{id}/kill", response={200: Told, **REFUSED}, auth=operator.scoped, summary="End an invocation at once"
)
async def kill(request: HttpRequest, id: str) -> Any:
    """Its unfinished calls end with it. Nothing is undone, and what it committed stays."""
    return await _tell(request, Verb.KILL, id)


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
    return await _tell(request, Verb.PAUSE, id, asked=202)


@router.patch(
    "/invocations/{id}/resume",
    response={200: Told, 425: Problem, **REFUSED},
    auth=operator.scoped,
    summary="Try a paused or backing-off invocation again now",
)
async def resume(request: HttpRequest, id: str, deployment: str = steering.KEEP) -> Any:
    """On the code that it had (`keep`), on its service's newest (`latest`), or on that of a deployment's id.

    Its retry policy counts anew. What the code does differently than the journal pauses it again.
    """
    return await _tell(request, Verb.RESUME, id, deployment)


class AsNew(Schema):
    new_invocation_id: str


@router.patch(
    "/invocations/{id}/restart-as-new",
    response={200: AsNew, 410: Problem, 422: Problem, **REFUSED},
    auth=operator.scoped,
    summary="Do again what has ended, in a new invocation",
)
async def restart_as_new(
    request: HttpRequest,
    id: str,
    start: Annotated[int, Query(alias="from", ge=0, le=1_000_000)] = 0,
    deployment: str | None = None,
    idempotency_key: Annotated[Text | None, Header(alias="idempotency-key", min_length=1, max_length=512)] = None,
) -> Any:
    """With its input, and what its journal has up to the entry `from` and came later for that; nothing of that is done
    again. Nobody awaits the new one; to its object's key it comes last.

    On the code that it had (`keep`: so where `from` is said), its service's newest (`latest`: so where it is not), or
    that of a deployment's id. 410: its journal was purged. 422: no such entry, or a call before it is under way, or an
    awakeable that others were told of before it is not settled; or it is a workflow's run, which there is once.

    Asked again with the same `idempotency-key`, whoever asks gets the id of the first new one while that is kept; no
    second one is made.
    """
    key = await _reachable(request, id)
    found = await steering.restart(await hall.operations(), key, actor(request), start, deployment, idempotency_key)
    if found.open is not None:
        return Status(422, Problem(message=_still_open(key, found.open)))
    return _refusal(key, found.word) or AsNew(new_invocation_id=format_id(found.new or b""))


@router.patch(
    "/invocations/{id}/purge",
    response={200: Told, **REFUSED},
    auth=operator.scoped,
    summary="Forget an invocation that has ended",
)
async def purge(request: HttpRequest, id: str) -> Any:
    """With its result and its idempotency key: who asks for them later finds nothing. An object's values stay, those of
    a workflow go with its run, with all promises of its key."""
    return await _tell(request, Verb.PURGE, id)


@router.patch(
    "/invocations/{id}/purge-journal",
    response={200: Told, **REFUSED},
    auth=operator.scoped,
    summary="Forget what an invocation that has ended did",
)
async def purge_journal(request: HttpRequest, id: str) -> Any:
    """Its input too; its result stays. It cannot be restarted afterwards."""
    return await _tell(request, Verb.PURGE_JOURNAL, id)


LATEST = "With `deployment=latest` it goes on with its service's newest"
WHY_NOT: Mapping[str, tuple[int, str]] = {
    Verdict.ALREADY_ENDED: (409, "has ended already."),
    Verdict.NOT_STARTED: (409, "has not started yet: there is nothing to pause or resume."),
    Resumed.AT_WORK: (409, "is neither paused nor backing off."),
    Resumed.NO_SUCH_CODE: (409, f"cannot go on there: no such deployment has its service. {LATEST}."),
    Resumed.CODE_DELETED: (409, f"cannot go on with the code that it had: its deployment was deleted. {LATEST}."),
    Resumed.NO_SERVICE: (409, f"has no code any more: register a deployment that has its handler. {LATEST}."),
    Purged.NOT_ENDED: (409, "has not ended yet: cancel or kill it first."),
    Restarted.JOURNAL_GONE: (410, "has no journal any more: it was purged."),
    Restarted.RUNS_ONCE: (
        422,
        "is a workflow's run, of which there is one for each key: purge it, and the workflow may run again.",
    ),
    Restarted.NO_SUCH_ENTRY: (422, "has no such entry that could be taken over; `from` counts from 0, the input."),
}


async def _tell(
    request: HttpRequest, verb: Verb, id: str, deployment: str = steering.KEEP, *, asked: int = 200
) -> Status[Any]:
    key = await _reachable(request, id)
    word = await steering.tell(await hall.operations(), verb, key, actor(request), deployment)
    told = Told(id=format_id(key), verdict=word)
    return _refusal(key, word) or Status(asked if word is Verdict.ASKED else 200, told)


async def _reachable(request: HttpRequest, id: str) -> bytes:
    """The invocation, if it is of a service that whoever asks may touch. Raises NotAllowed."""
    key = parse_id(id)
    await reach(request, key)
    return key


def _still_open(id: bytes, open: Open) -> str:
    what = "something" if open.callee is None else f"the end of {format_id(open.callee)}"
    wait = "" if open.callee is None else "Ask again when that has ended, or "
    cure = f"{wait}take over no more than `from={open.index - 1}`."
    return (
        f"The entry {open.index} of {format_id(id)} awaits {what}, which has not come yet. {cure[0].upper()}{cure[1:]}"
    )


def _refusal(key: bytes, word: steering.Word) -> Status[Any] | None:
    if word in WORKED:
        return None
    status, reason = WHY_NOT[word]
    return Status(
        425 if word is Resumed.NOT_STARTED else status, Problem(message=f"The invocation {format_id(key)} {reason}")
    )
