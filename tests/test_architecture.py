"""The house as drawn: imports run downwards, pure rooms stay pure, and the SDK stands alone."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.api import read_configuration
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
CONTRACTS = {contract["id"]: contract["name"] for contract in read_configuration(str(PYPROJECT))["contracts_options"]}

# What an author's process has no use for: whoever imports the SDK gets the SDK.
FOREIGN = ("runtime", "dashboard", "django", "celery", "kombu", "psycopg", "channels", "redis", "uvicorn", "uvloop")


@pytest.mark.parametrize("contract", CONTRACTS)
def test_imports_keep_the_contract(contract: str) -> None:
    status = lint_imports(config_filename=str(PYPROJECT), limit_to_contracts=(contract,), no_cache=True, no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, CONTRACTS[contract]


def test_importing_the_sdk_loads_nothing_of_the_runtime() -> None:
    report = f"import sys, perdure; print([name for name in {FOREIGN} if name in sys.modules], perdure.__file__)"
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(ROOT / 'sdk')!r}]; {report}"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/", env={}).stdout
    assert answer == f"[] {ROOT / 'sdk' / 'perdure' / '__init__.py'}\n"


def test_the_sdk_depends_on_msgspec_only() -> None:
    project = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]
    assert [requirement.split(">=")[0] for requirement in project["dependencies"]] == ["msgspec"]
