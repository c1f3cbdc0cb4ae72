"""`manage.py services`: what is registered, and what is set on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from runtime.conf import settings
from runtime.core.audit import Act
from runtime.core.options import OPTIONS, read_options, write_options
from runtime.core.registry import UnknownService
from runtime.management.commands._output import OurCommand, in_words, run, shell_user
from runtime.reading.services import Served, service, services
from runtime.store.link import Link
from runtime.store.options import set_options


class Command(OurCommand):
    help = "List the registered services and the code that takes their new invocations; look at one; set its options."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", metavar="NAME", help="one service")
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="OPTION=VALUE",
            help=f"go before what the code says: {', '.join(OPTIONS)} (deadlock_policy is only kept for now)",
        )
        parser.add_argument("--unset", action="append", default=[], metavar="OPTION", help="let the code have its say")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        name: str | None = options["name"]
        said = _said(options["set"], options["unset"])
        if said and name is None:
            raise CommandError("Which service? Name it before the options.", returncode=2)
        if name is None:
            self.list(as_json=options["json"])
            return
        if said:
            run(change(name, said))
        self.show(name, as_json=options["json"])

    def list(self, *, as_json: bool) -> None:
        with in_words():
            found = async_to_sync(services)()
        if as_json:
            self.json(found)
        elif not found:
            self.stderr.write(
                "No service is registered. `./dev manage register ENDPOINT` adds those of one, at a URL or in a module."
            )
        else:
            self.table(["SERVICE", "TYPE", "REVISION", "CODE", "HANDLERS"], [_row(served) for served in found])
            if idle := {served.location: None for served in found if not (served.is_loaded or served.reached)}:
                self.stderr.write(
                    "Not served: what is invoked there waits, for no engine has loaded the code. "
                    f"Load it with: ./dev up --services {','.join(idle)}"
                )

    def show(self, name: str, *, as_json: bool) -> None:
        with in_words():
            served = async_to_sync(service)(name)
            if served is None:
                raise UnknownService(f"There is no service {name!r}.")
        if as_json:
            self.json(served)
            return
        for what, value in zip(("service", "type", "revision", "code", "handlers"), _row(served), strict=True):
            self.stdout.write(f"{what:<9} {value}")
        for option, value in write_options(served.info.options).items():
            self.stdout.write(f"{'set':<9} {option}={str(value).lower() if isinstance(value, bool) else value}")


async def change(name: str, said: Mapping[str, Any]) -> None:
    manifest = read_options(said)
    act = Act(shell_user(), "service.set", name, dict(said))
    with closing(await Link.connect(settings().database_url)) as link:
        await set_options(link, name, manifest, act)


def _said(assignments: Sequence[str], taken_back: Sequence[str]) -> dict[str, str | None]:
    said: dict[str, str | None] = dict.fromkeys(taken_back)
    for assignment in assignments:
        option, found, value = assignment.partition("=")
        if not found:
            raise CommandError(f"{assignment!r} is not OPTION=VALUE, as in public=false.", returncode=2)
        said[option] = value
    return said


def _row(served: Served) -> list[str]:
    info = served.info
    type = info.type.lower().replace("_", " ")
    code = f"{served.location} ({info.deployment})" if served.is_loaded else f"not served: {served.location}"
    return [info.name, type, str(info.revision), code, " ".join(info.handlers)]
