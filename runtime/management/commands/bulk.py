"""`manage.py bulk`: the verbs by filter, how far they have come, and stopping one."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from runtime import bulk, hall
from runtime.management.commands._output import OurCommand, in_words, moment, run, shell_user
from runtime.reading.bulk import Bulk, find, latest

SHOWN = 20


class Command(OurCommand):
    help = "List the latest verbs by filter, look at one, or stop it: nobody else is told, and who has been stays told."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="?", type=_id, metavar="ID", help="one of them")
        parser.add_argument("--stop", action="store_true", help="tell nobody else")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        id: UUID | None = options["id"]
        if options["stop"] and id is None:
            raise CommandError("Which one? Name its ID; without --stop they are listed.", returncode=2)
        if id is None:
            with in_words():
                self.list(async_to_sync(latest)(SHOWN), as_json=options["json"])
            return
        is_stopped = run(_stop(id)) if options["stop"] else True
        with in_words():
            found = async_to_sync(find)(id)
        if found is None:
            raise CommandError(f"There is no verb by filter {id}, or it is not kept any more.")
        if not is_stopped:
            raise CommandError(f"The verb by filter {id} is finished already: there is nothing to stop.")
        self.list([found], as_json=options["json"])

    def list(self, found: list[Bulk], *, as_json: bool) -> None:
        if as_json:
            self.json(found)
        elif not found:
            self.stderr.write("Nothing was asked for by filter in the last days.")
        else:
            headings = ["STATUS", "BULK", "VERB", "TOLD", "REFUSED", "OF", "CREATED", "BY"]
            self.table(headings, [_row(one) for one in found])


async def _stop(id: UUID) -> bool:
    async with hall.visit() as here:
        return await bulk.stop(here, id.bytes, shell_user())


def _row(one: Bulk) -> list[str]:
    status = "stopped" if one.stopped_by else "finished" if one.finished_at else "running"
    numbers = [str(number) for number in (one.told, one.refused, one.total)]
    return [status, one.id, one.verb, *numbers, moment(one.created_at), one.asked_by]


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no id of a verb by filter; `manage.py bulk` lists them") from error
