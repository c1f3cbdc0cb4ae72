"""`manage.py doctor`: looks at everything Perdure needs, says what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
import importlib
import platform
from contextlib import closing
from typing import Any

import django
from django.core.management.base import BaseCommand, CommandError

from runtime.conf import Settings, settings
from runtime.core.deployments import HttpDeployment
from runtime.errors import RuntimeFault
from runtime.management.stages import answers_http
from runtime.outbound import OutboundError
from runtime.reading import health
from runtime.reading.health import Condition, Finding, Look
from runtime.registering import ask_again
from runtime.servers import ports
from runtime.store.deployments import http_deployments, load_registry
from runtime.store.link import Link


class Command(BaseCommand):
    help = (
        "Look at servers, services, processes and what waits; say what is wrong and what to do. "
        "What somebody has drained is noted, and is nothing wrong."
    )
    requires_system_checks = ()  # they look at a database that may not be there yet

    def handle(self, *args: Any, **options: Any) -> None:
        ill = 0
        for name, look in LOOKS.items():
            finding = look(settings())
            ill += (is_ill := finding.condition is not Condition.OK and not finding.is_wanted)
            if is_ill:
                mark = self.style.ERROR("ill ")
            else:
                mark = self.style.WARNING("note") if finding.is_wanted else self.style.SUCCESS("well")
            self.stdout.write(f"{mark}  {name:<11}{finding.words}")
            if finding.hint:
                self.stdout.write(f"{'':<17}{finding.hint}")
        if ill:
            raise CommandError(f"{ill} of {len(LOOKS)} are not well.")


def look_at_python(_: Settings) -> Finding:
    return Finding(f"Python {platform.python_version()}, Django {django.get_version()}")


def look_at_services(now: Settings) -> Finding:
    for location in now.services:
        module, _, attribute = location.partition(":")
        try:
            getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever the author's module raises
            return Finding(
                f"{location} cannot be imported: {error!r}",
                "PERDURE_SERVICES takes module:attribute of an Endpoint, importable from where you are.",
                Condition.DOWN,
            )
    return Finding(", ".join(now.services))


def look_at_urls(now: Settings) -> Finding:
    """Whether what takes new invocations behind URLs is there, and is what it was."""
    try:
        asked = asyncio.run(_ask_urls(now))
    except RuntimeFault as fault:
        return Finding(f"cannot be looked at: {fault}", fault.hint, Condition.DOWN)
    ill = [(url, error) for url, error in asked if error is not None]
    if not ill:
        return Finding(f"all answer: {', '.join(url for url, _ in asked)}" if asked else "no service is behind one")
    (_, first), *others = ill
    more = f" And {len(others)} more: {', '.join(url for url, _ in others)}." if others else ""
    return Finding(f"{first}{more}", first.hint, Condition.DOWN)


async def _ask_urls(now: Settings) -> list[tuple[str, OutboundError | None]]:
    with closing(await Link.connect(now.database_url)) as link:
        services = (await load_registry(link)).services.values()
        deployments = await http_deployments(link)
    serving = {service.deployment for service in services}
    asked = [deployment for deployment in deployments if deployment.id in serving]
    errors = await asyncio.gather(*(_ask(deployment, now) for deployment in asked))
    return [(deployment.url, error) for deployment, error in zip(asked, errors, strict=True)]


async def _ask(deployment: HttpDeployment, now: Settings) -> OutboundError | None:
    try:
        await ask_again(deployment, now)
    except OutboundError as error:
        return error
    return None


def look_at_ingress(now: Settings) -> Finding:
    return _look_at_http(now.ingress_port, "/restate/health", "PERDURE_INGRESS_PORT")


def look_at_web(now: Settings) -> Finding:
    return _look_at_http(now.web_port, "/health", "PERDURE_WEB_PORT")


def _look_at_http(port: int, path: str, variable: str) -> Finding:
    try:
        well = asyncio.run(answers_http(port, path))
    except OSError:
        hint = f"Start it with ./dev up; {variable} says which port it has."
        return Finding(f"nothing answers on port {port}", hint, Condition.DOWN)
    if not well:
        words = f"port {port} is held by {ports.holder(port) or 'something else'}"
        return Finding(words, f"Set {variable} to another.", Condition.DOWN)
    return Finding(f"answers on port {port}")


LOOKS: dict[str, Look] = {
    "python": look_at_python,
    "database": health.look_at_database,
    "broker": health.look_at_broker,
    "channels": health.look_at_channel_layer,
    "services": look_at_services,
    "urls": look_at_urls,
    "engines": health.look_at_engines,
    "queues": health.look_at_queues,
    "keys": health.look_at_keys,
    "outbox": health.look_at_outbox,
    "ingress": look_at_ingress,
    "web": look_at_web,
}
