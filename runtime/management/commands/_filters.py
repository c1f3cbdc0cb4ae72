"""Which invocations are meant, as options of a command."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from perdure.errors import InvalidInvocationId
from perdure.protocol.ids import parse_id
from runtime.core.filters import InvocationFilter
from runtime.core.invocation import Outcome, Status

TEXTS = {"service": "NAME", "handler": "NAME", "key": "KEY", "deployment": "ID", "idempotency_key": "KEY"}
TIMES = ("created_after", "created_before", "modified_after", "modified_before", "due_after", "due_before")


def add_filters(parser: CommandParser, *, without: Container[str] = ()) -> None:
    """The options that `read_filter` reads; `without` those that mean something else here."""
    filters = parser.add_argument_group("filters", "which invocations: those for which all that is said is so")
    filters.add_argument("--status", action="append", choices=list(Status), help="one of these; may be repeated")
    filters.add_argument("--outcome", action="append", choices=list(Outcome), help="ended so; may be repeated")
    for name, metavar in TEXTS.items():
        if name not in without:
            filters.add_argument(f"--{name.replace('_', '-')}", type=text, metavar=metavar)
    filters.add_argument(
        "--caller", type=invocation_id, metavar="ID", help="called by this one, which awaits the result"
    )
    for name in TIMES:
        filters.add_argument(f"--{name.replace('_', '-')}", type=moment, metavar="TIME")
    filters.add_argument("--failure", type=text, metavar="TEXT", help="in the message of its failure; capitals or not")


def read_filter(options: Mapping[str, Any]) -> InvocationFilter:
    return InvocationFilter(
        statuses=tuple(map(Status, options["status"] or ())),
        outcomes=tuple(map(Outcome, options["outcome"] or ())),
        **{name: options[name] for name in (*TEXTS, *TIMES, "caller", "failure")},
    )


def moment(text: str) -> datetime:
    """A time as people here write it: in the machine's time zone, unless it says another one."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise ArgumentTypeError(f"{text!r} is no time; write it like 2030-01-31T08:00") from error


def text(given: str) -> str:
    """What PostgreSQL can be asked for."""
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise ArgumentTypeError(f"{given!r} is no Unicode") from error
    return given


def invocation_id(text: str) -> bytes:
    try:
        return parse_id(text)
    except InvalidInvocationId as error:
        raise ArgumentTypeError(str(error)) from error
