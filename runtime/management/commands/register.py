"""`manage.py register`: make an author's endpoint the one that takes new invocations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from django.core.management.base import CommandParser

from runtime.conf import settings
from runtime.discovery import discover
from runtime.management.commands._output import OurCommand, run, shell_user
from runtime.registering import check_apart, register
from runtime.store.deployments import Registered
from runtime.store.link import Link


class Command(OurCommand):
    help = (
        "Register the endpoints at MODULE:ATTRIBUTE: new invocations of their services go to this code, while those "
        "under way stay with the code that they began on. Repeating it changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("locations", nargs="+", metavar="MODULE:ATTRIBUTE", help="as in examples.communication:app")
        parser.add_argument("--dry-run", action="store_true", help="only say what would come of it")
        parser.add_argument(
            "--force",
            action="store_true",
            help="also when a service moves here from elsewhere, or a handler is gone that invocations need",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        done = run(registered(options["locations"], force=options["force"], dry_run=options["dry_run"]))
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


async def registered(locations: Sequence[str], *, force: bool, dry_run: bool) -> list[Registered]:
    found = [discover(location) for location in locations]  # a mistake in the last one leaves none half-way
    check_apart(found)
    with closing(await Link.connect(settings().database_url)) as link:
        return [await register(one, link, by=shell_user(), force=force, dry_run=dry_run) for one in found]
