"""Fixtures for every test: servers, started at most once per run and only for the tests that ask for them.

`database` is the address of a migrated database of the test's own, `module_database` one of its module's; Django's ORM
(mark django_db) works on the same server. DATABASE_URL makes the run use another PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asgiref.sync import SyncToAsync
from django.db import connections

from runtime.conf import settings
from runtime.project.settings import database as django_database
from runtime.servers.valkey import Valkey
from tests.support import database as databases
from tests.support import servers
from tests.support.database import Cluster

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


@pytest.fixture
def database(cluster: Cluster, template: str) -> Iterator[str]:
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
def our_database(cluster: Cluster, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Django's test database, for what goes through the ORM and what goes by the settings; emptied at the end."""
    url = cluster.database(str(connections["default"].settings_dict["NAME"]))
    monkeypatch.setenv("DATABASE_URL", url)
    settings.cache_clear()
    yield url
    settings.cache_clear()
    databases.empty(url)
    # Async code reaches the ORM in one thread of asgiref's: connected, it would keep the database from being dropped.
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()
