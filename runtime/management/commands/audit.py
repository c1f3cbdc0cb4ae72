"""`manage.py audit`: who did what."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from runtime.accounts import audit
from runtime.management.commands._output import OurCommand, in_words, moment


class Command(OurCommand):
    help = "Show who did what, from where and with what result, denials included; the newest first."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--actor", metavar="NAME", help="of this account, token or shell user only")
        parser.add_argument("--verb", metavar="VERB", help="as in invocation.cancel; `invocation.`: all of its kind")
        parser.add_argument("--target", metavar="ID", help="on this invocation, service, token …")
        parser.add_argument("--result", metavar="WORD", help="as in done, asked, denied")
        parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default 50)")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = {name: options[name] for name in ("actor", "verb", "target", "result", "limit")}
        with in_words():
            entries = audit.audit(**wanted)
        if options["json"]:
            fields = ("id", "at", "actor", "role", "origin", "verb", "target", "details", "result")
            self.json([{field: getattr(entry, field) for field in fields} for entry in entries])
        elif entries:
            rows = [[moment(one.at), one.actor, one.origin, one.verb, one.result, one.target] for one in entries]
            self.table(("at", "who", "from", "what", "result", "on"), rows)
        else:
            self.stdout.write("Nothing of that kind was done.")
