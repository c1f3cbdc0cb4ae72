"""`manage.py register`: make an author's endpoint the one that takes new invocations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from django.core.management.base import CommandParser

from runtime.conf import settings
from runtime.management.commands._output import OurCommand, run
from runtime.registering import load_endpoint, register_module
from runtime.store.deployments import Registered
from runtime.store.link import Link


class Command(OurCommand):
    help = (
        "Register the endpoints at MODULE:ATTRIBUTE: new invocations of their services go to this code, while those "
        "under way stay with the code that they began on. Repeating it changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("locations", nargs="+", metavar="MODULE:ATTRIBUTE", help="as in examples.communication:app")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        done = run(register(options["locations"]))
        if options["json"]:
            self.json(done)
            return
        for location, registered in zip(options["locations"], done, strict=True):
            news = "registered" if registered.is_new else "already known"
            self.stdout.write(
                f"{location}: {self.style.SUCCESS(news)} as {registered.deployment_id}, "
                f"serving {', '.join(registered.services)}"
            )


async def register(locations: Sequence[str]) -> list[Registered]:
    for location in locations:
        load_endpoint(location)  # a mistake in the last one should not leave the others half-way
    with closing(await Link.connect(settings().database_url)) as link:
        return [await register_module(location, link) for location in locations]
