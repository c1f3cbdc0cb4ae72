"""What tests of attempts begin with."""

from __future__ import annotations

import pytest

from tests.sdk.shop import world


@pytest.fixture
async def own_world() -> None:
    """Nothing has happened yet in the world of the shop's handlers."""
    world.begin()
