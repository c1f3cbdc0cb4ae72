"""`manage.py scheduled`: the sends that are not due yet; begin them now, move them, or take them back."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from perdure.protocol.ids import format_id, parse_id
from runtime import hall, rescheduling
from runtime.core.delays import BadDelay, read_delay
from runtime.core.lifecycle import bounded
from runtime.core.scheduled import ScheduledFilter
from runtime.management.commands._filters import moment as moment_option
from runtime.management.commands._output import OurCommand, in_words, moment, run, shell_user
from runtime.reading.scheduled import MOST, ids, page
from runtime.rescheduling import NOW
from runtime.store.scheduled import Rescheduled, Word

LIST, RUN_NOW, MOVE, CANCEL = "list", "run-now", "move", "cancel"
SAID = {
    RUN_NOW: "begins now",
    MOVE: "is due at {due}",
    CANCEL: "is taken back",
    Word.BEGUN: "is due already: it has begun, or has ended",
    Word.UNKNOWN: "is not known, or not kept any more",
}


class Command(OurCommand):
    help = (
        "List the sends that are not due yet, by the time at which they are. `run-now`, `move` and `cancel` take IDs, "
        "or what the filters mean. Exits with 1 when one that was named has begun meanwhile or is unknown."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("verb", nargs="?", default=LIST, choices=(LIST, RUN_NOW, MOVE, CANCEL))
        parser.add_argument("ids", nargs="*", metavar="ID", help="of a send, as in inv_1…; without one, the filters")
        parser.add_argument("--service", metavar="NAME")
        parser.add_argument("--handler", metavar="NAME")
        parser.add_argument("--key", metavar="KEY")
        parser.add_argument("--due-after", type=moment_option, metavar="TIME", help="due at this time or later")
        parser.add_argument("--due-before", type=moment_option, metavar="TIME", help="due before this time")
        parser.add_argument("--all", action="store_true", help="all there are, where no filter is given")
        parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many to list (20)")
        to = parser.add_mutually_exclusive_group()
        to.add_argument(
            "--to", type=moment_option, metavar="TIME", help="move: as in 2030-01-31T08:00, in this time zone"
        )
        to.add_argument("--delay", type=_delay, metavar="DELAY", help="move: from now, as in 5m or `1h 30m`")
        parser.add_argument("--dry-run", action="store_true", help="only count what is meant")
        parser.add_argument("--yes", action="store_true", help="do not ask before a filter touches more than one")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = ScheduledFilter(
            **{name: options[name] for name in ("service", "handler", "key", "due_after", "due_before")}
        )
        with in_words():
            if options["verb"] == LIST:
                self.list(wanted, min(max(options["limit"], 1), MOST), as_json=options["json"])
            else:
                self.tell(options["verb"], self.meant(wanted, options), options)

    def list(self, wanted: ScheduledFilter, limit: int, *, as_json: bool) -> None:
        found = async_to_sync(page)(wanted, limit)
        if as_json:
            self.json(found.scheduled)
        elif not found.scheduled:
            self.stderr.write("Nothing that is meant waits for its time.")
        else:
            self.table(
                ["DUE", "INVOCATION", "TARGET", "CREATED"],
                [[moment(one.due_at), one.id, one.target, moment(one.created_at)] for one in found.scheduled],
            )
            if found.next is not None:
                self.stderr.write(f"There are more: --limit shows up to {MOST}.")

    def meant(self, wanted: ScheduledFilter, options: dict[str, Any]) -> Sequence[bytes]:
        """Those that were named, else those of the filters."""
        if options["ids"]:
            return [parse_id(id) for id in options["ids"]]
        if wanted == ScheduledFilter() and not options["all"]:
            raise CommandError("Which ones? Name IDs or filters; --all means all there are.", returncode=2)
        found = async_to_sync(ids)(wanted, rescheduling.MOST + 1)
        if len(found) > rescheduling.MOST:
            raise CommandError(f"These are more than {rescheduling.MOST}: narrow the filters, and do it in parts.")
        return found

    def tell(self, verb: str, meant: Sequence[bytes], options: dict[str, Any]) -> None:
        due = _due(options) if verb == MOVE else NOW
        if options["dry_run"]:
            self.report(verb, meant, None, options)
            return
        if len(meant) > 1 and not (options["ids"] or options["yes"]):
            self.confirm(f"{verb} {len(meant)} sends?")
        came = run(_tell(verb, meant, due))
        self.report(verb, meant, came, options)
        if options["ids"] and (missed := len(meant) - came.count(Word.DONE)):
            raise CommandError(f"{missed} of {len(meant)} could not be told.")

    def report(self, verb: str, meant: Sequence[bytes], came: Rescheduled | None, options: dict[str, Any]) -> None:
        if options["json"]:
            words = {} if came is None else {format_id(id): word for id, word in came.words.items()}
            done = 0 if came is None else came.count(Word.DONE)
            self.json({"matched": len(meant), "done": done, "sends": words, "note": came and came.in_words})
        elif came is None:
            self.stdout.write(f"{len(meant)} sends are meant. Nothing was done.")
        elif options["ids"]:
            for id, word in came.words.items():
                due = moment(datetime.fromtimestamp(came.due[id] / 1000).astimezone()) if id in came.due else ""
                self.stdout.write(f"{format_id(id)}  {SAID[verb if word is Word.DONE else word].format(due=due)}")
        else:
            done = came.count(Word.DONE)
            others = "" if done == len(meant) else "; the others have begun meanwhile"
            self.stdout.write(f"{verb}: {done} of {len(meant)} sends{others}.")
        if came is not None and came.in_words and not options["json"]:
            self.stderr.write(came.in_words)


async def _tell(verb: str, meant: Sequence[bytes], due: int) -> Rescheduled:
    async with hall.visit() as here:
        if verb == CANCEL:
            return await rescheduling.cancel(here, meant, shell_user())
        return await rescheduling.move(here, meant, due, shell_user())


def _due(options: dict[str, Any]) -> int:
    to, delay = options["to"], options["delay"]
    if to is None and delay is None:
        raise CommandError("To what time? Say --to or --delay.", returncode=2)
    return bounded(int(time.time() * 1000) + delay if to is None else max(1, int(to.timestamp() * 1000)))


def _delay(text: str) -> int:
    try:
        return read_delay(text)
    except BadDelay as error:
        raise ArgumentTypeError(f"{error} {error.hint}") from error
