"""`manage.py invoke`: call a handler from a terminal. It needs the database and engines, but no ingress."""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import CommandError, CommandParser

from perdure.protocol.ids import format_id
from perdure.protocol.messages import Failure, Header, Value
from runtime import hall
from runtime.core.delays import BadDelay, read_delay
from runtime.core.registry import HandlerInfo
from runtime.ingress.doors import Door
from runtime.ingress.refused import Refused
from runtime.management import tryout
from runtime.management.commands._output import OurCommand, run
from runtime.operations import Accepted, Ended, Submission
from runtime.reading.journal import payload

FAILED = 3
STILL_RUNNING = 4
JSON = b"application/json"


class Command(OurCommand):
    help = (
        "Call a handler and print its result; with --send, only hand the message over. "
        "Exits with 3 when the invocation failed, with 4 when it had not ended in time: it goes on by itself."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", metavar="SERVICE")
        parser.add_argument("handler", metavar="HANDLER")
        parser.add_argument("--key", help="of the object, for a virtual object")
        given = parser.add_mutually_exclusive_group()
        given.add_argument("--input", type=_json, metavar="JSON", help="the handler's argument")
        given.add_argument("--file", metavar="FILE", help="the argument as it stands in a file (-: standard input)")
        parser.add_argument("--send", action="store_true", help="do not wait for the result")
        parser.add_argument(
            "--delay", type=_delay, default=0, metavar="TIME", help="start it later: 5s, 1h 30m (sends)"
        )
        parser.add_argument("--idempotency-key", metavar="X", help="however often it is used, it is invoked once")
        parser.add_argument("--timeout", type=float, metavar="SECONDS", help="wait no longer for the result")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        asked_at = time.time()
        accepted, ended = run(invoke(options, asked_at, self.tell))
        id = format_id(accepted.id)
        if ended is None:
            self.show({"invocation_id": id, "is_new": accepted.is_new}, id, as_json=options["json"])
            return
        match ended.result:
            case Value(content):
                self.show(
                    {"invocation_id": id, "result": payload(content)}, _readable(content), as_json=options["json"]
                )
            case Failure(code, message):
                if options["json"]:
                    self.json({"invocation_id": id, "failure": {"code": code, "message": message}})
                raise CommandError(f"{id} failed with {code}: {message}", returncode=FAILED)

    def show(self, answer: dict[str, Any], text: str, *, as_json: bool) -> None:
        if as_json:
            self.json(answer)
        else:
            self.stdout.write(text)

    def tell(self, accepted: Accepted) -> None:
        """Whoever stops waiting wants to know what for."""
        if self.stderr.isatty():
            self.stderr.write(f"{format_id(accepted.id)} …")


async def invoke(
    options: dict[str, Any], asked_at: float, tell: Callable[[Accepted], None]
) -> tuple[Accepted, Ended | None]:
    """Submit, and await the end unless it is a send."""
    is_send = options["send"] or options["delay"]
    input = _input(options)
    async with hall.visit() as operations:
        handler = operations.registry.resolve(options["service"], options["handler"])
        _check(handler, input, options)
        accepted = await operations.send(
            Submission(
                handler=handler,
                key=options["key"],
                input=input,
                headers=() if options["input"] is None else (Header("content-type", JSON.decode()),),
                idempotency_key=options["idempotency_key"],
                due=int(asked_at * 1000) + options["delay"] if options["delay"] else 0,
            )
        )
        if is_send:
            return accepted, None
        tell(accepted)
        try:
            async with asyncio.timeout(options["timeout"]):
                return accepted, await operations.attach(accepted.id)
        except TimeoutError as error:
            id = format_id(accepted.id)
            message = (
                f"{id} has not ended within {options['timeout']:g} s. Look at it with: ./dev manage invocations {id}"
            )
            raise CommandError(message, returncode=STILL_RUNNING) from error


def _check(handler: HandlerInfo, input: bytes, options: dict[str, Any]) -> None:
    """Raises CommandError for what the handler can never take, with an example of what it does."""
    door = Door(handler)
    try:
        if options["input"] is None:
            door.check_as_wanted(input)
        else:
            door.check(JSON, input)
    except Refused as refused:
        raise CommandError(f"{refused}\nAs in: {tryout.command(handler, options['key'])}") from refused


def _input(options: dict[str, Any]) -> bytes:
    if options["file"] is None:
        return options["input"] or b""
    try:
        return sys.stdin.buffer.read() if options["file"] == "-" else Path(options["file"]).read_bytes()
    except OSError as error:
        raise CommandError(f"{options['file']} cannot be read: {error.strerror}") from error


def _readable(content: bytes) -> str:
    """A result as text: JSON indented, anything else as it is."""
    match payload(content):
        case {"json": _}:
            return msgspec.json.format(content, indent=2).decode()
        case {"text": text}:
            return str(text)
        case {"base64": _}:
            return f"{len(content)} bytes that are no text; --json shows them in base64"
        case _:
            return ""


def _json(text: str) -> bytes:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ArgumentTypeError(
            f"{text!r} is not JSON ({error}); a text needs quotes of its own: '\"{text}\"'"
        ) from error
    return text.encode()


def _delay(text: str) -> int:
    try:
        return read_delay(text)
    except BadDelay as error:
        raise ArgumentTypeError(f"{error} {error.hint}") from error
