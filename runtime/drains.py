"""Drains: the Celery message that says that a queue may have work. Losing one costs a beat, five seconds."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

from celery import Celery

from runtime.conf import settings
from runtime.servers.reach import is_redis

log = logging.getLogger(__name__)

DRAIN = "perdure.drain"
REACH = 5  # seconds for the broker's answer
EXPIRES = 5.0  # seconds after which a hint is worth nothing: beat has sent the next one


def queue_of(name: str) -> str:
    """The Celery queue that carries the hints for a queue of invocations."""
    return f"{DRAIN}.{name}"


def send_drain(name: str) -> None:
    """Hint that a queue may have work."""
    _producer().send_task(DRAIN, args=[name], queue=queue_of(name), expires=EXPIRES, ignore_result=True)


def broker_answers() -> bool:
    """Whether the broker is there, asked on a connection of its own."""
    try:
        with _producer().connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=REACH)
    except Exception as error:  # each transport of kombu has errors of its own
        log.debug("the broker does not answer: %s", error)
        return False
    return True


async def wake_workers() -> None:
    """Hint at every queue of this installation; a broker out of reach is beat's business."""
    for name in settings().queues:
        await asyncio.to_thread(send_drain, name)


def ask_workers() -> dict[str, Any]:
    """What the workers say of themselves, by name; takes half a second, or raises one of kombu's errors."""
    return dict(_producer().control.inspect(timeout=0.5).stats() or {})


def transport_options(broker_url: str) -> dict[str, Any]:
    """Redis gives unacknowledged messages back after an hour, in sweeps of 100 s; hints are worth a minute."""
    if is_redis(broker_url):
        return {"visibility_timeout": 60, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    return {}


@functools.cache
def _producer() -> Celery:
    producer = Celery("perdure-hints", broker=settings().broker_url, set_as_current=False)
    options = transport_options(settings().broker_url)
    if options:  # for ever is how long a Redis that has stopped is waited for
        options |= {"socket_timeout": REACH, "socket_connect_timeout": REACH}
    producer.conf.update(broker_transport_options=options, task_serializer="json")
    return producer
