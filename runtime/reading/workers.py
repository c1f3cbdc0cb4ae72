"""Workers as people see them: engines, the queues that they serve, and what Celery says of its processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.utils import timezone
from msgspec import Struct

from runtime import models
from runtime.conf import settings
from runtime.drains import ask_workers
from runtime.models import Claimed, DrainedQueue, Heartbeat, Invocation, ObjectKey, OldestReady, Ready
from runtime.reading.services import FRESH
from runtime.servers import reach

MOST_COUNTED = 10_000
CELERY_IS_FRESH = 5.0  # seconds for which its answer is shown again: to ask takes half of one
CELERY_PATIENCE = 3.0


class Standing(StrEnum):
    """How it stands with an engine or a queue."""

    WORKING = "working"  # takes new work
    IDLE = "idle"  # Celery has not attached it to the work, which it does within seconds
    DRAINING = "draining"  # takes nothing new, or all its queues are drained, and has something left
    DRAINED = "drained"  # the same, and has nothing left
    SILENT = "silent"  # its heart does not beat: soon it is declared dead


class Engine(Struct, frozen=True):
    """A living engine, as its last beat says."""

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

    @property
    def left(self) -> str:
        """What a drained one still has, in words."""
        return left(self.in_flight, self.keys)


class Queue(Struct, frozen=True):
    """A queue, and how many living engines serve it."""

    name: str
    status: Standing
    drained_at: datetime | None
    engines: int
    ready: int
    """What waits for an engine; it is counted up to MOST_COUNTED."""
    oldest_ready_at: datetime | None
    in_flight: int | None
    """While it is drained: what has begun and not ended."""
    keys: int | None
    """While it is drained: those that an engine has in memory still."""

    @property
    def left(self) -> str:
        return left(self.in_flight or 0, self.keys or 0)


class CeleryWorker(Struct, frozen=True):
    """A worker of Celery, the parent of its processes, as it says itself."""

    name: str
    pid: int
    processes: int
    uptime_seconds: int


class Celery(Struct, frozen=True):
    workers: list[CeleryWorker]
    trouble: str | None = None
    """Why it cannot be asked."""


async def engines() -> list[Engine]:
    """All that are not known to be dead, by machine."""
    rows = models.Engine.objects.filter(alive=True).order_by("host", "pid", "started_at")
    found = [row async for row in rows]
    beats = {beat.engine: beat async for beat in Heartbeat.objects.all()}
    drained = await _drained_queues()
    return [_engine(row, beats.get(row.id), drained) for row in found]


async def engine(id: UUID) -> Engine | None:
    row = await models.Engine.objects.filter(alive=True, id=id).afirst()
    if row is None:
        return None
    return _engine(row, await Heartbeat.objects.filter(engine=id).afirst(), await _drained_queues())


async def queues() -> list[Queue]:
    """All that an engine serves, in which something waits, or that are drained."""
    serving = [row async for row in models.Engine.objects.filter(alive=True).values_list("queues", flat=True)]
    drained = await _drained_queues()
    oldest = {row.queue: row.since async for row in OldestReady.objects.all()}
    names = {name for served in serving for name in served} | drained.keys() | oldest.keys()
    return [
        await _queue(name, sum(name in served for served in serving), drained.get(name), oldest.get(name))
        for name in sorted(names)
    ]


async def queue(name: str) -> Queue | None:
    return next((found for found in await queues() if found.name == name), None)


_said: tuple[float, Celery] = (float("-inf"), Celery([]))


async def celery() -> Celery:
    """What Celery says; at most a few seconds old, and an answer in any case."""
    global _said
    said_at, celery = _said
    if time.monotonic() - said_at > CELERY_IS_FRESH:
        try:
            async with asyncio.timeout(CELERY_PATIENCE):
                celery = await asyncio.to_thread(_ask_celery, settings().broker_url)
        except TimeoutError:
            celery = Celery([], f"The broker gives no answer within {CELERY_PATIENCE:g} s.")
        _said = time.monotonic(), celery
    return celery


def left(in_flight: int, keys: int) -> str:
    """What is left to be done, in words.

    >>> left(3, 1), left(0, 2), left(0, 0)
    ('3 invocations and 1 key left', '2 keys left', 'nothing left')
    """
    counts = [
        f"{count} {thing}{'' if count == 1 else 's'}"
        for count, thing in ((in_flight, "invocation"), (keys, "key"))
        if count
    ]
    return f"{' and '.join(counts) or 'nothing'} left"


async def _drained_queues() -> dict[str, datetime]:
    return {row.queue: row.drained_at async for row in DrainedQueue.objects.all()}


def _engine(row: models.Engine, beat: Heartbeat | None, drained: Container[str]) -> Engine:
    if beat is None or timezone.now() - beat.beat_at > FRESH:
        standing = Standing.SILENT
    elif row.drained_at is not None or all(queue in drained for queue in row.queues):
        is_empty = not (beat.attached or beat.in_flight or beat.leases)  # attached: it does not know yet
        standing = Standing.DRAINED if is_empty else Standing.DRAINING
    else:
        standing = Standing.WORKING if beat.attached else Standing.IDLE
    return Engine(
        id=row.id,
        host=row.host,
        pid=row.pid,
        status=standing,
        drained_at=row.drained_at,
        queues=row.queues,
        deployments=row.deployments,
        in_flight=beat.in_flight if beat else 0,
        keys=beat.leases if beat else 0,
        room=beat.room if beat else 0,
        claimed_per_second=round(beat.claimed_per_s, 1) if beat else 0.0,
        finished_per_second=round(beat.finished_per_s, 1) if beat else 0.0,
        loop_lag_ms=round(beat.lag_ms, 1) if beat else 0.0,
        started_at=row.started_at,
        last_heartbeat_at=beat.beat_at if beat else None,
    )


async def _queue(name: str, serving: int, drained_at: datetime | None, oldest: datetime | None) -> Queue:
    ready = await Ready.objects.filter(queue=name)[:MOST_COUNTED].acount() if oldest else 0
    in_flight = keys = None
    standing = Standing.WORKING if serving else Standing.IDLE
    if drained_at is not None:
        claimed = Claimed.objects.values("invocation")
        in_flight = await Invocation.objects.filter(queue=name, id__in=claimed).acount()
        keys = await ObjectKey.objects.filter(queue=name, owner__isnull=False).acount()
        standing = Standing.DRAINING if in_flight or keys else Standing.DRAINED
    return Queue(
        name=name,
        status=standing,
        drained_at=drained_at,
        engines=serving,
        ready=ready,
        oldest_ready_at=oldest,
        in_flight=in_flight,
        keys=keys,
    )


def _ask_celery(broker_url: str) -> Celery:
    trouble = reach.broker_trouble(broker_url)  # first: Celery itself would try for ever
    if trouble is not None:
        return Celery([], trouble)
    try:
        said = ask_workers()
    except Exception as error:  # each transport of kombu has errors of its own
        return Celery([], f"The broker does not carry the question: {error}")
    return Celery([_worker(name, stats) for name, stats in sorted(said.items())])


def _worker(name: str, stats: dict[str, Any]) -> CeleryWorker:
    pool = stats.get("pool") or {}
    processes = pool.get("processes") or []
    return CeleryWorker(name, int(stats.get("pid") or 0), len(processes), int(stats.get("uptime") or 0))
