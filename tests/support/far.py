"""The services of the chaos tests behind HTTP, in a process of their own, and the ways to hurt it and the way to it.

Run as a module, with a port, this is that process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runtime.servers import ports
from tests.support.servers import ROOT, wait_until


class Far:
    def __init__(self, name: str, directory: Path) -> None:
        """`name` is before the names of all that it serves."""
        self.work, self.ledger = f"{name}Work", f"{name}Ledger"
        self.port = ports.choose()
        """Where the runtime finds it."""
        self._name = name
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, port: int | None = None) -> subprocess.Popen[bytes]:
        """Let it run, at another port if one is given."""
        assert self._process is None
        port = port or self.port
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"}
        environment |= {"PERDURE_CHAOS": str(self._directory), "PERDURE_CHAOS_NAME": self._name}
        with (self._directory / f"{self._name}.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.support.far", str(port)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
        wait_until(lambda: not ports.is_free(port))
        return self._process

    def kill(self) -> None:
        """kill -9."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def forget(self) -> subprocess.Popen[bytes]:
        """Another one is to be started in its place, while it lives on."""
        process, self._process = self._process, None
        assert process is not None
        return process


class Cable:
    """What connects the runtime with a service, until it is cut."""

    def __init__(self, to: int) -> None:
        self.to = to
        """The port to which what connects next is led."""
        self._ends: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """In the middle of whatever is said: both sides see their connections break."""
        for end in self._ends:
            end.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self.to)
        self._ends |= {writer, to_there}
        await asyncio.gather(_pass_on(reader, to_there), _pass_on(there, writer), return_exceptions=True)
        self._ends -= {writer, to_there}


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def cable(port: int, to: int) -> AsyncIterator[Cable]:
    """What comes to one port is led to another."""
    one = Cable(to)
    listener = await asyncio.start_server(one.accept, "127.0.0.1", port)
    try:
        yield one
    finally:
        listener.close()
        one.cut()


def main() -> None:
    import uvloop
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    from perdure import Endpoint
    from perdure.hosts import asgi
    from tests.support.chaos_services import Ledger, Work

    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    uvloop.run(serve(asgi.app(Endpoint(Ledger, Work)), config))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
