"""`manage.py doctor`: looks at everything Perdure needs, says what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
import importlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import django
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from runtime.checks import OLDEST_POSTGRES
from runtime.conf import Settings, settings
from runtime.management.stages import answers_http, living_engines
from runtime.servers import ports, reach


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one place; a hint means that it is not well."""

    words: str
    hint: str = ""


Look = Callable[[Settings], Finding]


class Command(BaseCommand):
    help = "Look at database, broker, channel layer, services and processes; say what is wrong and what to do."
    requires_system_checks = ()  # they look at a database that may not be there yet

    def handle(self, *args: Any, **options: Any) -> None:
        ill = 0
        for name, look in LOOKS.items():
            finding = look(settings())
            mark = self.style.ERROR("ill ") if finding.hint else self.style.SUCCESS("well")
            self.stdout.write(f"{mark}  {name:<11}{finding.words}")
            if finding.hint:
                ill += 1
                self.stdout.write(f"{'':<17}{finding.hint}")
        if ill:
            raise CommandError(f"{ill} of {len(LOOKS)} are not well.")


def look_at_python(_: Settings) -> Finding:
    return Finding(f"Python {platform.python_version()}, Django {django.get_version()}")


def look_at_database(now: Settings) -> Finding:
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000"
            )
            version, major = cursor.fetchone()
    except DatabaseError as error:
        return Finding(f"no connection: {str(error).splitlines()[0]}", _up_or("DATABASE_URL", "a PostgreSQL", now))
    if major < OLDEST_POSTGRES:
        return Finding(f"PostgreSQL {version} is too old", f"Perdure needs PostgreSQL {OLDEST_POSTGRES} or newer.")
    executor = MigrationExecutor(connection)
    if waiting := executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return Finding(f"PostgreSQL {version}, {len(waiting)} migrations behind", "Run: ./dev manage migrate")
    return Finding(f"PostgreSQL {version}, migrated")


def look_at_broker(now: Settings) -> Finding:
    trouble = reach.broker_trouble(now.broker_url)
    if trouble is None:
        return Finding(reach.without_password(now.broker_url))
    return Finding(trouble, _up_or("BROKER_URL", "a Redis, Valkey or RabbitMQ", now))


def look_at_channel_layer(now: Settings) -> Finding:
    hint = "Set CHANNEL_URL to a Redis or Valkey; the dashboard shows nothing live without one."
    if now.channel_url is None:
        return Finding("none: live events stay within one process", hint)
    trouble = reach.channel_layer_trouble(now.channel_url)
    return Finding(reach.without_password(now.channel_url)) if trouble is None else Finding(trouble, hint)


def look_at_services(now: Settings) -> Finding:
    for location in now.services:
        module, _, attribute = location.partition(":")
        try:
            getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever the author's module raises
            return Finding(
                f"{location} cannot be imported: {error!r}",
                "PERDURE_SERVICES takes module:attribute of an Endpoint, importable from where you are.",
            )
    return Finding(", ".join(now.services))


def look_at_engines(now: Settings) -> Finding:
    try:
        alive = asyncio.run(living_engines(now.database_url, 1))
    except Exception as error:  # no database, no table: said above in better words
        return Finding(f"not known: {str(error).splitlines()[0]}", "See to the database first.")
    return Finding("alive") if alive else Finding("none is alive", "Start them with ./dev up, or a Celery worker.")


def look_at_ingress(now: Settings) -> Finding:
    return _look_at_http(now.ingress_port, "/restate/health", "PERDURE_INGRESS_PORT")


def look_at_web(now: Settings) -> Finding:
    return _look_at_http(now.web_port, "/health", "PERDURE_WEB_PORT")


def _look_at_http(port: int, path: str, variable: str) -> Finding:
    try:
        well = asyncio.run(answers_http(port, path))
    except OSError:
        return Finding(f"nothing answers on port {port}", f"Start it with ./dev up; {variable} says which port it has.")
    if not well:
        return Finding(
            f"port {port} is held by {ports.holder(port) or 'something else'}", f"Set {variable} to another."
        )
    return Finding(f"answers on port {port}")


def _up_or(variable: str, server: str, now: Settings) -> str:
    """What to do when a server is missed."""
    if now.is_noted:
        return f"Is its `up` still running? Start it with ./dev up, or set {variable} to {server}."
    return f"{now.nothing_noted} Or set {variable} to {server}."


LOOKS: dict[str, Look] = {
    "python": look_at_python,
    "database": look_at_database,
    "broker": look_at_broker,
    "channels": look_at_channel_layer,
    "services": look_at_services,
    "engines": look_at_engines,
    "ingress": look_at_ingress,
    "web": look_at_web,
}
