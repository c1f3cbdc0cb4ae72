"""One running system for all of these tests: they share it as callers do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stack import Stack, stack


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("chaos"), has_web=True) as running:
        yield running


@pytest.fixture(autouse=True)
def held(system: Stack) -> Iterator[None]:
    """Handlers that hold do so until the test lets them go; a test that fails shows what the system said."""
    system.start()
    system.hold()
    since = len(system.log)
    yield
    system.release()
    print("".join(system.log[since:][-100:]))
