"""What `up` runs, in which order: from settings to the stages of the supervisor. Starts nothing itself."""

from __future__ import annotations

import asyncio
import functools
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import psycopg

from runtime.conf import Settings
from runtime.drains import queue_of
from runtime.servers import ports
from runtime.servers.postgres import Postgres
from runtime.servers.process import Process, Step
from runtime.servers.valkey import Valkey
from runtime.supervisor import Stage

NAMES = ("postgres", "valkey", "migrate", "register", "ingress", "web", "engines", "chores")
CHORES = "perdure.chores"

# A beat that is fresh, or rows left by engines that were killed would pass for ours.
LIVING_ENGINES = """
SELECT count(*) FROM engine JOIN heartbeat ON heartbeat.engine = engine.id
WHERE alive AND host = coalesce(%s, host) AND beat_at > now() - interval '3 seconds'
"""

DRAINED = """
SELECT ARRAY(SELECT queue FROM drained_queue ORDER BY queue), ARRAY(
    SELECT left(id::text, 8) FROM engine WHERE alive AND drained_at IS NOT NULL ORDER BY id
)
"""


class Drained(NamedTuple):
    """What takes nothing new until somebody resumes it."""

    queues: Sequence[str] = ()
    engines: Sequence[str] = ()
    """The beginnings of their ids."""


def stages(
    settings: Settings, names: Sequence[str], postgres: Postgres | None = None, valkey: Valkey | None = None
) -> list[Stage]:
    """The processes and steps of `names`, what can start at the same time in one stage."""
    servers: Stage = [server.process() for server in (postgres, valkey) if server is not None]
    plan: list[Stage] = [
        servers,
        [Step("migrate", _manage("migrate", "--no-input", "--verbosity", "0"))],
        [Step("accounts", _manage("account", "first"))],
        [Step("register", _manage("register", "--force", *settings.services))],
        [_ingress(settings), _web(settings), _engines(settings), _chores(settings)],
    ]
    environment = addresses(settings)
    wanted = [
        [replace(one, environment={**environment, **one.environment}) for one in stage if one.name in names]
        for stage in plan
    ]
    return [stage for stage in wanted if stage]


def addresses(settings: Settings) -> dict[str, str]:
    """The settings as the environment of the processes that share them."""
    variables: Mapping[str, str | None] = {
        "DATABASE_URL": settings.database_url,
        "BROKER_URL": settings.broker_url,
        "CHANNEL_URL": settings.channel_url,
        "PERDURE_SERVICES": ",".join(settings.services),
        "PERDURE_MODULES": ",".join(settings.modules),
        "PERDURE_DATA": str(settings.data),
        "PERDURE_INGRESS_PORT": str(settings.ingress_port),
        "PERDURE_WEB_PORT": str(settings.web_port),
        "PERDURE_SECRET_KEY": settings.secret_key,
        "PERDURE_AUTH": "on" if settings.auth else "off",
        "PERDURE_HOSTS": ",".join(settings.hosts),
        "PERDURE_ENGINES": str(settings.engines),
        "PERDURE_QUEUES": ",".join(settings.queues),
        "PERDURE_DEPLOYMENT_ADDRESSES": ",".join(settings.deployment_addresses),
        "PERDURE_DEPLOYMENT_SCHEMES": ",".join(settings.deployment_schemes),
        "PERDURE_IDENTITY": str(settings.identity) if settings.identity else None,
    }
    return {name: value for name, value in variables.items() if value} | {"PYTHONUNBUFFERED": "1"}


def _manage(*command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "django", *command)


def _ingress(settings: Settings) -> Process:
    return Process(
        name="ingress",
        command=_uvicorn("runtime.ingress.app:app", settings.ingress_port, "--lifespan", "on", "--ws", "none"),
        answers=functools.partial(answers_http, settings.ingress_port, "/restate/health"),
        stop_within=15.0,
    )


def _web(settings: Settings) -> Process:
    return Process(
        name="web",
        command=_uvicorn("runtime.project.asgi:application", settings.web_port, "--lifespan", "off"),
        answers=functools.partial(answers_http, settings.web_port, "/health"),
    )


def _uvicorn(application: str, port: int, *options: str) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "uvicorn", application, "--host", ports.LOOPBACK, "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        *("--timeout-graceful-shutdown", "2", "--timeout-keep-alive", "75", *options),
    )


def _engines(settings: Settings) -> Process:
    queues = ",".join(map(queue_of, settings.queues))
    return Process(
        name="engines",
        command=_celery("engines", "--queues", queues, "--pool", "prefork", "--concurrency", str(settings.engines)),
        answers=functools.partial(living_engines, settings.database_url, settings.engines, socket.gethostname()),
        stop_within=20.0,  # a warm shutdown: running steps finish, the rest is given back
    )


def _chores(settings: Settings) -> Process:
    schedule = str(settings.data / "beat-schedule")
    return Process(
        name="chores",
        command=_celery("chores", "--queues", CHORES, "--concurrency", "1", "--beat", "--schedule", schedule),
        answers=_started,
    )


def _celery(name: str, *options: str) -> tuple[str, ...]:
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    return (
        *(sys.executable, "-m", "celery", "--quiet", "--app", "runtime.project", "worker"),
        *("--hostname", f"{name}@%h", *quiet, *options),
    )


async def _started() -> bool:
    """Chores may be late without anybody waiting for them."""
    return True


async def answers_http(port: int, path: str) -> bool:
    """Whether a GET on this machine is answered with 200."""
    async with asyncio.timeout(2):  # TimeoutError is an OSError: not yet
        reader, writer = await asyncio.open_connection(ports.LOOPBACK, port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()
            return status.split()[1:2] == [b"200"]
        finally:
            writer.close()


async def living_engines(url: str, wanted: int, host: str | None = None) -> bool:
    """Whether so many engines are alive, on a machine or anywhere."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as connection:
            row = await (await connection.execute(LIVING_ENGINES, [host])).fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None and row[0] >= wanted


async def drained(url: str) -> Drained:
    """What is drained; nothing where there is no database yet, or no tables."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as connection:
            row = await (await connection.execute(DRAINED)).fetchone()
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return Drained()
    return Drained() if row is None else Drained(*row)
