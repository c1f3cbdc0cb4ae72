"""The PostgreSQL of a test run, embedded or the one that DATABASE_URL names, and databases made on it by template."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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
    """The one that DATABASE_URL names, or an embedded one in a directory of its own."""
    if given := os.environ.get("DATABASE_URL"):
        yield Cluster(given)
        return
    postgres = Postgres.prepare(directory)
    with running(postgres.process()):
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


def sweep(url: str) -> None:
    """Leave the tables of a migrated database without a row. With few rows in them this is sooner than TRUNCATE."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace AND relname NOT LIKE 'django%'"
            " ORDER BY EXISTS (SELECT FROM pg_constraint WHERE conrelid = pg_class.oid AND contype = 'f') DESC"
        )
        deletes = [sql.SQL("DELETE FROM {}").format(sql.Identifier(name)) for (name,) in found.fetchall()]
        connection.execute(sql.SQL("; ").join(deletes))  # one answer to wait for
