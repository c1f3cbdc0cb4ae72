"""Plain Celery: no-op tasks with a result, one prefork child per core, on the same Valkey as Perdure's hints."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from celery.exceptions import TimeoutError as CeleryTimeout

from tests.benchmarks.child import Child
from tests.benchmarks.load import PATIENCE, LoadError, Outcome
from tests.benchmarks.machine import Process, tree
from tests.benchmarks.systems.base import Call, Room

DATABASE = 5  # of Valkey; the lower ones are Perdure's


class CeleryTasks:
    """The cases that plain tasks have an answer to: nothing here is durable, keyed or journaled."""

    name: ClassVar[str] = "celery"
    cases: ClassVar[frozenset[str]] = frozenset({"call", "send", "delayed-10k"})

    def __init__(self) -> None:
        self._worker: Child | None = None
        self.version = importlib.metadata.version("celery")

    def missing(self) -> str | None:
        return None  # Perdure itself runs on it

    def start(self, room: Room) -> None:
        self._room = room
        os.environ["PERDURE_BENCHMARK_CELERY"] = room.foundation.valkey(DATABASE)
        self._tasks: Any = importlib.import_module("tests.benchmarks.celery_tasks").app.tasks
        command = ["-m", "celery", "-A", "tests.benchmarks.celery_tasks", "worker", "--loglevel", "warning"]
        self._worker = Child(
            [sys.executable, *command, "--concurrency", str(os.cpu_count())],
            room.directory / "celery.log",
            room.environment,
        )
        greeting = self._tasks["Greeter/greet"].delay("world")
        self._worker.wait_until(greeting.ready)

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()
        self._worker = None

    def processes(self, among: Mapping[int, Process]) -> Mapping[str, Sequence[int]]:
        assert self._worker is not None
        return {"worker": tree(self._worker.pid, among), "valkey": tree(self._room.foundation.valkey_pid, among)}

    def drive(self, calls: Iterable[Call], concurrency: int, seconds: float | None = None) -> Outcome:
        """A window of `concurrency` published tasks, their results fetched in order; sends are published one by one.

        One thread, because Celery's result consumer is not safe in several; publishing takes most of its time.
        """
        outcome = Outcome()
        window: deque[tuple[float, Any]] = deque()
        start, cpu = time.perf_counter(), time.process_time()
        deadline = start + seconds if seconds is not None else float("inf")

        def fetch() -> None:
            published, result = window.popleft()
            try:
                result.get(timeout=PATIENCE)
            except CeleryTimeout as error:
                raise LoadError(f"no result for {PATIENCE:.0f} s") from error
            record(published)

        def record(published: float) -> None:
            now = time.perf_counter()
            outcome.latencies.append(now - published)
            outcome.completed += now <= deadline

        for call in calls:
            now = time.perf_counter()
            if now >= deadline:
                break
            task = self._tasks[f"{call.service}/{call.handler}"]
            if call.send:
                task.apply_async((call.payload,), countdown=call.delay_ms / 1000 or None)
                record(now)
                continue
            window.append((now, task.delay(call.payload)))
            if len(window) == concurrency:
                fetch()
        while window:
            fetch()
        outcome.seconds = min(time.perf_counter(), deadline) - start
        outcome.cpu = time.process_time() - cpu
        return outcome

    def kill(self, pid: int) -> None:
        raise NotImplementedError("a plain task is not resumed")
