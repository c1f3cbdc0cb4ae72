"""Ports of this machine: which are free, and who holds the others."""

from __future__ import annotations

import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen there now; connections of the last server that still linger do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def choose() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def kept(file: Path) -> int:
    """The port noted in a file, while it is free, or else a new one, noted there: addresses outlive restarts."""
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        port = 0
    if not (0 < port < 65536 and is_free(port)):
        port = choose()
        file.write_text(f"{port}\n")
    return port


def holder(port: int) -> str | None:
    """Who listens on a port, as "uvicorn (pid 12)", where the system lets us see it."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = {str(link.readlink()) for link in (process / "fd").iterdir()}
            if held & inodes:
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"{words or 'a process'} (pid {process.name})"
        except OSError:  # it ended meanwhile, or it is somebody else's
            continue
    return None


def _listening(table: str, port: int) -> set[str]:
    try:
        rows = [line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]]
    except OSError:
        return set()
    return {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
