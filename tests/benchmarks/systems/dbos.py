"""DBOS: the same handlers as async workflows on the same PostgreSQL, behind uvicorn."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tests.benchmarks.child import Child, answers, free_port
from tests.benchmarks.machine import Process, tree
from tests.benchmarks.systems.base import HttpSystem, Room


class Dbos(HttpSystem):
    """It has no objects. It delays through queues that look each second, which is not what delayed-10k measures."""

    name: ClassVar[str] = "dbos"
    cases: ClassVar[frozenset[str]] = frozenset(
        {"call", "five-steps", "nested-call", "send", "recovery", "sleepers-10k"}
    )

    def __init__(self) -> None:
        self._app: Child | None = None
        self.version = "unknown"

    def missing(self) -> str | None:
        if importlib.util.find_spec("dbos") is None:
            return "the Python package dbos is not installed"
        self.version = importlib.metadata.version("dbos")
        return None

    def start(self, room: Room) -> None:
        self._room = room
        self._database = room.foundation.fresh_database("dbos")
        self.port = free_port()
        self._app = self._start_app()

    def stop(self) -> None:
        if self._app is not None:
            self._app.stop(seconds=1)  # it would wait for sleeping workflows; its data is thrown away
        self._app = None

    def processes(self, among: Mapping[int, Process]) -> Mapping[str, Sequence[int]]:
        assert self._app is not None
        return {"app": tree(self._app.pid, among), "postgres": tree(self._room.foundation.postgres_pid, among)}

    def kill(self, pid: int) -> None:
        """Kills the application and starts it again at once; at its start it takes up what it left."""
        assert self._app is not None
        assert self._app.pid == pid
        self._app.kill()
        self._app = self._start_app()

    def _start_app(self) -> Child:
        app = Child(
            [sys.executable, "-m", "tests.benchmarks.dbos_services", str(self.port), self._database],
            self._room.directory / "dbos.log",
            self._room.environment,
        )
        app.wait_until(lambda: answers(f"http://127.0.0.1:{self.port}/health"))
        return app
