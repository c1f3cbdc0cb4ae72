"""What tests of the store begin with: a database of their own, and sessions on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.sessions import Sessions


@pytest.fixture
async def sessions(database: str) -> AsyncIterator[Sessions]:
    async with Sessions(database) as sessions:
        yield sessions
