"""The examples in the ingress's docstrings work."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["runtime.core.delays", "runtime.ingress.schemas"])
def test_examples_work(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted
    assert not results.failed
