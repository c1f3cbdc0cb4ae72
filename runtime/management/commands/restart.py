"""`manage.py restart`: do again what has ended, as new invocations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.management.base import CommandError, CommandParser

from perdure.protocol.ids import format_id
from runtime import steering
from runtime.management.commands._output import shell_user
from runtime.management.commands._verbs import VerbCommand
from runtime.operations import Operations
from runtime.steering import Verb
from runtime.store.restart import Restarted


class Command(VerbCommand):
    help = (
        "Do again what has ended, in new invocations: with the same inputs, or with the journal up to an entry, none "
        "of which is done again. Exits with 1 when one is unknown, has not ended, or cannot be restarted from there."
    )
    said: ClassVar = {
        Restarted.RESTARTED: "is done again",
        Restarted.NOT_ENDED: "has not ended yet",
        Restarted.JOURNAL_GONE: "has no journal any more: it was purged",
        Restarted.NO_SUCH_ENTRY: "has no such entry that could be taken over",
        Restarted.STILL_OPEN: "awaits something before that entry which has not come yet; choose an earlier one",
        Restarted.NO_SUCH_CODE: "cannot go on there: no such deployment has its handler; `latest` is its newest",
        Restarted.RUNS_ONCE: "is a workflow's run, of which there is one for each key: purge it, and run that again",
        Restarted.NO_SERVICE: "has no code any more: `register` some that has its handler",
    }
    told = (Restarted.RESTARTED,)
    takes_code = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from", type=int, default=0, dest="last", metavar="ENTRY", help="0 (the default): the input"
        )
        super().add_arguments(parser)

    def verb(self, options: Mapping[str, Any]) -> Verb:
        return Verb.RESTART

    def by_filter(self, options: Mapping[str, Any]) -> None:
        if options["last"]:
            raise CommandError("By filter they begin anew, with their inputs: --from is for those that are named.")
        super().by_filter(options)

    async def tell_one(self, here: Operations, id: bytes, options: Mapping[str, Any]) -> str:
        found = await steering.restart(here, id, shell_user(), max(options["last"], 0), options["deployment"])
        if found.new is not None:
            self.stderr.write(f"{format_id(id)} is done again as {format_id(found.new)}")
        if found.open is not None:
            self.stderr.write(f"{format_id(id)} can be done again up to the entry {found.open.index - 1}")
        return found.word
