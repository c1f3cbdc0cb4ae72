"""The examples in the SDK's docstrings and in its README are true."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import pkgutil
from datetime import timedelta

import pytest

import perdure

MODULES = [module.name for module in pkgutil.walk_packages(perdure.__path__, "perdure.")]


class Greeter(perdure.Service):
    @perdure.handler
    async def greet(self, ctx: perdure.Context, name: str) -> str:
        return f"Hello {name}"


# What an author has imported anyway.
KNOWN = {name: getattr(perdure, name) for name in perdure.__all__}
KNOWN |= {"Greeter": Greeter, "asyncio": asyncio, "timedelta": timedelta}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs=KNOWN | vars(module))
    assert not failed
