"""The measured handlers as plain Celery tasks on the same Valkey, results kept there too."""

from __future__ import annotations

import os

from celery import Celery

from tests.benchmarks.marks import ENDED, mark

URL = "PERDURE_BENCHMARK_CELERY"

app = Celery("benchmark", broker=os.environ[URL], backend=os.environ[URL], set_as_current=False)
app.conf.worker_hijack_root_logger = False


@app.task(name="Greeter/greet")
def greet(name: str) -> str:
    return f"Hello {name}"


@app.task(name="Marker/mark", ignore_result=True)
def mark_end(number: int) -> None:
    mark(ENDED, number)
