"""`manage.py invocations`: those that a filter means, or one with its journal and what keeps it."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

import msgspec
from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from perdure.protocol.ids import parse_id
from runtime.core.filters import InvocationFilter, Sort
from runtime.management.commands._filters import add_filters, read_filter
from runtime.management.commands._output import OurCommand, in_words, invocation_row, moment
from runtime.operations import UnknownInvocation
from runtime.reading import invocations
from runtime.reading.detail import Detail, find
from runtime.reading.invocations import MOST
from runtime.reading.journal import Entry
from runtime.reading.why import why


class Command(OurCommand):
    help = (
        "List invocations, alive or ended, the newest first; with an ID, show that one, what it did and what keeps it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="?", metavar="ID", help="of one invocation, as in inv_1…")
        parser.add_argument("--why", action="store_true", help="of one: say only what keeps it from going on")
        parser.add_argument("--count", action="store_true", help="say only how many there are")
        parser.add_argument("--sort", choices=list(Sort), default=Sort.NEWEST, help="with a minus: the latest first")
        parser.add_argument("--limit", type=_limit, default=20, metavar="N", help="how many to list (20)")
        parser.add_argument("--cursor", metavar="CURSOR", help="go on where the list before ended")
        add_filters(parser)
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        wanted, id = read_filter(options), options["id"]
        if id is not None and wanted != InvocationFilter():
            raise CommandError("Either an ID or filters: one invocation needs none.", returncode=2)
        if id is None and options["why"]:
            raise CommandError("Which one? --why is said of an ID.", returncode=2)
        with in_words():
            if options["why"]:
                self.explain(id, as_json=options["json"])
            elif id is not None:
                self.show(id, as_json=options["json"])
            elif options["count"]:
                self.count(wanted, as_json=options["json"])
            else:
                self.list(wanted, options)

    def list(self, wanted: InvocationFilter, options: dict[str, Any]) -> None:
        sort = Sort(options["sort"])
        page = async_to_sync(invocations.page)(wanted, sort, limit=options["limit"], cursor=options["cursor"])
        if options["json"]:
            self.json(page)
        elif page.invocations:
            headings = ["STATUS", "INVOCATION", "CREATED", "TARGET", "FAILURE"]
            self.table(headings, [invocation_row(summary) for summary in page.invocations])
            if page.cut is not None:
                self.stderr.write(page.cut)
            if page.next is not None:
                self.stderr.write(f"There are more. The next: --cursor {page.next}")
        elif wanted != InvocationFilter() or options["cursor"]:
            self.stderr.write("There is none, or no more.")
        else:
            self.stderr.write("Nothing was invoked yet. `./dev manage invoke SERVICE HANDLER` calls a handler.")

    def count(self, wanted: InvocationFilter, *, as_json: bool) -> None:
        count = async_to_sync(invocations.count)(wanted)
        if as_json:
            self.json({"value": count.value, "exact": count.is_exact})
        else:
            self.stdout.write(str(count.value) if count.is_exact else f"about {count.value}")

    def explain(self, id: str, *, as_json: bool) -> None:
        found = async_to_sync(why)(parse_id(id))
        if found is None:
            raise UnknownInvocation(parse_id(id))
        if as_json:
            self.json(found)
        else:
            self.stdout.write("\n".join(found.sentences))

    def show(self, id: str, *, as_json: bool) -> None:
        detail = async_to_sync(find)(parse_id(id))
        if detail is None:
            raise UnknownInvocation(parse_id(id))
        if as_json:
            self.json(detail)
            return
        for name, value in _facts(detail):
            self.stdout.write(f"{self.style.MIGRATE_LABEL(f'{name:<12}')}{value}")
        if trace := (detail.summary.failure or {}).get("stacktrace"):
            self.stdout.write(f"\n{self.style.MIGRATE_LABEL('where the last attempt failed')}\n{trace.rstrip()}")
        self.stdout.write("")
        self.table(["", "ENTRY", "NAME", "RESULT", "DETAILS"], [_entry_row(entry) for entry in detail.journal])


def _facts(detail: Detail) -> list[tuple[str, str]]:
    summary = detail.summary
    facts = {
        "invocation": summary.id,
        "target": summary.target,
        "status": f"{summary.status}, {summary.outcome}" if summary.outcome else summary.status,
        "created": moment(summary.created_at),
        "completed": moment(summary.completed_at) if summary.completed_at else "",
        "due": moment(summary.due_at) if summary.due_at else "",
        "called by": summary.invoked_by_id or "",
        "idempotency": summary.idempotency_key or "",
        "code": summary.deployment_id or "",
        "why": f"\n{'':<12}".join(detail.why.sentences) if summary.outcome is None else "",
        "attempts": f"{summary.retry_count} failed" if summary.retry_count else "",
        "failure": (summary.failure or {}).get("message", ""),
    }
    return [(name, value) for name, value in facts.items() if value]


def _entry_row(entry: Entry) -> list[str]:
    result = {None: "", True: "has come", False: "awaited"}[entry.completed]
    details = msgspec.json.encode(entry.details).decode() if entry.details else ""
    return [str(entry.index), entry.type, entry.name, result, details]


def _limit(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST:
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST}")
    return int(text)
