"""Worlds for scenarios: each scenario is played twice, with hints between processes and on polls alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest

from perdure import Endpoint
from runtime import wakeups
from runtime.engine import engine
from runtime.operations import operations
from tests.support.disk import Disk
from tests.support.peers import Play, ScriptedPeer
from tests.support.world import World


class OpenWorld(Protocol):
    """One engine for each endpoint that is given."""

    def __call__(self, *endpoints: Endpoint) -> World: ...


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    with TemporaryDirectory(prefix="pd-") as directory:
        yield Path(directory)


@pytest.fixture(params=["hints", "polls"])
def wake_ups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What tells one process of another's doings. What is periodic comes sooner than in earnest, to save our time."""
    for module, name in ((operations, "POLL"), (operations, "ROSTER_POLL"), (engine, "POLL"), (engine, "TIDY")):
        monkeypatch.setattr(module, name, 0.03)
    if request.param == "polls":
        monkeypatch.setattr(wakeups.Wire, "send", lambda *_: None)
        monkeypatch.setattr(engine, "LEASE_REST", 0.03)
    return str(request.param)


@pytest.fixture
def open_world(database: str, sockets: Path, wake_ups: str) -> OpenWorld:
    def open_world(*endpoints: Endpoint) -> World:
        return World(database, sockets, *endpoints)

    return open_world


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that wait leave memory as soon as somebody looks."""
    monkeypatch.setattr(engine, "HOT_WAIT", 0.0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def peer() -> ScriptedPeer:
    return ScriptedPeer()


@pytest.fixture
def play(open_world: OpenWorld, peer: ScriptedPeer) -> Play:
    """A world whose handlers are behind HTTP, and say what the test wants them to say."""
    return Play(open_world, peer)
