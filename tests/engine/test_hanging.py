"""Steps that hang, in a thread or on the loop: their engine ends without them, and comes back with free threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure import Context, Endpoint, Service, handler
from perdure.protocol.limits import DEFAULTS
from runtime.engine import engine, runner
from runtime.engine.runner import Runner
from tests.engine.conftest import OpenWorld
from tests.support.world import TOKEN

THREADS = 2


class Hook:
    """Holds as many threads as an engine has, and lets go those that come later."""

    held = 0
    caught = 0

    def __init__(self) -> None:
        self.is_off = threading.Event()
        self.is_polling = threading.Event()
        self._lock = threading.Lock()

    def hang(self) -> str:
        with self._lock:
            if self.held == THREADS:
                return "let go"
            self.held += 1
        self.is_off.wait()
        return "held"


hook = Hook()


async def poll() -> None:
    hook.is_polling.set()
    while not hook.is_off.is_set():
        try:
            await asyncio.sleep(0.01)
        except BaseException:  # as `except:` is written
            hook.caught += 1


class Hanging(Service):
    @handler
    async def step(self, ctx: Context) -> str:
        return await ctx.run("hang", hook.hang)

    @handler
    async def stubborn(self, ctx: Context) -> None:
        await ctx.run("poll", poll)


app = Endpoint(Hanging)


@pytest.fixture
def child(open_world: OpenWorld, database: str, sockets: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """What a worker's child process has."""
    monkeypatch.setattr(runner, "CLOSURE_THREADS", THREADS)
    monkeypatch.setattr(runner, "REBIRTH", 0.01)
    hook.held = hook.caught = 0
    hook.is_off.clear()
    hook.is_polling.clear()
    child = Runner(
        database,
        queues=["default"],
        services=[f"{__name__}:app"],
        sockets=str(sockets),
        token=TOKEN,
        stuck_after=60,
        most_bytes=2**26,
        limits=DEFAULTS,
    )
    attached = threading.Thread(target=child.drain)
    try:
        child.start()
        attached.start()
        yield child
    finally:
        hook.is_off.set()
        child.stop()
        attached.join()


async def test_an_engine_comes_back_although_all_its_threads_hang(open_world: OpenWorld, child: Runner) -> None:
    async with open_world() as world:
        await world.register(app)
        ids = [await world.send("Hanging/step") for _ in range(2 * THREADS)]
        await world.until(all_hang)
        await world.sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'perdure engine %'"
        )
        assert [await world.answer_of(id) for id in ids] == ["let go"] * len(ids)
        assert await asyncio.to_thread(child.stop), "it ends without them"


async def test_an_engine_ends_although_a_step_catches_its_cancellation(
    open_world: OpenWorld, child: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 0.1)
    monkeypatch.setattr(runner, "LET_GO", 0.1)
    async with open_world() as world:
        await world.register(app)
        id = await world.send("Hanging/stubborn")
        assert await asyncio.to_thread(hook.is_polling.wait, 10)
        assert await asyncio.to_thread(child.stop), "it ends without it"
        hook.is_off.set()
        await world.start_engine(app)
        assert await world.answer_of(id) is None
    assert hook.caught > 0
    assert "does not let go when it is cancelled" in caplog.text


async def all_hang() -> bool:
    return hook.held == THREADS
