"""How our commands speak: tables for people, JSON for programs, and errors that say what to do next.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 it could not be done; 2 it was
not asked right; what else one has stands in its help.
"""

from __future__ import annotations

import asyncio
import getpass
import shutil
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from perdure.errors import SdkError
from runtime.conf import ANY_DATABASE, settings
from runtime.core.access import Actor, Role
from runtime.errors import DatabaseError, Disconnected, RuntimeFault
from runtime.reading.invocations import Summary

T = TypeVar("T")

INTERRUPTED = 130  # what a shell says of a program that a Ctrl-C ended
NO_TABLE = "42P01"  # PostgreSQL's code for it
MIGRATE = "The database has no tables of ours yet. Run: ./dev manage migrate"
BAR = 40  # characters of a progress bar
NARROWEST = 12  # characters that a column keeps when the terminal is too narrow for all

COLOURS = {
    "running": "SQL_KEYWORD",
    "succeeded": "SUCCESS",
    "failed": "ERROR",
    "killed": "ERROR",
    "cancelled": "WARNING",
    "backing-off": "WARNING",
    "paused": "WARNING",
}


class OurCommand(BaseCommand):
    """A command that answers in a table or in JSON."""

    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="answer in JSON")

    def json(self, value: Any) -> None:
        self.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns under headings, as wide as they must be; on a terminal no line is wider than that."""
        width = shutil.get_terminal_size().columns if self.stdout.isatty() else None
        for number, line in enumerate(lines([headings, *rows], width)):
            self.stdout.write(self.style.MIGRATE_LABEL(line) if number == 0 else self.coloured(line))

    def confirm(self, question: str) -> None:
        """Raises CommandError unless somebody says yes."""
        if not sys.stdin.isatty():
            raise CommandError(f"{question} Say --yes.", returncode=2)
        if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was done.")

    def progress(self, done: int, total: int) -> None:
        """A bar that grows, on a terminal only."""
        if self.stderr.isatty():
            filled = BAR * done // max(total, 1)
            end = "\n" if done >= total else ""
            self.stderr.write(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {done}/{total}", ending=end)
            self.stderr.flush()

    def coloured(self, line: str) -> str:
        """A line of a list of invocations, whose first word says how it stands with one."""
        status = line.split(" ", 1)[0]
        paint = getattr(self.style, COLOURS.get(status, ""), None)
        return line if paint is None else paint(status) + line[len(status) :]


def shell_user() -> Actor:
    """Whoever sits at this terminal: who can read the settings can do everything."""
    return Actor(getpass.getuser(), Role.ADMIN, "shell")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run what talks to the engine; a Ctrl-C cancels it, and what it asked for stays asked for."""
    with in_words():
        try:
            return asyncio.run(work)
        except KeyboardInterrupt:
            raise CommandError("Stopped waiting. What was asked for stays asked for.", returncode=INTERRUPTED) from None


@contextmanager
def in_words() -> Iterator[None]:
    """Faults as errors of a command: what is wrong, and what to do."""
    try:
        yield
    except SdkError as error:
        raise CommandError(str(error)) from error
    except DatabaseError as error:
        raise CommandError(MIGRATE if error.sqlstate == NO_TABLE else str(error)) from error
    except Disconnected as fault:
        raise CommandError(f"{fault}\n{_cure()}") from fault
    except RuntimeFault as fault:
        raise CommandError(f"{fault}\n{fault.hint}".rstrip()) from fault
    except OperationalError as error:
        raise CommandError(f"{str(error).splitlines()[0]}\n{_cure()}") from error
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", None) != NO_TABLE:
            raise
        raise CommandError(MIGRATE) from error


def _cure() -> str:
    """What to do when the database does not answer."""
    now = settings()
    return now.nothing_noted if now.database_url == ANY_DATABASE else Disconnected.hint


def lines(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Rows as lines of aligned columns; the last column gives way first when `width` is too small.

    >>> lines([["name", "type"], ["Greeter", "service"]], None)
    ['name     type', 'Greeter  service']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for column in reversed(range(len(widths))):
        excess = 0 if width is None else sum(widths) + 2 * (len(widths) - 1) - width
        if excess > 0:
            widths[column] = max(min(NARROWEST, widths[column]), widths[column] - excess)
    return ["  ".join(_fit(cell, size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]


def invocation_row(summary: Summary) -> list[str]:
    """One line about an invocation."""
    failure = (summary.failure or {}).get("message", "").partition("\n")[0]
    retries = f"{summary.retry_count} × " if summary.retry_count else ""
    return [
        summary.outcome or summary.status,
        summary.id,
        moment(summary.created_at),
        summary.target,
        f"{retries}{failure}",
    ]


def moment(time: datetime) -> str:
    """A point in time as people here read it: in the machine's time zone, to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"
