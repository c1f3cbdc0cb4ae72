"""What the measured systems stand on: one PostgreSQL and one Valkey for all, as Perdure ships and sets them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from runtime.servers.postgres import Postgres
from runtime.servers.valkey import Valkey
from tests.support.servers import running


class Foundation:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()

    def start(self) -> None:
        self._postgres = Postgres.prepare(self._directory / "postgres")
        self._valkey = Valkey.prepare(self._directory / "valkey")
        self.postgres_pid = self._running.enter_context(running(self._postgres.process())).pid
        self.valkey_pid = self._running.enter_context(running(self._valkey.process())).pid

    def stop(self) -> None:
        self._running.close()

    def fresh_database(self, name: str) -> str:
        """An empty database for the system of this name, whatever it held before; answers its URL."""
        name = f"benchmark_{name}"
        with psycopg.connect(self._postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return urlsplit(self._postgres.url)._replace(path=f"/{name}").geturl()

    def valkey(self, number: int) -> str:
        """The URL of one of the numbered databases of Valkey."""
        return urlsplit(self._valkey.broker_url)._replace(path=f"/{number}").geturl()
