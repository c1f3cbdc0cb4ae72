"""The measured handlers as DBOS workflows, behind a plain ASGI app. Run as a module, with a port and a database URL.

DBOS is a library: its application is the server. Uvicorn in front costs 23 us of about 0.7 ms per call, and lets the
same generator drive all systems. Workflows that only compute are plain functions called from four threads, the best of
what was tried: 1,350 calls and 150 five-step workflows/s, against 100 of these with 16 threads and 68 to 96 with async
workflows. Those that wait are async, so that a waiting one holds no thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from dbos import DBOS

from tests.benchmarks import handlers
from tests.benchmarks.handlers import LONG_SLEEP, steps_of
from tests.benchmarks.marks import ENDED, STARTED, mark

Workflow = Callable[[Any], Any]

nothing = DBOS.step()(handlers.nothing)
pause = DBOS.step()(handlers.pause)


@DBOS.step()
async def where() -> int:
    return os.getpid()


@DBOS.workflow()
def greet(name: str) -> str:
    return f"Hello {name}"


@DBOS.workflow()
def five(name: str) -> str:
    for _ in range(5):
        nothing()
    return name


@DBOS.workflow()
def nested(name: str) -> str:
    return greet(name)


@DBOS.workflow()
def mark_end(number: int) -> None:
    mark(ENDED, number)


@DBOS.workflow()
async def sleep(number: int) -> None:
    mark(STARTED, number)
    await DBOS.sleep_async(LONG_SLEEP)


@DBOS.workflow()
async def steps(number: int) -> None:
    first = await where()
    mark(STARTED, number, first)
    for _ in range(steps_of(number)):
        await pause()
    mark(ENDED, number, first)


COMPUTING: dict[str, Workflow] = {
    "/Greeter/greet": greet,
    "/Steps/five": five,
    "/Front/nested": nested,
    "/Marker/mark/send": lambda number: DBOS.start_workflow(mark_end, number) and None,
}
WAITING: dict[str, Workflow] = {
    "/Sleeper/sleep/send": sleep,
    "/Work/steps/send": steps,
}

threads = ThreadPoolExecutor(4)


async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    message = await receive()
    path: str = scope["path"]
    status, result = 200, None
    if path in COMPUTING:
        payload = json.loads(message["body"])
        result = await asyncio.get_running_loop().run_in_executor(threads, COMPUTING[path], payload)
    elif path in WAITING:
        await DBOS.start_workflow_async(WAITING[path], json.loads(message["body"]))
    else:
        status = 404
    answer = json.dumps(result).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def main() -> None:
    port, database_url = sys.argv[1:]
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": database_url.replace("postgresql://", "postgresql+psycopg://"),
            "application_version": "1",  # workflows are recovered by the version that began them
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    uvicorn.run(app, port=int(port), lifespan="off", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
