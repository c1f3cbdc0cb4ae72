"""A process for the supervisor's tests: notes in a file when it comes and goes, and misbehaves as told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def main(name: str, diary: Path, *manners: str) -> None:
    def note(event: str) -> None:
        with diary.open("a") as file:
            file.write(f"{name} {event} {os.getpid()}\n")

    def leave(*_: object) -> None:
        note("stopped")
        sys.exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in manners else leave)
    if "parent" in manners:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with diary.open("a") as file:
            file.write(f"{name}-child started {child.pid}\n")
    print(f"{name} says hello", flush=True)
    if "broken" in manners:
        sys.exit("no such table")
    note("started")
    if "brief" not in manners:
        while True:
            signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
