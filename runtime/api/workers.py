"""Workers: the engines and their queues, and draining them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema, Status

from runtime import hall, steering
from runtime.api.guard import actor, operator, viewer
from runtime.api.problems import Problem
from runtime.reading import workers
from runtime.reading.workers import Standing
from runtime.store.drained import Drain

router = Router(tags=["workers"])

MOST_NAMED = 50
"""Queues, in a sentence."""


class Engine(Schema):
    id: UUID
    host: str
    pid: int
    status: Standing
    drained_at: datetime | None
    queues: list[str]
    deployments: list[str]
    in_flight: int
    keys: int
    """That it has in memory."""
    room: int
    """For how many more invocations."""
    claimed_per_second: float
    finished_per_second: float
    loop_lag_ms: float
    started_at: datetime
    last_heartbeat_at: datetime | None


class Queue(Schema):
    name: str
    status: Standing
    """`idle`: no engine serves it."""
    drained_at: datetime | None
    engines: int
    """How many serve it."""
    ready: int
    """What waits for an engine, counted up to 10,000."""
    oldest_ready_at: datetime | None
    in_flight: int | None
    """While it is drained: what has begun and not ended."""
    keys: int | None
    """While it is drained: those that an engine has in memory still."""


class CeleryWorker(Schema):
    """As it says itself."""

    name: str
    pid: int
    processes: int
    uptime_seconds: int


class Celery(Schema):
    workers: list[CeleryWorker]
    trouble: str | None
    """Why it cannot be asked."""


class Workers(Schema):
    engines: list[Engine]
    queues: list[Queue]
    celery: Celery


class Queues(Schema):
    queues: list[Queue]


class Drained(Schema):
    """What is drained, or resumed: an engine's id, or a queue's name."""

    id: str
    status: Standing
    in_flight: int
    """What has begun and not ended."""
    keys: int
    """Keys in memory."""
    message: str


@router.get("/workers", response={200: Workers, 503: Problem}, auth=viewer, summary="The engines, and their queues")
async def list_workers(request: HttpRequest) -> Any:
    """Engines that live, as their last beats say, and beside them what Celery says of its processes."""
    asking = asyncio.ensure_future(workers.celery())
    engines, queues = await workers.engines(), await workers.queues()
    celery = await asking
    return Workers(
        engines=[Engine.from_orm(engine) for engine in engines],
        queues=[Queue.from_orm(queue) for queue in queues],
        celery=Celery(workers=[CeleryWorker.from_orm(worker) for worker in celery.workers], trouble=celery.trouble),
    )


@router.get(
    "/workers/{id}",
    response={200: Engine, 400: Problem, 404: Problem, 503: Problem},
    auth=viewer,
    summary="One engine",
)
async def get_worker(request: HttpRequest, id: UUID) -> Any:
    engine = await workers.engine(id)
    return _no_engine(id) if engine is None else Engine.from_orm(engine)


@router.patch(
    "/workers/{id}/drain",
    response={200: Drained, 400: Problem, 404: Problem, 503: Problem},
    auth=operator,
    summary="Let an engine take nothing new",
)
async def drain_worker(request: HttpRequest, id: UUID) -> Any:
    """It lets begin nothing that has not begun, gives back its keys, and lets go of what waits: other engines go on
    with that. What it is executing it finishes. It knows within half a second; `GET /workers/{id}` says what is left.
    """
    came = await steering.drain_engine(await hall.operations(), id, actor(request))
    return _no_engine(id) if came is Drain.UNKNOWN else await _engine_now(id)


@router.patch(
    "/workers/{id}/resume",
    response={200: Drained, 400: Problem, 404: Problem, 503: Problem},
    auth=operator,
    summary="Let a drained engine take work again",
)
async def resume_worker(request: HttpRequest, id: UUID) -> Any:
    came = await steering.resume_engine(await hall.operations(), id, actor(request))
    return _no_engine(id) if came is Drain.UNKNOWN else await _engine_now(id)


@router.get("/queues", response={200: Queues, 503: Problem}, auth=viewer, summary="All queues")
async def list_queues(request: HttpRequest) -> Any:
    return {"queues": [Queue.from_orm(queue) for queue in await workers.queues()]}


@router.patch(
    "/queues/{queue}/drain",
    response={200: Drained, 400: Problem, 404: Problem, 503: Problem},
    auth=operator,
    summary="Let nothing new of a queue begin",
)
async def drain_queue(request: HttpRequest, queue: str) -> Any:
    """No engine takes anything from it until it is resumed, whenever that engine was started. What has begun goes on
    until it ends or waits. What comes meanwhile is accepted, and waits in the queue.
    """
    came = await steering.drain_queue(await hall.operations(), queue, actor(request))
    return await _no_queue(queue) if came is Drain.UNKNOWN else await _queue_now(queue)


@router.patch(
    "/queues/{queue}/resume",
    response={200: Drained, 400: Problem, 404: Problem, 503: Problem},
    auth=operator,
    summary="Let what is in a drained queue begin again",
)
async def resume_queue(request: HttpRequest, queue: str) -> Any:
    came = await steering.resume_queue(await hall.operations(), queue, actor(request))
    return await _no_queue(queue) if came is Drain.UNKNOWN else await _queue_now(queue)


async def _engine_now(id: UUID) -> Any:
    engine = await workers.engine(id)
    if engine is None:  # it died meanwhile
        return _no_engine(id)
    return Drained(
        id=str(id),
        status=engine.status,
        in_flight=engine.in_flight,
        keys=engine.keys,
        message=f"It is {engine.status}: {engine.left}." if engine.drained_at else "It takes new work.",
    )


async def _queue_now(name: str) -> Any:
    queue = await workers.queue(name)
    if queue is None or queue.drained_at is None:
        status = Standing.IDLE if queue is None else queue.status
        return Drained(id=name, status=status, in_flight=0, keys=0, message="What is in it may begin.")
    return Drained(
        id=name,
        status=queue.status,
        in_flight=queue.in_flight or 0,
        keys=queue.keys or 0,
        message=f"It is {queue.status}: {queue.left}.",
    )


def _no_engine(id: UUID) -> Status[Any]:
    return Status(404, Problem(message=f"No engine {id} is alive. GET /workers lists those that are."))


async def _no_queue(queue: str) -> Status[Any]:
    known = sorted(await steering.known_queues(await hall.operations()))
    there = f"Those that there are: {', '.join(known[:MOST_NAMED])}." if known else "There is none yet."
    message = f"There is no queue {queue[:100]!r}: no engine serves it, and no handler is meant for it. {there}"
    return Status(404, Problem(message=message))
