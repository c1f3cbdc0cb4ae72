"""`manage.py up`: all of Perdure on this machine, with its own PostgreSQL and Valkey unless others are named."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from runtime import conf
from runtime.conf import Settings
from runtime.core.registry import HandlerInfo
from runtime.engine.runner import load_code
from runtime.errors import RuntimeFault
from runtime.management import tryout
from runtime.management.stages import NAMES, Drained, drained, stages
from runtime.servers import lock, ports, reach
from runtime.servers.postgres import Postgres
from runtime.servers.valkey import Valkey
from runtime.supervisor import Supervisor

PORT_PATIENCE = 10.0  # seconds for what an `up` that was killed leaves behind to end

GIVEN = {
    "DATABASE_URL": reach.database_trouble,
    "BROKER_URL": reach.broker_trouble,
    "CHANNEL_URL": reach.channel_layer_trouble,
}

COLOURS = dict(zip((*NAMES, "accounts", "perdure"), (34, 35, 36, 36, 32, 33, 96, 94, 36, 1), strict=True))


class Command(BaseCommand):
    help = "Start PostgreSQL, Valkey, ingress, web, engines and chores; keep them running; stop them all on Ctrl-C."
    requires_system_checks = ()  # they look at a database that may not be there yet

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--services", type=_names, metavar="MODULE:NAME,...", help="endpoints to serve (default: the examples)"
        )
        parser.add_argument("--only", type=_parts, metavar="NAME,...", help=f"start only these of {', '.join(NAMES)}")
        parser.add_argument("--no-web", action="store_true", help="start no web process")
        parser.add_argument("--engines", type=int, metavar="N", help="engine processes (default: one per core)")
        parser.add_argument("--port", type=int, metavar="N", help="of the ingress, for callers (default 8080)")
        parser.add_argument("--web-port", type=int, metavar="N", help="of dashboard and API (default 9070)")
        parser.add_argument("--data", type=Path, metavar="DIR", help="where the servers' data is kept (.perdure)")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        try:
            settings = _settings(options)
            names = options["only"] or NAMES
            names = [name for name in names if not (name == "web" and options["no_web"])]
            _want_servers()
            settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            with lock.held(settings.data):
                _want_ports(settings, names)
                try:
                    asyncio.run(_run(settings, names, began))
                finally:
                    (settings.data / conf.SERVERS).unlink(missing_ok=True)
        except KeyboardInterrupt:  # before the supervisor listens: nothing has been started yet
            raise CommandError("stopped") from None
        except RuntimeFault as fault:
            raise CommandError(f"{fault}\n{fault.hint}".rstrip()) from fault


async def _run(settings: Settings, names: Sequence[str], began: float) -> None:
    console = Console(colourful=sys.stdout.isatty())
    servers = Embedded.prepare(settings, names, console)
    settings = servers.note(settings)
    is_first = servers.is_new or not (settings.data / conf.TOKEN).exists()
    if servers.postgres is not None and "web" in names and settings.auth and is_first:
        names = [*names, "accounts"]
    supervisor = Supervisor(stages(settings, names, servers.postgres, servers.valkey), console.tell)
    console.when_gone = supervisor.stop

    async def up() -> None:
        console.tell("perdure", f"up after {time.monotonic() - began:.1f} s; Ctrl-C stops everything")
        for line in [*welcome(settings, names), *standstill(await drained(settings.database_url))]:
            console.tell("perdure", line)

    await supervisor.run(up)
    console.tell("perdure", "stopped")


@dataclass(frozen=True, slots=True)
class Embedded:
    """The servers of our own, of which there are none where the environment names others."""

    postgres: Postgres | None
    valkey: Valkey | None
    is_new: bool
    """Whether our database begins with this start."""

    @classmethod
    def prepare(cls, settings: Settings, names: Sequence[str], console: Console) -> Embedded:
        postgres = valkey = None
        is_new = not (settings.data / "postgres" / "data").exists()
        if "postgres" in names and not os.environ.get("DATABASE_URL"):
            if is_new:
                console.tell("perdure", f"making a database in {settings.data}")
            postgres = Postgres.prepare(settings.data / "postgres")
        if "valkey" in names and not (os.environ.get("BROKER_URL") and os.environ.get("CHANNEL_URL")):
            valkey = Valkey.prepare(settings.data / "valkey")
        return cls(postgres, valkey, is_new)

    def note(self, settings: Settings) -> Settings:
        """The settings with our servers in them; what is ours is noted for the other commands too."""
        noted = {
            "PERDURE_SERVICES": ",".join(settings.services),
            "PERDURE_INGRESS_PORT": str(settings.ingress_port),
            "PERDURE_WEB_PORT": str(settings.web_port),
        }
        if self.postgres is not None:
            noted["DATABASE_URL"] = self.postgres.url
        if self.valkey is not None:
            ours = {"BROKER_URL": self.valkey.broker_url, "CHANNEL_URL": self.valkey.channel_url}
            noted |= {name: url for name, url in ours.items() if not os.environ.get(name)}
        conf.private(settings.data / conf.SERVERS, json.dumps(noted, indent=1))
        return replace(
            settings,
            database_url=noted.get("DATABASE_URL", settings.database_url),
            broker_url=noted.get("BROKER_URL", settings.broker_url),
            channel_url=noted.get("CHANNEL_URL", settings.channel_url),
        )


class Console:
    """Lines on standard output, each with the name of who says it, in its colour on a terminal."""

    def __init__(self, *, colourful: bool) -> None:
        self._colourful = colourful
        self.when_gone: Callable[[], None] = lambda: None

    def tell(self, name: str, line: str) -> None:
        label = f"{name:<8} |"
        if self._colourful:
            label = f"\033[{COLOURS.get(name, 0)}m{label}\033[0m"
        try:
            print(label, line, flush=True)
        except BrokenPipeError:  # whoever read us has gone: stop, and have the rest go nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.when_gone()


def welcome(settings: Settings, names: Sequence[str]) -> list[str]:
    """What to try now that everything answers."""
    lines = []
    ingress, web = f"http://localhost:{settings.ingress_port}", f"http://localhost:{settings.web_port}"
    if "ingress" in names:
        lines.append(f"callers    {ingress}")
        if settings.services == conf.EXAMPLES:
            json_body = "-H 'content-type: application/json' -d"
            lines.append(f"   try     curl {ingress}/Greeter/greet {json_body} '\"Mary\"'")
            lines.append(f"           curl {ingress}/Mailbox/Mary/put {json_body} '\"Hi\"'")
            lines.append(f"           curl '{ingress}/Greeter/greet/send?delay=5s' {json_body} '\"later\"'")
        elif handler := first_handler(settings):
            lines.append(f"   try     {tryout.call(handler, ingress)}")
    if "web" in names:
        lines.append(f"dashboard  {web}/ui/")
        lines += _ways_in(settings, web)
    lines.append(f"data       {settings.data}")
    if settings.data != Path(".perdure").absolute():
        lines.append(f"           other commands find it with PERDURE_DATA={settings.data}")
    return lines


def standstill(held: Drained) -> list[str]:
    """What takes nothing new, because somebody has drained it and whatever was restarted since."""
    resume = "./dev manage workers resume"
    lines = [f"queue {name!r}: what comes waits there until {resume} --queue {name}" for name in held.queues]
    lines += [f"engine {id}: it takes nothing new until {resume} {id}" for id in held.engines]
    return [f"{'drained' if number == 0 else '':<11}{line}" for number, line in enumerate(lines)]


def first_handler(settings: Settings) -> HandlerInfo | None:
    """The first handler of an author's own that callers reach."""
    for location in settings.services:
        for handler in load_code(location, settings.limits).handlers.values():
            if handler.is_public:
                return handler
    return None


def _ways_in(settings: Settings, web: str) -> list[str]:
    """How to come in at the web process."""
    if not settings.auth:
        return [
            f"   try     curl {web}/services",
            "           PERDURE_AUTH=off: EVERYBODY on this machine is an admin here, without a password",
        ]
    if not (settings.data / conf.TOKEN).exists():
        return ["           `account create NAME --role admin` and `token create NAME` of ./dev manage let people in"]
    token = f'-H "authorization: Bearer $(cat {_short(settings.data / conf.TOKEN)})"'
    lines = [f"   try     curl {web}/services {token}"]
    if (settings.data / conf.CREDENTIALS).exists():
        lines.insert(0, f"   sign in with the name and password in {_short(settings.data / conf.CREDENTIALS)}")
    return lines


def _short(path: Path) -> str:
    """As one types it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _settings(options: dict[str, Any]) -> Settings:
    """The environment's settings under those of the command line, with a secret key that lasts."""
    given = {
        "PERDURE_SERVICES": ",".join(options["services"] or ()),
        "PERDURE_ENGINES": str(options["engines"] or ""),
        "PERDURE_INGRESS_PORT": str(options["port"] or ""),
        "PERDURE_WEB_PORT": str(options["web_port"] or ""),
        "PERDURE_DATA": str(options["data"] or ""),
    }
    settings = Settings.read(os.environ | {name: value for name, value in given.items() if value}, noted={})
    if settings.secret_key is None:
        key = secrets.token_urlsafe(50)
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        conf.private(settings.data / conf.SECRET_KEY, key)
        settings = replace(settings, secret_key=key)
    return settings


def _want_servers() -> None:
    """Refuse to start without a server that the environment names: every process would stumble over it for itself."""
    for name, trouble_of in GIVEN.items():
        url = os.environ.get(name)
        trouble = trouble_of(url) if url else None
        if trouble is not None:
            raise CommandError(
                f"{name}: {trouble}\nStart that server or correct {name}; unset, `up` has one of its own."
            )


def _want_ports(settings: Settings, names: Sequence[str]) -> None:
    """Refuse to start on ports of others; the note of an `up` that was killed tells that they may be its own still."""
    patience = PORT_PATIENCE if (settings.data / conf.SERVERS).exists() else 0.0
    deadline = time.monotonic() + patience
    for name, port, option in (("ingress", settings.ingress_port, "--port"), ("web", settings.web_port, "--web-port")):
        while name in names and not ports.is_free(port):
            if time.monotonic() > deadline:
                raise CommandError(
                    f"Port {port} of {name} is taken by {ports.holder(port) or 'another process'}.\n"
                    f"Stop that, or choose another port with {option}."
                )
            time.sleep(0.2)


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _parts(text: str) -> list[str]:
    names = _names(text)
    if unknown := [name for name in names if name not in NAMES]:
        raise ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(NAMES)}")
    return names
