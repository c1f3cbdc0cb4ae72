"""`manage.py invocations`: the latest ones, or one with its journal."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

import msgspec
from asgiref.sync import async_to_sync
from django.core.management.base import CommandParser

from perdure.protocol.ids import parse_id
from runtime.core.filters import InvocationFilter
from runtime.management.commands._output import OurCommand, in_words, invocation_row, moment
from runtime.operations import UnknownInvocation
from runtime.reading.invocations import MOST, Detail, find, page
from runtime.reading.journal import Entry


class Command(OurCommand):
    help = "List the latest invocations, newest first; with an ID, show that one and what it did."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="?", metavar="ID", help="of one invocation, as in inv_1…")
        parser.add_argument("--limit", type=_limit, default=20, metavar="N", help="how many to list (20)")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with in_words():
            if options["id"] is None:
                self.list(options["limit"], as_json=options["json"])
            else:
                self.show(options["id"], as_json=options["json"])

    def list(self, limit: int, *, as_json: bool) -> None:
        found = async_to_sync(page)(InvocationFilter(), limit=limit).invocations
        if as_json:
            self.json(found)
        elif not found:
            self.stderr.write("Nothing was invoked yet. `./dev manage invoke SERVICE HANDLER` calls a handler.")
        else:
            headings = ["STATUS", "INVOCATION", "CREATED", "TARGET", "FAILURE"]
            self.table(headings, [invocation_row(summary) for summary in found])

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
        "not served": f"no engine has loaded {detail.missing_code}" if detail.missing_code else "",
        "retries": str(summary.retry_count or ""),
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
