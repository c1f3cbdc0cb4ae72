"""`manage.py objects`: the keys of virtual objects; with a SERVICE and a KEY, one with its inbox."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from runtime.management.commands._output import OurCommand, in_words, moment
from runtime.reading.objects import COUNTED, MOST, Object, ObjectKey, find, page


class Command(OurCommand):
    help = (
        "List the keys of virtual objects that have values or an inbox; with SERVICE and KEY, show who has that key "
        "and who waits for it, in order. Their values: manage.py state."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", nargs="?", metavar="SERVICE")
        parser.add_argument("key", nargs="?", metavar="KEY")
        parser.add_argument("--prefix", metavar="TEXT", help="only keys that begin so")
        parser.add_argument("--busy", action="store_true", help="only keys that somebody has or waits for")
        parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many to list (20)")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        limit = min(max(options["limit"], 1), MOST)
        with in_words():
            if options["key"] is None:
                self.list(options, limit)
            else:
                self.show(async_to_sync(find)(options["service"], options["key"], limit=limit), options)

    def list(self, options: dict[str, Any], limit: int) -> None:
        found = async_to_sync(page)(
            service=options["service"], prefix=options["prefix"], busy=options["busy"], limit=limit
        )
        if options["json"]:
            self.json(found.objects)
        elif not found.objects:
            self.stderr.write("No key that is meant has values, or is waited for.")
        else:
            self.table(["OBJECT", "KEY", "INBOX", "STATE", "HELD BY", "SINCE"], [_row(one) for one in found.objects])
            if found.next is not None:
                self.stderr.write(f"There are more: --limit shows up to {MOST}.")

    def show(self, found: Object, options: dict[str, Any]) -> None:
        if options["json"]:
            self.json(found)
            return
        if not (found.inbox_length or found.has_state):
            raise CommandError(f"{found.service}/{found.key} has no values, and nobody waits for it.")
        holder = found.holder
        held = f"{holder.handler} {holder.id} ({holder.status}) since {moment(holder.since)}" if holder else "by nobody"
        values = f"manage.py state {found.service} {found.key} shows them" if found.has_state else "none"
        for name, value in (("key", f"{found.service}/{found.key}"), ("held", held), ("values", values)):
            self.stdout.write(f"{self.style.MIGRATE_LABEL(f'{name:<8}')}{value}")
        if found.inbox:
            self.stdout.write("")
            self.table(
                ["STATUS", "INVOCATION", "HANDLER", "CREATED"],
                [[one.status, one.id, one.handler, moment(one.created_at)] for one in found.inbox],
            )
        if found.next is not None:
            self.stderr.write(f"{found.inbox_length} are in the inbox: --limit shows up to {MOST}.")


def _row(one: ObjectKey) -> list[str]:
    inbox = f"{COUNTED} or more" if one.inbox_length == COUNTED else str(one.inbox_length or "")
    held, since = (f"{one.holder.handler} {one.holder.id}", moment(one.holder.since)) if one.holder else ("", "")
    return [one.service, one.key, inbox, "yes" if one.has_state else "", held, since]
