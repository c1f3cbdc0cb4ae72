"""The clients that come with Restate's SDKs find in the ingress what they expect, as processes of their own."""

from __future__ import annotations

import json
import subprocess
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.hosts import HOSTS, Command, node_with, python_with, serving
from tests.conformance.runtimes import Runtime

pytestmark = pytest.mark.servers

CLIENTS = Path(__file__).resolve().parent / "clients"
WITHIN = 120.0  # seconds for what takes one on a quiet machine


@pytest.fixture(scope="module")
def url(runtime: Runtime, hosts: ExitStack, tallies: Path) -> str:
    """Of the ingress, before the conformance services on our own SDK."""
    services = hosts.enter_context(serving(HOSTS["perdure-asgi"], "clients", tallies, http11=False))
    runtime.register(f"{services}/clients", http11=False, version=6)
    return f"http://127.0.0.1:{runtime.ingress.port}"


def told_by(command: Command, url: str) -> Any:
    key = uuid.uuid4().hex
    done = subprocess.run([*command, url, key], capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_client_of_the_typescript_sdk(url: str) -> None:
    assert told_by(node_with("client-ts", CLIENTS, "typescript.mjs"), url) == {
        "call": "Hello Mary",
        "object": [2, 5],
        "nothing": None,
        "refused": [418, "no such luck"],
        "sent": ["Accepted", "PreviouslyAccepted", True, "Hello Ann"],
        "once": "Hello Ann",
        "submitted": ["Accepted", "PreviouslyAccepted"],
        "early": False,
        "attached": "a chair yes",
        "output": True,
        "again": 409,
        "resolved": "awoken by Mary",
        "rejected": [500, "too late"],
    }


def test_the_client_of_the_python_sdk(url: str) -> None:
    python = python_with("client-py", CLIENTS / "python.txt")
    assert told_by([str(python), str(CLIENTS / "python.py")], url) == {
        "call": "Hello Mary",
        "object": [2, 5],
        "refused": 418,
        "sent": True,
        "once": "Hello Ann",
        "later": 7,
        "raw": "",
        "again": 409,
        "run": "a table yes",
    }
