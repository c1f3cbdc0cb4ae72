"""Perdure itself, as its users start it: `manage.py up` with the measured services, on the shared servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.benchmarks.child import Child, free_port
from tests.benchmarks.machine import Process, tree
from tests.benchmarks.systems.base import ALL_CASES, HttpSystem, Room
from tests.benchmarks.systems.sdk import SdkServices

ROOT = Path(__file__).parents[3]
SERVICES = "tests.benchmarks.services:app"

# What a process of `manage.py up` is, by what stands in its command line; whatever fits nothing is the supervisor's.
CLASSES = {
    "ingress": "runtime.ingress",
    "engine": "perdure.drain",
    "chores": "perdure.chores",
    "web": "runtime.project.asgi",
}


class Perdure(HttpSystem):
    name: ClassVar[str] = "perdure"
    cases: ClassVar[frozenset[str]] = ALL_CASES

    def __init__(self) -> None:
        self._up: Child | None = None
        self._sdk: SdkServices | None = None
        self.version = "this tree"

    def missing(self) -> str | None:
        return None if (ROOT / "manage.py").exists() else "there is no manage.py"

    def start(self, room: Room) -> None:
        self._room = room
        self.port, web = free_port(), free_port()
        options = {"--services": SERVICES, "--data": room.directory, "--port": self.port, "--web-port": web}
        environment = {
            **room.environment,
            "DATABASE_URL": room.foundation.fresh_database("perdure"),
            "BROKER_URL": room.foundation.valkey(0),
            "CHANNEL_URL": room.foundation.valkey(1),
        }
        self._up = Child(
            [sys.executable, "manage.py", "up", *(str(word) for option in options.items() for word in option)],
            room.directory / "up.log",
            environment,
            directory=ROOT,
        )
        self._up.wait_until(self._greets, seconds=120)
        if SdkServices.missing() is None:
            self._sdk = SdkServices(room)
            self._sdk.wait()
            command = [sys.executable, "manage.py", "register", self._sdk.url]
            subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True)
            self._up.wait_until(lambda: self._greets("PyGreeter"))

    def stop(self) -> None:
        if self._up is not None:
            self._up.stop(seconds=40)
        if self._sdk is not None:
            self._sdk.stop()
        self._up = self._sdk = None

    def processes(self, among: Mapping[int, Process]) -> Mapping[str, Sequence[int]]:
        assert self._up is not None
        foundation = self._room.foundation
        found: dict[str, list[int]] = {name: [] for name in CLASSES}
        for pid in tree(self._up.pid, among):
            found.setdefault(_class_of(among[pid].command), []).append(pid)
        if self._sdk is not None:
            found["handlers"] = tree(self._sdk.pid, among)
        return {**found, "postgres": tree(foundation.postgres_pid, among), "valkey": tree(foundation.valkey_pid, among)}

    def kill(self, pid: int) -> None:
        """Kills one engine; another takes over its work, and the worker starts a new child, without our help."""
        os.kill(pid, signal.SIGKILL)

    def _greets(self, service: str = "Greeter") -> bool:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{service}/greet",
            b'"world"',
            {"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(json.load(answer) == "Hello world")
        except OSError:
            return False


def _class_of(command: str) -> str:
    return next((name for name, sign in CLASSES.items() if sign in command), "supervisor")
