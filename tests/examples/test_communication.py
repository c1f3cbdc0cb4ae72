"""The seed example, played line by line against a running system, as its reader would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import ROOT
from tests.support.stack import Stack, stack

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("examples"), "examples.communication:app") as running:
        yield running


@pytest.mark.parametrize("again", [False, True], ids=["once", "and again"])
def test_the_page_plays_from_top_to_bottom(system: Stack, again: bool) -> None:
    played = subprocess.run(
        [sys.executable, str(Path("sdk/examples/communication.py")), f"http://127.0.0.1:{system.port}"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "sdk")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert len(played.stdout.splitlines()) == 8
