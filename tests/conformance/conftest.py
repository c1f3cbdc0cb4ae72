"""One runtime for all behaviours, and the hosts of the services one after the other: each way to drive each of them.

By default a host is driven once over HTTP/2 and once over HTTP/1.1, in different versions of the protocol;
PERDURE_CONFORMANCE=all drives it in every version over both. PERDURE_CONFORMANCE_RUNTIME=restate asks Restate's own
server (from npm) instead of Perdure whether services and expectations are right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance import runtimes
from tests.conformance.hosts import HOSTS, serving
from tests.conformance.ingress import Ingress, until
from tests.conformance.runtimes import Perdure, Restate

VERSIONS = (5, 6, 7)
ENGINES = "engines"


@dataclass(frozen=True)
class Way:
    """How the services are hosted and driven."""

    host: str
    http11: bool = False
    version: int = 7

    def __str__(self) -> str:
        if self.host == ENGINES:
            return "in-engines"
        return f"{self.host}-{'http1' if self.http11 else 'http2'}-v{self.version}"


def ways() -> list[Way]:
    """In an order in which few processes are started, the engines' own first."""
    if runtimes.is_reference():
        return [Way(host, http11) for host in HOSTS for http11 in (False, True)]
    if os.environ.get("PERDURE_CONFORMANCE") == "all":
        driven = [Way(host, http11, version) for host in HOSTS for http11 in (False, True) for version in VERSIONS]
    else:
        driven = [
            Way("restate-py-1.2", http11=False, version=5),
            Way("restate-py-1.2", http11=True, version=6),
            Way("restate-py-1.3", http11=False, version=7),
            Way("restate-py-1.3", http11=True, version=7),
            Way("restate-ts", http11=False, version=7),
            Way("restate-ts", http11=True, version=6),
            Way("perdure-asgi", http11=False, version=7),
            Way("perdure-asgi", http11=True, version=6),
        ]
    return [Way(ENGINES), *driven]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a version of the protocol does not have is not asked of it."""
    early = [item for item in items if _is_too_early(item)]
    if early:
        config.hook.pytest_deselected(items=early)
        items[:] = [item for item in items if item not in early]


def _is_too_early(item: pytest.Item) -> bool:
    since = item.get_closest_marker("since")
    return since is not None and item.callspec.params["way"].version < since.args[0]  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def tallies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("tallies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONFORMANCE_TALLIES", str(directory))
        yield directory


@pytest.fixture(scope="session")
def runtime(tallies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Perdure | Restate]:
    with runtimes.chosen(tmp_path_factory.mktemp("runtime")) as runtime:
        yield runtime


@pytest.fixture(scope="session", params=ways(), ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture(scope="session")
def hosts() -> Iterator[ExitStack]:
    """They stay to the end: what has been called already goes on where it began."""
    with ExitStack() as hosts:
        yield hosts


@pytest.fixture(scope="session")
def ingress(runtime: Perdure | Restate, way: Way, hosts: ExitStack, tallies: Path) -> Ingress:
    """Where the services are called; whoever hosts them now has taken over what is new."""
    if way.host == ENGINES:
        assert isinstance(runtime, Perdure)
        runtime.host()
    else:
        url = hosts.enter_context(serving(HOSTS[way.host], str(way), tallies, http11=way.http11))
        runtime.register(f"{url}/{way}", http11=way.http11, version=way.version)
    ingress = runtime.ingress
    until(lambda: ingress.call("Echo/host") == str(way))
    return ingress
