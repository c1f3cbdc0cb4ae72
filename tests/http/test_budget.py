"""What one call costs in the ingress, in function calls: unlike microseconds, these are the same on every machine."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from runtime.ingress.app import Ingress
from tests.support.asgi import Exchange, started
from tests.support.manifests import registry
from tests.support.operations import FakeOperations

BUDGET = 17
"""Functions of the ingress. A call costs 6 us with the 16 of today; see tests/benchmarks/ingress.py."""


@pytest.mark.parametrize("path", ["/Greeter/greet", "/Mailbox/Mary/put"])
async def test_a_call_stays_within_its_budget(path: str) -> None:
    called: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("runtime.ingress."):
            called.append(f"{module}.{frame.f_code.co_name}")

    operations = FakeOperations(registry())
    async with started(Ingress(lambda: operations)) as caller:
        await caller.post(path, b'"Mary"')  # what is made once
        exchange = Exchange([b'"Mary"'])
        sys.setprofile(note)
        try:
            await caller.exchange(
                exchange, "POST", path, host="x", accept="*/*", content_type="application/json", content_length="6"
            )
        finally:
            sys.setprofile(None)
    assert exchange.answer.status == 200
    assert len(called) <= BUDGET, called
