"""`manage.py identity`: the public key by which services know this runtime, and a new private one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from runtime.conf import settings
from runtime.management.commands._output import OurCommand, in_words
from runtime.outbound.identity import Identity, make_key


class Command(OurCommand):
    help = (
        "Show the public key with which services check that a request comes from here: that of the private key in the "
        "file that PERDURE_IDENTITY names."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--new", type=Path, metavar="FILE", help="make a private key in this file, and show its public"
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        file: Path | None = options["new"]
        if file is not None:
            try:
                make_key(file)
            except FileExistsError as error:
                raise CommandError(f"{file} is there already; a key is not overwritten.") from error
            except OSError as error:
                raise CommandError(f"{file} cannot be written: {error.strerror}.") from error
        with in_words():
            identity = Identity.of(settings()) if file is None else Identity(file)
        if identity is None:
            raise CommandError("Nothing is signed: PERDURE_IDENTITY names no file. `--new FILE` makes a key.")
        if options["json"]:
            self.json({"public_key": identity.public_key})
            return
        self.stdout.write(identity.public_key)
        if file is not None:
            self.stderr.write(
                f"Set PERDURE_IDENTITY={file} for engines and web, and tell your services the public key."
            )
