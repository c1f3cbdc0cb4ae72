"""The plan of `up`: what it starts, in which order, and what each process is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.conf import Settings
from runtime.management.stages import NAMES, stages
from runtime.servers.postgres import Disguise, Postgres
from runtime.servers.valkey import Valkey


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.read(
        {
            "PERDURE_DATA": str(tmp_path),
            "DATABASE_URL": "postgresql:///perdure",
            "PERDURE_SERVICES": "shop:app,billing:app",
            "PERDURE_QUEUES": "default,slow",
            "PERDURE_ENGINES": "3",
        }
    )


def test_servers_come_first_and_nothing_runs_on_a_database_that_is_not_migrated(
    settings: Settings, tmp_path: Path
) -> None:
    postgres = Postgres(tmp_path, 5432, "secret", Disguise())
    valkey = Valkey(tmp_path, 6379, "secret")
    plan = [[one.name for one in stage] for stage in stages(settings, NAMES, postgres, valkey)]
    assert plan == [["postgres", "valkey"], ["migrate"], ["register"], ["ingress", "web", "engines", "chores"]]


def test_servers_that_are_given_are_not_started(settings: Settings) -> None:
    assert stages(settings, NAMES)[0][0].name == "migrate"


def test_only_what_is_named_is_started(settings: Settings) -> None:
    assert [[one.name for one in stage] for stage in stages(settings, ["engines", "migrate"])] == [
        ["migrate"],
        ["engines"],
    ]


def test_every_process_is_told_the_same_settings(settings: Settings) -> None:
    for stage in stages(settings, NAMES):
        for one in stage:
            assert one.environment["DATABASE_URL"] == "postgresql:///perdure"
            assert one.environment["PERDURE_SERVICES"] == "shop:app,billing:app"
            assert Settings.read(one.environment) == settings


def test_each_service_is_registered(settings: Settings) -> None:
    (register,) = stages(settings, ["register"])[0]
    assert register.command[-4:] == ("register", "--force", "shop:app", "billing:app")


def test_engines_consume_the_drains_of_their_queues_and_nothing_else(settings: Settings) -> None:
    command = stages(settings, ["engines"])[0][0].command
    assert command[command.index("--queues") + 1] == "perdure.drain.default,perdure.drain.slow"
    assert command[command.index("--concurrency") + 1] == "3"
