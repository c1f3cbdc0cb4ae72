"""What runs the services: Perdure, or Restate's own server as the reference."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from runtime.servers import ports
from tests.benchmarks.child import Child, answers
from tests.conformance.hosts import CACHE, npm
from tests.conformance.ingress import Ingress
from tests.support.stack import stack

RESTATE_SERVER = "@restatedev/restate-server@1.7.12"
OURS = "tests.conformance.services.perdure_app:app"


class Runtime(Protocol):
    ingress: Ingress

    def register(self, url: str, *, http11: bool, version: int) -> None:
        """Let the services at a URL take all that is new."""
        ...


class Perdure:
    """`manage.py up`; what it hosts itself are the same services, in its engines' processes."""

    def __init__(self, directory: Path) -> None:
        self._ended = contextlib.ExitStack()
        self._stack = self._ended.enter_context(stack(directory, OURS))
        self.ingress = Ingress(self._stack.port)

    def register(self, url: str, *, http11: bool, version: int) -> None:
        options = ["--force", "--max-protocol-version", str(version), *(["--http11"] if http11 else [])]
        self._stack.manage("register", url, *options)

    def host(self) -> None:
        """Let its own processes take all that is new."""
        self._stack.manage("register", OURS, "--force")

    def stop(self) -> None:
        self._ended.close()


class Restate:
    """Restate's server from npm, in the version of the protocol that it likes best, or one that it is told to."""

    def __init__(self, directory: Path) -> None:
        port, self._admin = ports.choose(), ports.choose()
        self._server = Child(
            [str(_restate_server()), "--no-logo", "--base-dir", str(directory / "restate")],
            directory / "restate-server.log",
            {
                "RESTATE_LISTEN_MODE": "tcp",
                "RESTATE_BIND_IP": "127.0.0.1",
                "RESTATE_ADVERTISED_HOST": "127.0.0.1",
                "RESTATE_BIND_PORT": str(ports.choose()),
                "RESTATE_INGRESS__BIND_PORT": str(port),
                "RESTATE_ADMIN__BIND_PORT": str(self._admin),
                "RESTATE_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "1",
                "RESTATE_LOG_FILTER": "warn,octocrab=off",
                "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
            },
        )
        self._server.wait_until(lambda: answers(f"http://127.0.0.1:{self._admin}/health"))
        self._server.wait_until(lambda: answers(f"http://127.0.0.1:{port}/restate/health"))
        self.ingress = Ingress(port)

    def register(self, url: str, *, http11: bool, version: int) -> None:
        body = {"uri": url, "use_http_11": http11, "force": True, "breaking": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._admin}/deployments",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            json.load(answer)

    def stop(self) -> None:
        self._server.stop(seconds=1)


def _restate_server() -> Path:
    here = CACHE / "restate-server"
    pattern = "node_modules/@restatedev/restate-server-*/bin/restate-server"
    if not (found := list(here.glob(pattern))):
        here.mkdir(parents=True, exist_ok=True)
        command = [*npm(), "install", "--prefix", str(here), "--ignore-scripts", "--no-audit", RESTATE_SERVER]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        found = list(here.glob(pattern))
    return found[0]


@contextlib.contextmanager
def chosen(directory: Path) -> Iterator[Perdure | Restate]:
    """Perdure, unless PERDURE_CONFORMANCE_RUNTIME says `restate`."""
    runtime = (Restate if is_reference() else Perdure)(directory)
    try:
        yield runtime
    finally:
        runtime.stop()


def is_reference() -> bool:
    return os.environ.get("PERDURE_CONFORMANCE_RUNTIME") == "restate"
