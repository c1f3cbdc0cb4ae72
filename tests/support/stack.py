"""A whole Perdure in processes of its own, as `manage.py up` runs it, and the ways to hurt it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import redis

from perdure.client import Client
from runtime.conf import noted_servers
from runtime.servers import ports
from tests.support.servers import ROOT, wait_until

GIVEN = ("DATABASE_URL", "BROKER_URL", "CHANNEL_URL")
UP_WITHIN = 180.0
STUCK_AFTER = 4  # seconds; a minute in earnest
CHAOS = "tests.support.chaos_services:app"

# What a process of each name has in its command line.
MARKS = {"ingress": "runtime.ingress.app", "postgres": "bin/postgres"}

# Work that is under way leaves rows in these; a table that should be empty and is not has lost something.
UNDER_WAY = ("invocation", "claimed", "inbox", "mail", "ready", "waiter")


class Stack:
    """`manage.py up` on a data directory and ports of its own."""

    def __init__(self, directory: Path, services: str = CHAOS, *, has_web: bool = False) -> None:
        self.directory = directory
        self._services = services
        self._has_web = has_web
        self.data = directory / "data"
        self.port = ports.choose()
        self._web_port = ports.choose()
        self.log: list[str] = []
        self._is_up = False
        self.start()

    def start(self) -> None:
        """Let it run, if it was stopped."""
        if self._is_up:
            return
        environment = {name: value for name, value in os.environ.items() if name not in GIVEN}
        environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}", "PERDURE_CHAOS": str(self.directory)}
        environment |= {"PERDURE_STUCK_AFTER": str(STUCK_AFTER)}
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "manage.py"), "up", "--services", self._services),
                *("--data", str(self.data), "--port", str(self.port), "--web-port", str(self._web_port)),
                *("--engines", "2"),
                *(() if self._has_web else ("--no-web",)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: self._said("up after"), within=UP_WITHIN)
        self._is_up = True

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        self._is_up = False
        self.process.send_signal(number)
        self.process.wait(60)
        self._reader.join()
        self.log.append("--- stopped\n")

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}")

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self._web_port}"

    def credentials(self) -> dict[str, str]:
        """The headers that make a request to the web process an admin's."""
        token = self.data / "token"
        return {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}

    # What it is doing ---------------------------------------------------------------------------------------------

    def query(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(noted_servers(self.data)["DATABASE_URL"], autocommit=True) as connection:
            return connection.execute(statement, arguments).fetchall()

    def engines(self) -> list[int]:
        """The processes of the living engines."""
        return [pid for (pid,) in self.query("SELECT pid FROM engine WHERE alive ORDER BY started_at")]

    def manage(self, *arguments: str) -> str:
        """What a command of manage.py prints, in a process of its own."""
        environment = {name: value for name, value in os.environ.items() if name not in GIVEN}
        environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}", "PERDURE_DATA": str(self.data)}
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT).stdout

    def reached(self, tag: str) -> list[tuple[int, float]]:
        """Where and when a handler has been at its hold, once for each attempt."""
        lines = [line.split() for line in self._file("reached").splitlines()]
        return [(int(pid), float(at)) for name, pid, at in lines if name == tag]

    def release(self) -> None:
        """Let all holds go."""
        (self.directory / "go").touch()

    def hold(self) -> None:
        (self.directory / "go").unlink(missing_ok=True)

    def client_answers(self) -> bool:
        """Whether the ingress takes connections."""
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def is_idle(self) -> bool:
        return not any(self.query(f"SELECT FROM {table} LIMIT 1") for table in UNDER_WAY)

    def wait_until_idle(self, within: float = 60.0) -> None:
        deadline = time.monotonic() + within
        while True:
            with contextlib.suppress(psycopg.OperationalError):  # the server may be restarting
                if self.is_idle():
                    return
            if time.monotonic() > deadline:
                left = {table: self.query(f"SELECT * FROM {table} LIMIT 5") for table in UNDER_WAY}
                raise AssertionError(f"still under way: {left}\n{''.join(self.log[-40:])}")
            time.sleep(0.05)

    # The ways to hurt it --------------------------------------------------------------------------------------------

    def kill_engines(self) -> list[int]:
        """kill -9 of every process that hosts a living engine."""
        pids = self.engines()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def kill(self, name: str) -> None:
        """kill -9 of a process that the supervisor started, by its name there."""
        for pid in self._children(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wipe_broker(self) -> None:
        with self._broker() as broker:
            broker.flushall()

    @contextlib.contextmanager
    def frozen_broker(self) -> Iterator[None]:
        """It takes connections and words, and answers none."""
        wait_until(self.broker_answers)  # it may be starting again
        (pid,) = self._children("valkey")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def broker_answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), self._broker() as broker:
            return bool(broker.ping())
        return False

    def _broker(self) -> redis.Redis:
        return redis.Redis.from_url(noted_servers(self.data)["BROKER_URL"])

    def _children(self, name: str) -> list[int]:
        if name == "valkey":  # it writes its title over its environment
            with self._broker() as broker:
                return [broker.info()["process_id"]]
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (path / "cmdline").read_bytes().decode()
                ours = str(self.data) in command + (path / "environ").read_bytes().decode(errors="replace")
                if ours and MARKS[name] in command:
                    found.append(int(path.name))
        return found

    def _file(self, name: str) -> str:
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.log.append(line)

    def _said(self, words: str) -> bool:
        assert self.process.poll() is None, "".join(self.log)
        since = max((i for i, line in enumerate(self.log) if line == "--- stopped\n"), default=-1)
        return any(words in line for line in self.log[since + 1 :])


@contextlib.contextmanager
def stack(directory: Path, services: str = CHAOS, *, has_web: bool = False) -> Iterator[Stack]:
    running = Stack(directory, services, has_web=has_web)
    try:
        yield running
    finally:
        running.release()
        if running.process.poll() is None:
            running.stop()
