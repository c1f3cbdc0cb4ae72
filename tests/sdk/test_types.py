"""Type checkers know what an author may write, and what not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SDK = HERE.parents[1] / "sdk"
SNIPPET = HERE / "authoring.py.txt"
"""Ends in .txt so that nobody else checks it: it is full of mistakes, each marked."""


@pytest.fixture
def snippet(tmp_path: Path) -> Path:
    return Path(shutil.copy(SNIPPET, tmp_path / "authoring.py"))


def marked() -> set[int]:
    """The lines that are wrong."""
    lines = SNIPPET.read_text().splitlines()
    return {number for number, line in enumerate(lines, start=1) if "# error" in line}


def reported(output: str) -> set[int]:
    return {int(line) for line in re.findall(r"authoring\.py:(\d+)(?::\d+)?(?: -|:) error", output)}


def test_mypy_finds_all_mistakes_and_no_others(snippet: Path) -> None:
    settings = snippet.with_name("mypy.ini")
    settings.write_text(f"[mypy]\nstrict = true\npython_version = 3.11\nmypy_path = {SDK}\n")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", settings, snippet],
        capture_output=True, text=True, check=False, cwd=snippet.parent,
    )  # fmt: skip
    assert reported(run.stdout) == marked(), run.stdout + run.stderr


def test_pyright_finds_all_mistakes_and_no_others(snippet: Path) -> None:
    settings = snippet.with_name("pyrightconfig.json")
    settings.write_text(f'{{"typeCheckingMode": "standard", "pythonVersion": "3.11", "extraPaths": ["{SDK}"]}}')
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "-p", settings, "--pythonpath", sys.executable, snippet],
        capture_output=True, text=True, check=False, cwd=snippet.parent,
    )  # fmt: skip
    assert reported(run.stdout) == marked(), run.stdout + run.stderr
