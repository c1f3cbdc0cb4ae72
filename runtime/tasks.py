"""What Celery does for us: it keeps the engines' processes, and carries the hint that there is work.

A worker that consumes a drain queue has an engine in each of its children, from the child's start to its end. A drain
only attaches it to the work; the engine goes on with what it owns after the drain has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from multiprocessing.sharedctypes import RawValue
from typing import Any
from uuid import UUID

from celery import shared_task
from celery.signals import (
    celeryd_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutting_down,
)
from kombu.exceptions import OperationalError

from runtime import bulk, conf, hall
from runtime.drains import DRAIN, broker_answers, queue_of, send_drain
from runtime.engine.runner import SLICE, Runner
from runtime.outbound import Guard
from runtime.outbound.identity import Identity
from runtime.store import adoption, retention
from runtime.store import bulk as store_bulk
from runtime.store.side import Side

log = logging.getLogger(__name__)

# A warm shutdown does not tell the children: the parent sets this byte, which they share by fork. Not an Event: setting
# one waits for every sleeper to wake up, and a child that was killed never does.
_stopping = RawValue("b", 0)
BULK_SLICE = 20.0  # seconds that a verb by filter takes from the other chores
LOOK = 0.1  # seconds between two looks at it
_queues: list[str] = []
_runner: Runner | None = None
_missed: set[str] = set()
"""Code that somebody waits for and no engine has: said once, not at each pulse."""


@shared_task(name=DRAIN, ignore_result=True, time_limit=int(SLICE) + 60)
def drain(name: str) -> None:
    """Let this child's engine take work until there is none for a while, or for one slice."""
    if _runner is None:
        log.warning("a drain came to a worker without an engine: does it consume only %s.*?", DRAIN)
    elif _runner.drain():
        _hint(name)


@shared_task(name="perdure.pulse", ignore_result=True)
def pulse() -> None:
    """The safety pulse: hints may be lost, this one comes again. And what waits for code that is gone, moves on."""
    for name in conf.settings().queues:
        send_drain(name)
    asyncio.run(_adopt())


async def _adopt() -> None:
    side = Side(conf.settings().database_url)
    moved = await side.run(adoption.adopt)
    waiting = await side.run(adoption.waiting)
    side.close()
    if moved:
        log.warning("%d invocations go on with the newest code: no engine has theirs", moved)
    for deployment in waiting.keys() - _missed:
        log.warning(
            "%d invocations wait for code that no engine has loaded (%s); after %d s they go on with the newest",
            *(waiting[deployment], deployment, adoption.PATIENCE),
        )
    _missed.clear()
    _missed.update(waiting)


@shared_task(name="perdure.retention", ignore_result=True)
def keep_house() -> None:
    """Make tomorrow's partitions, drop what nobody may ask for any more."""
    asyncio.run(retention.keep_house(conf.settings().database_url))


@shared_task(name="perdure.bulk", ignore_result=True)
def carry_on() -> None:
    """Go on with verbs by filter whose process has ended; a long one a slice at a time."""
    asyncio.run(_carry_on())


async def _carry_on() -> None:
    side = Side(conf.settings().database_url)
    abandoned = await side.run(store_bulk.abandoned)
    side.close()
    if not abandoned:
        return
    with contextlib.suppress(TimeoutError):
        async with hall.visit() as here, asyncio.timeout(BULK_SLICE):
            for id in abandoned:
                log.info("going on with the verb by filter %s", UUID(bytes=id))
                await bulk.carry_out(here, id)


@celeryd_init.connect
def _read_queues(options: dict[str, Any], **_: Any) -> None:
    wanted = options.get("queues") or ()
    names = wanted.split(",") if isinstance(wanted, str) else wanted
    _queues[:] = [name.removeprefix(queue_of("")) for name in names if name.startswith(queue_of(""))]


@worker_process_init.connect
def _start_engine(**_: Any) -> None:
    global _runner
    if not _queues:
        return
    settings = conf.settings()
    _runner = Runner(
        settings.database_url,
        queues=_queues,
        services=settings.services,
        sockets=settings.sockets,
        token=settings.token,
        stuck_after=settings.stuck_after,
        most_bytes=settings.engine_memory * 2**20,
        limits=settings.limits,
        guard=Guard.of(settings),
        identity=Identity.of(settings),
    )
    _runner.start()
    threading.Thread(target=_stop_when_asked, name="perdure-stop", daemon=True).start()
    # A child that replaces a killed one: the drain that was attached there died with it.
    threading.Thread(target=_attach, name="perdure-attach", daemon=True).start()
    threading.Thread(target=_runner.keep_attached, args=(broker_answers,), name="perdure-broker", daemon=True).start()


def _attach() -> None:
    for name in _queues:
        _hint(name)


def _hint(name: str) -> None:
    try:
        send_drain(name)
    except OperationalError as error:
        log.warning("the broker is out of reach, beat will attach this engine: %s", error)


def _stop_when_asked() -> None:
    while not _stopping.value:
        time.sleep(LOOK)
    if _runner is not None:
        _runner.stop()


@worker_process_shutdown.connect
def _stop_engine(**_: Any) -> None:
    if _runner is not None:
        _runner.stop()


@worker_shutting_down.connect
def _tell_children(**_: Any) -> None:
    _stopping.value = 1
