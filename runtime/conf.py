"""The settings of a process: one frozen value, read once from the environment.

What the environment leaves open is taken from the data directory, where `manage.py up` notes the servers it runs, so
that every other command finds them. The names are listed in CONTRIBUTING.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from perdure.protocol.limits import DEFAULTS, SETTINGS, Limits
from runtime.errors import RuntimeFault

EXAMPLES = tuple(f"examples.{name}:app" for name in ("communication", "counter", "checkout", "dining"))
SERVERS = "servers.json"  # in the data directory; holds passwords, so for its owner only
ANY_DATABASE = "postgresql:///perdure"  # when nobody says which
BROKERS = ("redis", "rediss", "sentinel", "amqp", "amqps")
CHANNELS = ("redis", "rediss", "unix")
SECRET_KEY = "secret_key"  # noqa: S105 -- the name of a file
CREDENTIALS, TOKEN = "credentials", "token"  # what the first admin signs in with, and what their programs bear


class SettingError(RuntimeFault):
    """An environment variable cannot be understood."""

    code = "bad_setting"

    def __init__(self, name: str, value: str, wanted: str) -> None:
        super().__init__(f"{name} is {value!r}, which is not {wanted}.")
        self.hint = f"Set {name} to {wanted}, or leave it unset."


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; see `read` for the names.

    >>> Settings.read({"PERDURE_INGRESS_PORT": "8081", "PERDURE_QUEUES": "default, slow"}).queues
    ('default', 'slow')
    """

    database_url: str
    broker_url: str  # Celery's; redis:// or amqp://
    channel_url: str | None  # a Redis for the channel layer; None: events stay within one process
    services: tuple[str, ...]  # module:attribute of each endpoint that engines load
    modules: tuple[str, ...]  # further ones that may be registered over HTTP
    data: Path  # where the embedded servers keep theirs
    ingress_port: int
    web_port: int
    secret_key: str | None  # None: nothing that must outlive a process is signed
    engines: int  # children of the engine worker on this machine
    queues: tuple[str, ...]  # the queues these engines serve
    engine_memory: int  # MiB; an engine that has three quarters of it keeps waiting handlers for a moment only
    stuck_after: int  # seconds for which a handler may block its engine's loop, before that process ends
    limits: Limits  # how large things may be
    query_seconds: int  # how long one query of the SQL page may take
    auth: bool  # False: whoever reaches the web process over loopback is an admin
    hosts: tuple[str, ...]  # names that the web process goes by, besides those of this machine for itself
    query_rows: int  # how many rows it is answered with at most
    deployment_addresses: tuple[str, ...]  # where deployments may be; see runtime.outbound.guard
    deployment_schemes: tuple[str, ...]
    identity: Path | None  # a PEM file with the private key that signs requests to deployments
    is_noted: bool = False  # whether an `up` runs on this data directory, or was killed there

    @property
    def nothing_noted(self) -> str:
        """What to tell who looks for an `up` where there is none."""
        return (
            f"No `up` runs on {self.data}. Start it with ./dev up; if it has another --data DIR, set PERDURE_DATA=DIR."
        )

    @property
    def sockets(self) -> str:
        """The directory of the engines' sockets; short, for a socket's path ends at 107 bytes, and only ours."""
        name = hashlib.sha256(str(self.data).encode()).hexdigest()[:12]
        path = Path(tempfile.gettempdir()) / f"perdure-{os.getuid()}-{name}"
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid != os.getuid():
            raise SettingError("TMPDIR", tempfile.gettempdir(), f"a directory whose {path.name} is our own")
        return str(path)

    @property
    def token(self) -> bytes:
        """What processes show one another before they exchange hints."""
        return hmac.digest((self.secret_key or "").encode(), b"perdure wake-ups", "sha256")

    def version_key(self, service: str, key: str) -> bytes:
        """What the versions of an object's values are made with; of this object alone, for it is in its journals."""
        if self.secret_key is None:
            return b""
        return hmac.digest(
            self.secret_key.encode(), f"perdure state {service}/{key}".encode(errors="surrogatepass"), "sha256"
        )

    @classmethod
    def read(cls, environ: Mapping[str, str], noted: Mapping[str, str] | None = None) -> Settings:
        """Settings from environment variables, then from what `up` noted; raises SettingError for what is no sense."""
        data = Path(environ.get("PERDURE_DATA") or ".perdure").absolute()
        noted = noted_servers(data) if noted is None else noted
        environ = {**noted} | {name: value for name, value in environ.items() if value}
        engines = _number(environ, "PERDURE_ENGINES", usable_cores(), 1024)
        return cls(
            database_url=_database(environ, "DATABASE_URL", ANY_DATABASE),
            broker_url=_url(environ, "BROKER_URL", BROKERS) or "redis://127.0.0.1:6379/0",
            channel_url=_url(environ, "CHANNEL_URL", CHANNELS),
            services=_names(environ, "PERDURE_SERVICES", ",".join(EXAMPLES)),
            modules=_names(environ, "PERDURE_MODULES", ""),
            data=data,
            ingress_port=_number(environ, "PERDURE_INGRESS_PORT", 8080, 65535),
            web_port=_number(environ, "PERDURE_WEB_PORT", 9070, 65535),
            secret_key=environ.get("PERDURE_SECRET_KEY") or _read(data / SECRET_KEY),
            engines=engines,
            queues=_names(environ, "PERDURE_QUEUES", "default"),
            engine_memory=_number(environ, "PERDURE_ENGINE_MEMORY", usable_memory() // engines or 1, 2**30),
            # Longer than any computation that is meant to run between two awaits, and short enough that those who
            # share its engine are not held up for more than a coffee.
            stuck_after=_number(environ, "PERDURE_STUCK_AFTER", 60, 86_400),
            limits=_limits(environ),
            query_seconds=_number(environ, "PERDURE_QUERY_SECONDS", 10, 3600),
            auth=_switch(environ, "PERDURE_AUTH", default=True),
            hosts=_hosts(environ),
            query_rows=_number(environ, "PERDURE_QUERY_ROWS", 10_000, 1_000_000),
            deployment_addresses=_names(environ, "PERDURE_DEPLOYMENT_ADDRESSES", _near_and_far(environ)),
            deployment_schemes=_names(environ, "PERDURE_DEPLOYMENT_SCHEMES", "http,https"),
            identity=Path(key).absolute() if (key := environ.get("PERDURE_IDENTITY")) else None,
            is_noted=bool(noted),
        )


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings.read(os.environ)


def noted_servers(data: Path) -> dict[str, str]:
    """What an `up` runs on this data, by the name of the variable that would override each."""
    text = _read(data / SERVERS)
    return dict(json.loads(text)) if text else {}


def private(file: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    draft = file.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(file)


def usable_cores() -> int:
    """Not all cores of the machine: a container or taskset may leave us fewer."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def usable_memory() -> int:
    """MiB: the machine's, or what the container may have of it."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _read(Path(path))
        if limit is not None and limit.isdigit():  # "max" where there is none
            most = min(most, int(limit))
    return most // 2**20


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _names(environ: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    return tuple(part for item in (environ.get(name) or default).split(",") if (part := item.strip()))


def _number(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= most):
        raise SettingError(name, text, f"a whole number from 1 to {most}")
    return int(text)


def _limits(environ: Mapping[str, str]) -> Limits:
    sizes = {limit: _number(environ, name, getattr(DEFAULTS, limit), 2**30) for limit, name in SETTINGS.items()}
    return Limits(**sizes)


def _hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    hosts = _names(environ, "PERDURE_HOSTS", "")
    if hosts and environ.get("PERDURE_AUTH") == "off":
        raise SettingError("PERDURE_AUTH", "off", "on, where PERDURE_HOSTS says that others than this machine come in")
    return hosts


def _near_and_far(environ: Mapping[str, str]) -> str:
    """Deployments may be on this machine as long as nobody else's requests come in."""
    return "public" if environ.get("PERDURE_HOSTS") else "public,loopback"


def _switch(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name)
    if text not in (None, "", "on", "off"):
        raise SettingError(name, text, "on or off")
    return text == "on" if text else default


def _database(environ: Mapping[str, str], name: str, default: str) -> str:
    url = environ.get(name) or default
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise SettingError(
            name, url, "the address of a PostgreSQL, as in postgresql://user:password@host/name"
        ) from None
    return url


def _url(environ: Mapping[str, str], name: str, schemes: Sequence[str]) -> str | None:
    url = environ.get(name)
    try:
        well = not url or (urlsplit(url).scheme in schemes and "//" in url)
    except ValueError:
        well = False
    if not well:
        raise SettingError(name, str(url), f"a URL that begins with {', '.join(f'{one}://' for one in schemes)}")
    return url
