"""Servers and other processes of a test run, started without a supervisor, and how to wait for what they do."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runtime.servers.process import Process
from runtime.servers.valkey import Valkey

ROOT = Path(__file__).resolve().parent.parent.parent


@contextlib.contextmanager
def valkey(directory: Path) -> Iterator[Valkey]:
    server = Valkey.prepare(directory)
    with running(server.process()):
        yield server


@contextlib.contextmanager
def running(process: Process) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers, without a supervisor; stopped at the end."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(process.log.open("ab")) if process.log else subprocess.DEVNULL
        child = subprocess.Popen(
            process.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **process.options()
        )
        try:
            wait_until(lambda: answers(process), within=process.start_within)
            yield child
        finally:
            child.send_signal(process.stop_signal)
            try:
                child.wait(process.stop_within)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def answers(process: Process) -> bool:
    # A loop of its own, set nowhere: the one of the test under way must stay.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            return runner.run(process.answers())
        except OSError:
            return False


def wait_until(condition: Callable[[], bool], *, within: float = 30.0) -> None:
    """Return as soon as something is so; fails the test when it is not in time."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not so within {within:g} s"
        time.sleep(0.02)
