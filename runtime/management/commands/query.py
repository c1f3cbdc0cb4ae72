"""`manage.py query`: ask in SQL, as POST /query does."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from django.core.management.base import CommandParser

from runtime.conf import settings
from runtime.management.commands._output import OurCommand, run
from runtime.store.query import Bounds, answer


class Command(OurCommand):
    help = (
        "Answer one SELECT on the views of docs/sql.md. It runs as a database role that can read these and nothing "
        "else, for a bounded time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("sql", metavar="SQL", help="the query; - reads it from standard input")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        sql = sys.stdin.read() if options["sql"] == "-" else options["sql"]
        bounds = Bounds(settings().query_seconds, settings().query_rows)
        found = run(answer(settings().database_url, sql, bounds))
        rows = [msgspec.json.decode(row, type=dict[str, Any]) for row in found.rows]
        if options["json"]:
            self.json(rows)
        elif rows:
            self.table([*rows[0]], [[_cell(value) for value in row.values()] for row in rows])
        if found.is_cut:
            self.stderr.write(f"There is more: the answer was cut after {len(rows)} rows.")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text.replace("\n", "⏎")
