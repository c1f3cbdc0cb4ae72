"""`manage.py register`: make an author's endpoint the one that takes new invocations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from runtime.conf import settings
from runtime.core.deployments import NEWEST_PROTOCOL, OLDEST_PROTOCOL
from runtime.discovery import Discovered, discover
from runtime.management.commands._output import OurCommand, run, shell_user
from runtime.registering import Wanted, check_apart, find, register
from runtime.store.deployments import Registered
from runtime.store.link import Link

THE_USUAL = Wanted()
HOST_AND_PORT = re.compile(r"[A-Za-z0-9.-]+:[0-9]+(/.*)?")
"""A URL without its scheme, which is told from a module to say so."""


class Command(OurCommand):
    help = (
        "Register endpoints, at URLs or as MODULE:ATTRIBUTE: new invocations of their services go to this code, while "
        "those under way stay with the code that they began on. Repeating it changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "locations",
            nargs="+",
            metavar="ENDPOINT",
            help="as in http://greeter:9080, or examples.communication:app",
        )
        parser.add_argument(
            "--http11", action="store_true", help="speak HTTP/1.1 with URLs; else HTTP/2 is tried first"
        )
        parser.add_argument(
            "--header",
            action="append",
            metavar="'NAME: VALUE'",
            help="sent to URLs with every request, kept and never shown; 'NAME: @FILE' takes the value from a file",
        )
        parser.add_argument("--metadata", action="append", metavar="NAME=VALUE", help="what else to remember of URLs")
        parser.add_argument(
            "--max-protocol-version",
            type=int,
            choices=range(OLDEST_PROTOCOL, NEWEST_PROTOCOL + 1),
            default=NEWEST_PROTOCOL,
            help="the newest version of the invocation protocol to drive URLs in",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what would come of it")
        parser.add_argument(
            "--force",
            action="store_true",
            help="also when other code was behind the URL, a service moves here from elsewhere, or a handler is gone "
            "that invocations need",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = Wanted(
            options["http11"],
            _headers(options["header"]),
            _metadata(options["metadata"]),
            options["max_protocol_version"],
        )
        done = run(registered(options["locations"], wanted, force=options["force"], dry_run=options["dry_run"]))
        if options["json"]:
            self.json(done)
            return
        for location, one in zip(options["locations"], done, strict=True):
            news = "registered" if one.is_new else "already known"
            if options["dry_run"]:
                news = f"would be {news}"
            self.stdout.write(
                f"{location}: {self.style.SUCCESS(news)} as {one.deployment_id}, serving {', '.join(one.services)}"
            )
            for warning in one.warnings:
                self.stderr.write(self.style.WARNING(warning))


async def registered(
    locations: Sequence[str], wanted: Wanted = THE_USUAL, *, force: bool, dry_run: bool
) -> list[Registered]:
    found = [await _discover(location, wanted) for location in locations]  # a mistake in the last leaves none half-way
    check_apart(found)
    with closing(await Link.connect(settings().database_url)) as link:
        return [await register(one, link, by=shell_user(), force=force, dry_run=dry_run) for one in found]


async def _discover(location: str, wanted: Wanted) -> Discovered:
    is_url = "://" in location or HOST_AND_PORT.fullmatch(location)
    return await find(location, wanted, settings()) if is_url else discover(location)


def _headers(said: Sequence[str] | None) -> dict[str, str] | None:
    if said is None:
        return None
    headers = {}
    for line in said:
        name, colon, value = line.partition(":")
        if not colon:
            raise CommandError("A header is written as 'NAME: VALUE'.", returncode=2)
        value = value.strip()
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text().strip()
            except OSError as error:
                raise CommandError(f"{value[1:]} cannot be read: {error.strerror}.", returncode=2) from error
        headers[name.strip()] = value
    return headers


def _metadata(said: Sequence[str] | None) -> dict[str, str] | None:
    if said is None:
        return None
    if not all("=" in one for one in said):
        raise CommandError("Metadata is written as NAME=VALUE.", returncode=2)
    return {name: value for name, _, value in (one.partition("=") for one in said)}
