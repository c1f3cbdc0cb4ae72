"""Health: each part that a running Perdure needs is looked at, and said to be well or not, with a cure.

`GET /health/parts` and `manage.py doctor` show what is found here. The looks block, as the servers' own clients do, and
are therefore made in threads: one that never comes back costs a thread, not the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from enum import StrEnum

from django.db import DatabaseError, connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from msgspec import Struct

from runtime.checks import OLDEST_POSTGRES
from runtime.conf import Settings
from runtime.models import DrainedQueue, Engine, Heartbeat, OldestReady, Outbox
from runtime.reading import orphans
from runtime.reading.services import FRESH
from runtime.reading.words import counted, span
from runtime.servers import reach

PATIENCE = 3.0  # seconds for the looks of one place
WAITS_LONG = timedelta(seconds=30)  # for what is ready and no engine takes
RELAYED_WITHIN = timedelta(seconds=5)  # what an application has sent
MOST_COUNTED = 10_000


class Condition(StrEnum):
    """How it stands with a part."""

    OK = "ok"
    DEGRADED = "degraded"  # it works, and not as it should
    DOWN = "down"  # what needs it stands still


class Finding(Struct, frozen=True):
    """What was found at one place."""

    words: str
    hint: str = ""
    """What to do, when it is not well."""
    condition: Condition = Condition.OK
    is_wanted: bool = False
    """Somebody has made it so, and may have forgotten it; there is nothing to mend."""


class Part(Struct, frozen=True):
    """A part of a running Perdure, as one look shows it."""

    name: str
    finding: Finding
    milliseconds: float
    """How long the look took."""


Look = Callable[[Settings], Finding]


async def parts(now: Settings) -> list[Part]:
    """Look at all of them, at the same time and for a moment only."""
    found = await asyncio.gather(*(_patiently(looks, now) for looks in PLACES))
    return [part for place in found for part in place]


def overall(found: list[Part]) -> Condition:
    """The worst of them."""
    return max((part.finding.condition for part in found), key=list(Condition).index)


async def _patiently(looks: dict[str, Look], now: Settings) -> list[Part]:
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().run_in_executor(_threads, _look_at, looks, now)
    except TimeoutError:
        silent = Finding(
            f"no answer within {PATIENCE:g} s", "Is it overloaded, or does it stand still?", Condition.DOWN
        )
        return [Part(name, silent, _since(began)) for name in looks]


def _look_at(looks: dict[str, Look], now: Settings) -> list[Part]:
    """In a thread: one after another, on a database connection of their own."""
    found = []
    try:
        for name, look in looks.items():
            began = time.monotonic()
            finding = look(now)
            found.append(Part(name, finding, _since(began)))
    finally:
        connections.close_all()
    return found


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)


# The looks -------------------------------------------------------------------------------------------------------


def look_at_database(now: Settings) -> Finding:
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000"
            )
            version, major = cursor.fetchone()
        if major < OLDEST_POSTGRES:
            words = f"PostgreSQL {version} is too old"
            return Finding(words, f"Perdure needs PostgreSQL {OLDEST_POSTGRES} or newer.", Condition.DOWN)
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        return Finding(
            f"no connection: {_first_line(error)}", up_or("DATABASE_URL", "a PostgreSQL", now), Condition.DOWN
        )
    if waiting:
        words = f"PostgreSQL {version}, {len(waiting)} migrations behind"
        return Finding(words, "Run: ./dev manage migrate", Condition.DOWN)
    return Finding(f"PostgreSQL {version}, migrated")


def look_at_engines(_: Settings) -> Finding:
    try:
        beats = dict(Heartbeat.objects.filter(beat_at__gt=timezone.now() - FRESH).values_list("engine", "attached"))
        engines = list(Engine.objects.filter(alive=True, id__in=beats))
        queues = set(DrainedQueue.objects.values_list("queue", flat=True))
    except DatabaseError as error:
        return _unknown(error)
    if not engines:
        return Finding("none is alive", "Start them with ./dev up, or a Celery worker.", Condition.DOWN)
    drained = [engine for engine in engines if engine.drained_at or queues.issuperset(engine.queues)]
    idle = [engine for engine in engines if not beats[engine.id] and engine not in drained]
    words = f"{len(engines)} alive on {counted(len({engine.host for engine in engines}), 'machine')}"
    if drained:
        words += f", {len(drained)} drained"
    if len(drained) == len(engines):
        hint = "Nothing new begins until `./dev manage workers resume ENGINE`, or `… resume --queue NAME`."
        return Finding(words, hint, Condition.DEGRADED, is_wanted=True)
    if len(drained) + len(idle) == len(engines):
        hint = "Celery attaches them to the work within 5 s: are the chores worker and the broker up?"
        return Finding(f"{words}, none takes work", hint, Condition.DEGRADED)
    return Finding(words)


def look_at_queues(_: Settings) -> Finding:
    """What is ready, and no engine has taken."""
    try:
        drained = list(DrainedQueue.objects.order_by("queue").values_list("queue", flat=True))
        waiting = list(OldestReady.objects.order_by("since"))
    except DatabaseError as error:
        return _unknown(error)
    oldest = min(waiting, key=lambda one: (one.queue in drained, one.since), default=None)
    words, hint = "nothing waits", ""
    if oldest is not None:
        age = max(timezone.now() - oldest.since, timedelta())
        words = f"the oldest of {oldest.queue!r} waits for {span(age)}"
        if age > WAITS_LONG and oldest.queue not in drained:
            hint = (
                f"It is of {oldest.service}. `./dev manage services` says whether an engine has its code, "
                f"`./dev manage workers` which engines serve {oldest.queue!r} and how busy they are."
            )
    if drained:
        words += f"; drained: {', '.join(drained)}"
    if drained and not hint:
        resume = f"Nothing is taken from there until `./dev manage workers resume --queue {drained[0]}`."
        return Finding(words, resume, Condition.DEGRADED, is_wanted=True)
    return Finding(words, hint, Condition.DEGRADED if hint else Condition.OK)


def look_at_keys(_: Settings) -> Finding:
    """Whether somebody takes care of each inbox."""
    try:
        look = orphans.look()
    except DatabaseError as error:
        return _unknown(error)
    seen = "all inboxes" if look.is_whole else f"{look.passed} inboxes, the next look goes on"
    if not look.orphans:
        return Finding(f"none is stuck (seen: {seen})")
    first, *others = look.orphans
    more = f", and {len(others)} more" if others else ""
    return Finding(f"{first.words}{more} (seen: {seen})", first.cure, Condition.DEGRADED)


def look_at_outbox(_: Settings) -> Finding:
    """What applications have sent, and no relay has moved on."""
    try:
        oldest = Outbox.objects.order_by("position").values_list("sent_at", flat=True).first()
        count = Outbox.objects.all()[: MOST_COUNTED + 1].count() if oldest else 0
    except DatabaseError as error:
        return _unknown(error)
    if oldest is None:
        return Finding("empty")
    lag = max(timezone.now() - oldest, timedelta())
    how_many = f"more than {MOST_COUNTED}" if count > MOST_COUNTED else str(count)
    words = f"{how_many} to be relayed, the oldest for {span(lag)}"
    if lag <= RELAYED_WITHIN:
        return Finding(words)
    return Finding(words, "An ingress relays what applications send: does one run?", Condition.DEGRADED)


def look_at_broker(now: Settings) -> Finding:
    trouble = reach.broker_trouble(now.broker_url)
    if trouble is None:
        return Finding(reach.without_password(now.broker_url))
    return Finding(trouble, up_or("BROKER_URL", "a Redis, Valkey or RabbitMQ", now), Condition.DOWN)


def look_at_channel_layer(now: Settings) -> Finding:
    hint = "Set CHANNEL_URL to a Redis or Valkey; the dashboard shows nothing live without one."
    if now.channel_url is None:
        return Finding("none: live events stay within one process", hint, Condition.DEGRADED)
    trouble = reach.channel_layer_trouble(now.channel_url)
    if trouble is None:
        return Finding(reach.without_password(now.channel_url))
    return Finding(trouble, hint, Condition.DEGRADED)


DATABASE: dict[str, Look] = {
    "database": look_at_database,
    "engines": look_at_engines,
    "queues": look_at_queues,
    "keys": look_at_keys,
    "outbox": look_at_outbox,
}
PLACES: tuple[dict[str, Look], ...] = (DATABASE, {"broker": look_at_broker}, {"channels": look_at_channel_layer})
"""What one server tells is asked for in turn, the servers all at once."""

_threads = ThreadPoolExecutor(2 * len(PLACES), "perdure-health")


def up_or(variable: str, server: str, now: Settings) -> str:
    """What to do when a server is missed."""
    if now.is_noted:
        return f"Is its `up` still running? Start it with ./dev up, or set {variable} to {server}."
    return f"{now.nothing_noted} Or set {variable} to {server}."


def _unknown(error: DatabaseError) -> Finding:
    """No database, or no table: said of the database in better words."""
    return Finding(f"not known: {_first_line(error)}", "See to the database first.", Condition.DOWN)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
