"""`manage.py state`: an object's values, what became of them, and how they are changed."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

import msgspec
from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from perdure.protocol.ids import format_id
from runtime import editing, hall
from runtime.conf import settings
from runtime.core import edits
from runtime.core.edits import Edit
from runtime.editing import Edited
from runtime.management.commands._output import OurCommand, in_words, moment, run, shell_user
from runtime.reading.journal import payload
from runtime.reading.objects import MOST, history, values

STILL_WAITING = 4


class Command(OurCommand):
    help = (
        "Show the values of SERVICE's object KEY and their version, or change them. A change waits for its turn behind "
        "a running handler. Exits with 1 when the values have another version than the one expected, with 4 when the "
        "turn had not come in time: the change goes on waiting by itself."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", metavar="SERVICE")
        parser.add_argument("key", metavar="KEY")
        parser.add_argument("--set", nargs="+", type=_value, default=[], metavar="NAME=JSON", help="values to set")
        parser.add_argument("--clear", nargs="+", default=[], metavar="NAME", help="values to clear")
        parser.add_argument("--replace", action="store_true", help="clear all values that are not set")
        parser.add_argument("--expect", metavar="VERSION", help="that the values must have, as seen before")
        parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS", help="wait no longer (30)")
        parser.add_argument("--history", action="store_true", help="show what became of the values, newest first")
        parser.add_argument("--limit", type=int, default=20, metavar="N", help="how much of the history (20)")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        service, key = options["service"], options["key"]
        with in_words():
            if options["history"]:
                self.show_history(service, key, options)
            elif options["set"] or options["clear"] or options["replace"]:
                self.change(service, key, options)
            else:
                self.show(service, key, as_json=options["json"])

    def show(self, service: str, key: str, *, as_json: bool) -> None:
        found = async_to_sync(values)(service, key)
        version = edits.version(found, settings().version_key(service, key))
        if as_json:
            self.json({"version": version, "state": {name: payload(value) for name, value in found.items()}})
            return
        if found:
            self.table(["NAME", "VALUE"], [[name, _readable(value)] for name, value in found.items()])
        else:
            self.stderr.write("It has no values.")
        self.stdout.write(f"version {version}")

    def show_history(self, service: str, key: str, options: dict[str, Any]) -> None:
        found = async_to_sync(history)(service, key, limit=min(max(options["limit"], 1), MOST))
        if options["json"]:
            self.json(found)
        elif not found:
            self.stderr.write(
                "Nothing is known. What handlers change is kept once their service has the option state_history: "
                f"manage.py services {service} --set state_history=true"
            )
        else:
            self.table(
                ["AT", "NAME", "BEFORE", "AFTER", "BY"],
                [
                    [moment(one.at), one.name, _readable(one.before), _readable(one.after),
                     f"{one.by or one.handler} {one.invocation_id}"]
                    for one in found
                ],
            )  # fmt: skip

    def change(self, service: str, key: str, options: dict[str, Any]) -> None:
        wanted = Edit(
            by=shell_user().name,
            expected=options["expect"],
            set=dict(options["set"]),
            clear=options["clear"],
            replaces=options["replace"],
        )
        edited = run(_edit(service, key, wanted, options["timeout"]))
        id = format_id(edited.id)
        if edited.failure is not None:
            raise CommandError(f"{edited.failure.message} Nothing was changed.")
        if options["json"]:
            self.json({"invocation_id": id, "version": edited.version})
        elif edited.version is not None:
            self.stdout.write(f"version {edited.version}")
        if edited.is_under_way:
            raise CommandError(
                f"{id} waits for its turn still. ./dev manage objects {service} {key} shows who comes before it; "
                f"./dev manage cancel {id} takes it back.",
                returncode=STILL_WAITING,
            )


async def _edit(service: str, key: str, wanted: Edit, timeout: float) -> Edited:
    async with hall.visit() as here:
        return await editing.edit(here, service, key, wanted, shell_user(), patience=timeout)


def _readable(value: bytes | None) -> str:
    match None if value is None else payload(value):
        case None:
            return ""
        case {"base64": text}:
            return f"{text} (base64)"
        case _:
            assert value is not None
            return value.decode()


def _value(text: str) -> tuple[str, bytes]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ArgumentTypeError(f"{text!r} is not NAME=JSON")
    try:
        return name, bytes(msgspec.json.decode(value, type=msgspec.Raw))
    except msgspec.DecodeError as error:
        raise ArgumentTypeError(
            f"{value!r} is not JSON ({error}); a text needs quotes: {name}='\"{value}\"'"
        ) from error
