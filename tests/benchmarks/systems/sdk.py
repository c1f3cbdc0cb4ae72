"""Services on Restate's own Python SDK behind HTTP/2: the same program for Perdure and for Restate's server."""

from __future__ import annotations

import importlib.util
import sys
from typing import ClassVar

from tests.benchmarks.child import Child, answers, free_port
from tests.benchmarks.systems.base import Room


class SdkServices:
    """One process of them, with names that stand beside others."""

    PREFIX: ClassVar[str] = "Py"

    def __init__(self, room: Room) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._host = Child(
            [sys.executable, "-m", "tests.benchmarks.restate_services", str(port)],
            room.directory / "sdk-services.log",
            {**room.environment, "BENCHMARK_PREFIX": self.PREFIX},
        )
        self.pid = self._host.pid

    def wait(self) -> None:
        self._host.wait_until(lambda: answers(f"{self.url}/health"))

    def stop(self) -> None:
        self._host.stop(seconds=1)

    @staticmethod
    def missing() -> str | None:
        for module in ("restate", "hypercorn"):
            if importlib.util.find_spec(module) is None:
                return f"the Python package {module} is not installed"
        return None
