"""The script `dev`: what it does before Perdure is installed at all."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.servers import ROOT


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, in a checkout of its own that has one small lock file."""
    loader = importlib.machinery.SourceFileLoader("dev", str(ROOT / "dev"))
    spec = importlib.util.spec_from_loader("dev", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.delenv("PERDURE_PYTHON", raising=False)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(module, "LOCKS", tmp_path / "requirements")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "runtime.txt").write_text("# nothing\n")
    return module


def pretend_venv(dev: ModuleType) -> Callable[[str], None]:
    def make(python: str) -> None:
        dev.PYTHON.parent.mkdir(parents=True)
        dev.PYTHON.touch()
        (dev.VENV / "pyvenv.cfg").write_text(f"version = {dev.python_version(python)}\n")

    return make


def test_help_lists_every_verb() -> None:
    said = subprocess.run([sys.executable, ROOT / "dev", "help"], check=True, capture_output=True, text=True).stdout
    for verb in ("up", "test", "fast", "lint", "bench", "manage", "lock", "help"):
        assert f"\n  {verb} " in said


def test_an_unknown_verb_is_refused_and_the_known_ones_are_shown() -> None:
    run = subprocess.run([sys.executable, ROOT / "dev", "dance"], check=False, capture_output=True, text=True)
    assert run.returncode == 2
    assert "no verb 'dance'" in run.stderr
    assert "usage: ./dev VERB" in run.stdout


def test_the_environment_is_made_once_and_again_when_its_lock_changes(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(dev, "make_venv", pretend_venv(dev))
    monkeypatch.setattr(dev, "install", lambda python, locked: installed.append(locked.read_text()))
    dev.environment("runtime")
    dev.environment("runtime")
    assert installed == ["# nothing\n"]
    (dev.LOCKS / "runtime.txt").write_text("# something\n")
    dev.environment("runtime")
    assert installed == ["# nothing\n", "# something\n"]


def test_an_installation_that_failed_is_tried_again(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []

    def fail(python: str, locked: Path) -> None:
        tries.append(locked)
        dev.give_up("no network")

    monkeypatch.setattr(dev, "make_venv", pretend_venv(dev))
    monkeypatch.setattr(dev, "install", fail)
    for _ in range(2):
        with pytest.raises(SystemExit, match="no network"):
            dev.environment("runtime")
    assert len(tries) == 2


@pytest.mark.servers
def test_our_sources_are_importable_in_the_environment(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "install", lambda python, locked: None)
    (dev.ROOT / "sdk").mkdir()
    (dev.ROOT / "sdk" / "perdure_like.py").write_text("")
    dev.environment("runtime")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([dev.PYTHON, "-c", "import perdure_like"], check=True, env=clean, cwd="/")


@pytest.mark.servers
def test_without_ensurepip_another_pip_serves_the_environment(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Debian without python3-venv: a stand-in says so, the rest is real."""
    real = dev.has
    monkeypatch.setattr(dev, "has", lambda python, module: module != "ensurepip" and real(python, module))
    monkeypatch.setattr(dev, "uv", lambda: None)
    dev.environment("runtime")
    assert not real(str(dev.PYTHON), "pip")
    assert (dev.VENV / "runtime.stamp").exists()


@pytest.mark.parametrize(("verb", "stays"), [("up", True), ("manage", True), ("test", False), ("bench", False)])
def test_servers_run_where_you_are_and_tests_where_they_are(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str, stays: bool
) -> None:
    ran: list[Path] = []
    monkeypatch.setattr(dev, "environment", lambda name: None)
    monkeypatch.setattr(dev.os, "execv", lambda program, command: ran.append(Path.cwd()))
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    dev.VERBS[verb]([])
    assert ran == [tmp_path / "shop" if stays else dev.ROOT]


def test_lock_files_pin_every_requirement_by_hash_and_name_no_host() -> None:
    locked = {file.stem: file.read_text() for file in (ROOT / "requirements").glob("*.txt")}
    assert locked.keys() >= {"runtime", "test"}
    for text in locked.values():
        pins = re.findall(r"^[a-z0-9-]+==.*?(?=^[a-z0-9-]+==|\Z)", text, re.MULTILINE | re.DOTALL)
        assert len(pins) > 20
        assert all("--hash=sha256:" in pin for pin in pins)
        assert "://" not in text
        assert "index-url" not in text


def test_each_requirement_is_in_its_lock_file() -> None:
    for file in (ROOT / "requirements").glob("*.in"):
        locked = file.with_suffix(".txt").read_text()
        for requirement in requirements(file):
            name = re.split(r"[\[<>=]", requirement)[0]
            assert f"\n{name}==" in locked, f"{name} of {file.name}: run ./dev lock"


def test_the_distribution_needs_what_is_locked_and_the_sdk() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sdk, *others = project["dependencies"]
    assert sdk == f"perdure=={project['version']}"
    assert others == requirements(ROOT / "requirements" / "runtime.in")


def requirements(file: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]
