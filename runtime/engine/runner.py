"""The runner: the engine of a worker's child process, in a thread of its own, for as long as the child lives.

Incarnations follow one another: one that was fenced or lost its database is forgotten, and a new one begins. Celery's
main thread only attaches drains and, at the end, asks for the stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import uvloop

from perdure import Endpoint
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol.limits import DEFAULTS, Limits
from runtime.discovery import deployment_id, load_endpoint
from runtime.engine.engine import Engine
from runtime.engine.memory import Code
from runtime.errors import DatabaseError, Disconnected
from runtime.garbage import spare_the_collector
from runtime.outbound import Guard
from runtime.outbound.identity import Identity
from runtime.threads import ClosureThreads

log = logging.getLogger(__name__)

REBIRTH = 0.5  # seconds between two incarnations
LET_GO = 1.0  # seconds that all that was cancelled has for its last words
IDLE = 30.0  # seconds without work after which a drain goes home
CLOSURE_THREADS = 64  # for `ctx.run` functions that are not async: they mostly wait for somebody
SLICE = 300.0  # seconds after which a drain makes room for others
ASK = 2.0  # seconds between two looks whether the broker answers
RECENT = 30.0  # seconds since its last drain after which an engine's queue may well have been taken from it
REUNION = 40.0  # seconds that a worker may take to come back to its broker and get drains: Celery waits up to 32


class Runner:
    """Runs engines in a thread; everything else may be called from any thread."""

    def __init__(
        self,
        conninfo: str,
        *,
        queues: Sequence[str],
        services: Sequence[str],
        sockets: str,
        token: bytes,
        stuck_after: float,
        most_bytes: int,
        limits: Limits,
        guard: Guard | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._conninfo = conninfo
        self._queues = queues
        self._services = services
        self._sockets = sockets
        self._token = token
        self._stuck_after = stuck_after
        self._most_bytes = most_bytes
        self._limits = limits
        self._guard = guard
        self._identity = identity
        self._attachments = 0
        self._detached_at = time.monotonic()  # a drain is under way to who is just born
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perdure-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 20.0) -> bool:
        """Take nothing new, give everything back, end; whether it has ended within the time."""
        self._stopping.set()
        self._tell(lambda engine: engine.stop())
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def drain(self) -> bool:
        """Attach: the engine takes new work until this returns. True: work is left, send a successor."""
        started = idle_since = time.monotonic()
        with self._attached():
            while not self._stopping.wait(0.2):
                now = time.monotonic()
                engine = self._engine
                if engine is not None and engine.is_busy:
                    idle_since = now
                if now - idle_since > IDLE:
                    return False
                if now - started > SLICE:
                    return True
            return False

    def keep_attached(self, broker_answers: Callable[[], bool]) -> None:
        """For as long as the broker does not answer, and so nobody can be sent a drain; returns when it was stopped."""
        while not self._stopping.wait(ASK):
            if broker_answers() or not self._was_attached:
                continue
            log.warning("the broker does not answer: this engine goes on with the queues that it has")
            with self._attached():
                while not (self._stopping.wait(ASK) or broker_answers()):
                    pass
                self._stopping.wait(REUNION)

    @property
    def is_attached(self) -> bool:
        return self._attachments > 0 and not self._stopping.is_set()

    @property
    def _was_attached(self) -> bool:
        """Now or a moment ago."""
        return self._attachments > 0 or time.monotonic() - self._detached_at < RECENT

    @contextlib.contextmanager
    def _attached(self) -> Iterator[None]:
        self._attachments += 1
        try:
            self._tell(lambda engine: engine.attached())
            yield
        finally:
            self._attachments -= 1
            self._detached_at = time.monotonic()
            # What came between the last look and now must not wait for the next drain.
            self._tell(lambda engine: engine.attached())

    def _run(self) -> None:
        loop = uvloop.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self._live())  # not asyncio.Runner: it waits for all tasks, for ever
            loop.close()
        except BaseException:  # a child without an engine would look alive: its parent replaces it
            log.critical("the engine's thread ended", exc_info=True)
            os._exit(70)

    async def _live(self) -> None:
        try:
            await self._incarnations()
        finally:
            await let_go()

    async def _incarnations(self) -> None:
        self._loop = asyncio.get_running_loop()
        code = [load_code(location, self._limits) for location in self._services]
        spare_the_collector()
        while not self._stopping.is_set():
            engine = Engine(
                self._conninfo,
                queues=self._queues,
                code=code,
                sockets=self._sockets,
                token=self._token,
                is_attached=lambda: self.is_attached,
                stuck_after=self._stuck_after,
                most_bytes=self._most_bytes,
                limits=self._limits,
                guard=self._guard,
                identity=self._identity,
                is_drained=self._engine is not None and self._engine.is_drained,
            )
            self._engine = engine
            closures = ClosureThreads(CLOSURE_THREADS, "perdure-run")  # what hung in the last ones took those along
            self._loop.set_default_executor(closures)
            try:
                await engine.run()
            except (Disconnected, DatabaseError) as error:
                log.warning("this engine's incarnation ended: %s", error)
            except Exception:
                log.exception("this engine's incarnation ended")
            finally:
                closures.shutdown()
            if not self._stopping.is_set():
                await asyncio.sleep(REBIRTH)

    def _tell(self, what: Callable[[Engine], None]) -> None:
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None and not loop.is_closed():
            loop.call_soon_threadsafe(what, engine)


async def let_go() -> None:
    """Cancel what is left, and wait for it for a moment: steps that catch even that are left as they are."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, stubborn = await asyncio.wait(left, timeout=LET_GO)
        for task in stubborn:
            log.warning("it does not let go when it is cancelled, and is not waited for: %s", task)


def load_code(location: str, limits: Limits) -> Code:
    """The deployment that `module:attribute` names, ready to run in this process."""
    endpoint = load_endpoint(location)
    return code_of(endpoint, deployment_id(endpoint), limits)


def code_of(endpoint: Endpoint, deployment: str, limits: Limits = DEFAULTS) -> Code:
    """An endpoint as an engine runs it."""
    return Code(deployment, InProcessHost(endpoint, limits=limits), msgspec.json.decode(endpoint.manifest().to_json()))
