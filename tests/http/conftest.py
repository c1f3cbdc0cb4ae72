"""The operators' API and the ingress as they are asked in the test's own process, on the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from django.test import AsyncClient, override_settings

from runtime import hall
from runtime.accounts import door
from runtime.accounts.tokens import Tokens
from runtime.conf import settings
from runtime.operations import Operations
from runtime.registering import register_module
from runtime.store.link import Link


@pytest.fixture
async def client(our_database: str) -> AsyncIterator[AsyncClient]:
    """Of the operators' API."""
    yield AsyncClient()
    await hall.leave()


@pytest.fixture
async def registered(our_database: str) -> None:
    """The services of `tests.support.endpoints` are known; no engine has them."""
    with closing(await Link.connect(our_database)) as link:
        await register_module("tests.support.endpoints:app", link)


@pytest.fixture
async def operations(registered: None, client: AsyncClient) -> Operations:
    """What the API acts by."""
    return await hall.operations()


@pytest.fixture
async def guarded(our_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Nobody comes in without an account or a token, as it is when that is not turned off."""
    monkeypatch.setenv("PERDURE_AUTH", "on")
    settings.cache_clear()
    monkeypatch.setattr(door, "tokens", Tokens())
    monkeypatch.setattr(door, "_noted", {})
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):  # for its speed
        yield
    await hall.leave()
