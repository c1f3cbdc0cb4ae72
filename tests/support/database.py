"""The PostgreSQL of a test run, embedded or the one that DATABASE_URL names, and databases made on it by template."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from runtime.servers.postgres import Postgres
from tests.support.servers import ROOT, running

PREFIX = f"perdure_test_{os.getpid()}"

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A PostgreSQL server on which databases can be made."""

    url: str

    def database(self, name: str) -> str:
        """The address of one of its databases."""
        parts = urlsplit(self.url)
        return f"postgresql://{parts.netloc}/{name}" + (f"?{parts.query}" if parts.query else "")

    def create(self, *, template: str = "template1") -> str:
        """A new database with the content of another; answers its name."""
        name = f"{PREFIX}_{next(_numbers)}"
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop(self, name: str) -> None:
        """Whoever is still connected is thrown out."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def fresh(self, *, template: str = "template1") -> Iterator[str]:
        name = self.create(template=template)
        try:
            yield self.database(name)
        finally:
            self.drop(name)

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """The one that DATABASE_URL names, or an embedded one in a directory of its own. Ours need not survive the machine
    (which a kill -9 of it does not ask for either), and so waits for no disk."""
    if given := os.environ.get("DATABASE_URL"):
        yield Cluster(given)
        return
    postgres = Postgres.prepare(directory)
    process = postgres.process()
    with running(replace(process, command=(*process.command, "-c", "fsync=off"))):
        yield Cluster(postgres.url)


@contextlib.contextmanager
def migrated(server: Cluster) -> Iterator[str]:
    """The name of a database with our tables, to be the template of others: nobody may stay connected to it."""
    name = server.create()
    try:
        subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), "migrate", "--no-input", "--verbosity", "0"],
            env=os.environ | {"DATABASE_URL": server.database(name)},
            check=True,
        )
        yield name
    finally:
        server.drop(name)


class Shared:
    """A migrated database that tests use one after another, each as if it had been made for that test: to make one
    takes longer than most tests do."""

    def __init__(self, cluster: Cluster, template: str) -> None:
        self._cluster = cluster
        self._template = template
        self._name: str | None = None

    def clean(self) -> str:
        """Its address, with nothing of the last test in it; another one's if that test changed more than rows."""
        if self._name is not None and not self._is_swept():
            self.drop()
        if self._name is None:
            self._name = self._cluster.create(template=self._template)
            with psycopg.connect(self._url) as connection:
                self._schema = connection.execute(SCHEMA).fetchall()
        return self._url

    def drop(self) -> None:
        if self._name is not None:
            self._cluster.drop(self._name)
            self._name = None

    @property
    def _url(self) -> str:
        assert self._name is not None
        return self._cluster.database(self._name)

    def _is_swept(self) -> bool:
        with psycopg.connect(self._url) as connection:
            connection.execute(THROW_OUT)
            if connection.execute(SCHEMA).fetchall() != self._schema:
                return False
            sweep(connection)
            return True


THROW_OUT = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

# A row of a catalog that was changed is a new version of it, by another transaction. (Those that the system came with
# have lower numbers.)
SCHEMA = "UNION ALL".join(
    f" SELECT '{catalog}', count(*), sum(hashtextextended(xmin::text, {key}::bigint)) FROM {catalog}"
    f" WHERE {key}::bigint >= 16384 "
    for catalog, key in (
        ("pg_class", "oid"),
        ("pg_attribute", "attrelid"),
        ("pg_constraint", "oid"),
        ("pg_trigger", "oid"),
        ("pg_proc", "oid"),
    )
)

# What migrations put there stays.
OURS = "relname NOT LIKE 'django%' AND relname NOT LIKE 'auth_permission%' AND relnamespace = 'public'::regnamespace"


def sweep(connection: psycopg.Connection) -> None:
    """Leave the tables without a row. With few rows in them this is sooner than TRUNCATE."""
    found = connection.execute(
        f"SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND {OURS}"
        " ORDER BY EXISTS (SELECT FROM pg_constraint WHERE conrelid = pg_class.oid AND contype = 'f') DESC"
    )
    deletes = [sql.SQL("DELETE FROM {}").format(sql.Identifier(name)) for (name,) in found.fetchall()]
    restart = sql.SQL(
        "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid"
        f" WHERE {OURS}"
    )
    connection.execute(sql.SQL("; ").join([*deletes, restart]))  # one answer to wait for
