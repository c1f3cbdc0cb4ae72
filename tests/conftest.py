"""Fixtures for every test: servers, started at most once per run and only for the tests that ask for them.

`database` is the address of a migrated database that is as good as new, `own_database` that of a new one, and
`module_database` that of one for the test's module. Django's ORM (mark django_db) works on the same server.
DATABASE_URL makes the run use another PostgreSQL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest
from asgiref.sync import SyncToAsync
from django.db import connections
from pytest_django import DjangoDbBlocker

from runtime.conf import settings
from runtime.project.settings import database as django_database
from runtime.servers.valkey import Valkey
from tests.support import database as databases
from tests.support import servers
from tests.support.database import Cluster, Shared

# Processes are started by the hundred: what the first of them compiles the others find. Where nothing is kept, a
# command takes 2.1 s of a processor to start instead of 0.8.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A test that asks for one of these, however indirectly, is left out by ./dev fast.
NEEDS_SERVERS = {"cluster", "valkey", "db", "transactional_db", "django_db_setup"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NEEDS_SERVERS.intersection(getattr(item, "fixturenames", ())) or item.get_closest_marker("django_db"):
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with databases.cluster(tmp_path_factory.mktemp("postgres")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> Iterator[str]:
    """The name of a migrated database that nobody uses but to copy it."""
    with databases.migrated(cluster) as name:
        yield name


@pytest.fixture(scope="session")
def shared_database(cluster: Cluster, template: str) -> Iterator[Shared]:
    shared = Shared(cluster, template)
    yield shared
    shared.drop()


@pytest.fixture
def database(shared_database: Shared) -> str:
    return shared_database.clean()


@pytest.fixture
def own_database(cluster: Cluster, template: str) -> Iterator[str]:
    with cluster.fresh(template=template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database(cluster: Cluster, template: str) -> Iterator[str]:
    with cluster.fresh(template=template) as url:
        yield url


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with servers.valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture(scope="session")
def django_db_modify_db_settings(cluster: Cluster) -> None:
    """Called by pytest-django before it makes its test database: that, too, is made on our server."""
    connections.settings["default"].update(django_database(cluster.url))


@pytest.fixture
def use_database(
    django_db_blocker: DjangoDbBlocker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """Points at a database whatever goes through the ORM or by the settings, until the test ends."""

    def use(url: str) -> None:
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("PERDURE_AUTH", "off")  # whoever asks; what accounts and tokens let in has its own tests
        settings.cache_clear()
        for name, value in django_database(url).items():
            monkeypatch.setitem(connections.settings["default"], name, value)
        _disconnect()

    with django_db_blocker.unblock():
        yield use
        _disconnect()
    settings.cache_clear()


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none here, nor anybody to hear that there is work."""

    async def nobody_hears() -> None: ...

    monkeypatch.setattr("runtime.hall.wake_workers", nobody_hears)


@pytest.fixture
def our_database(database: str, use_database: Callable[[str], None], no_broker: None) -> str:
    """As `database`, and in use."""
    use_database(database)
    return database


def _disconnect() -> None:
    connections.close_all()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()  # async code reaches the ORM from there


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """There is a secret key, as there is in use."""
    monkeypatch.setenv("PERDURE_SECRET_KEY", "hush")
    settings.cache_clear()
    yield
    settings.cache_clear()
