"""`manage.py replay`: would this code go on with what is under way?"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from django.core.management.base import CommandError, CommandParser

from runtime.conf import settings
from runtime.discovery import load_endpoint
from runtime.management.commands._output import OurCommand, run
from runtime.replaying import Replayed, replay_all
from runtime.store.link import Link


class Command(OurCommand):
    help = (
        "Replay what is under way with the code at MODULE:ATTRIBUTE, and list what that would not go on with: which "
        "invocation, and at which command they part. Nothing is switched, and no step (ctx.run) is carried out; what "
        "is outside of steps is executed, as in every replay. Exits with 3 when something does not fit."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("location", metavar="MODULE:ATTRIBUTE", help="as in examples.communication:app")
        parser.add_argument("--service", action="append", help="only this one; may be repeated")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        found = run(replayed(options["location"], options["service"] or []))
        if options["json"]:
            self.json(found)
        elif found.misfits:
            self.table(
                ["invocation", "handler", "command", "why"],
                [
                    [one.invocation_id, one.handler, "" if one.command is None else str(one.command), _line(one.reason)]
                    for one in found.misfits
                ],
            )
        count = found.invocations
        if found.misfits:
            raise CommandError(f"{len(found.misfits)} of {count} under way would not go on with it.", returncode=3)
        self.stderr.write(self.style.SUCCESS(f"All {count} under way would go on with it."))


async def replayed(location: str, services: list[str]) -> Replayed:
    endpoint = load_endpoint(location)
    offered = [service.name for service in endpoint.manifest().services]
    with closing(await Link.connect(settings().database_url)) as link:
        return await replay_all(endpoint, services or offered, link)


def _line(reason: str) -> str:
    return reason.partition("\n")[0]
