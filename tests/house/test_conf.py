"""Settings: what the environment says, what it leaves open, and what cannot be understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure.protocol.limits import Limits
from runtime.conf import SettingError, Settings
from runtime.drains import transport_options
from runtime.project.settings import database


def test_an_empty_environment_means_the_defaults(tmp_path: Path) -> None:
    settings = Settings.read({"PERDURE_DATA": str(tmp_path)})
    assert "examples.communication:app" in settings.services
    assert (settings.ingress_port, settings.web_port) == (8080, 9070)
    assert settings.queues == ("default",)
    assert settings.engines >= 1
    assert settings.channel_url is None
    assert settings.secret_key is None


def test_what_up_noted_is_found_by_other_commands_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    noted = {"DATABASE_URL": "postgresql:///noted", "BROKER_URL": "redis://noted", "CHANNEL_URL": "redis://noted/1"}
    (tmp_path / "servers.json").write_text(json.dumps(noted))
    (tmp_path / "secret_key").write_text("kept\n")
    settings = Settings.read({"PERDURE_DATA": str(tmp_path), "DATABASE_URL": "postgresql:///given"})
    assert settings.database_url == "postgresql:///given"
    assert (settings.broker_url, settings.channel_url) == ("redis://noted", "redis://noted/1")
    assert settings.secret_key == "kept"


def test_services_and_ports_of_an_up_are_found_by_other_commands_but_not_by_the_next_up(tmp_path: Path) -> None:
    (tmp_path / "servers.json").write_text(json.dumps({"PERDURE_SERVICES": "shop:app", "PERDURE_WEB_PORT": "9999"}))
    here = {"PERDURE_DATA": str(tmp_path)}
    assert (Settings.read(here).services, Settings.read(here).web_port) == (("shop:app",), 9999)
    assert Settings.read(here, noted={}).web_port == 9070


def test_lists_are_separated_by_commas_and_blanks_do_not_matter() -> None:
    settings = Settings.read({"PERDURE_SERVICES": " shop:app , billing:app,", "PERDURE_QUEUES": "default,slow"})
    assert settings.services == ("shop:app", "billing:app")
    assert settings.queues == ("default", "slow")


def test_limits_are_bytes_and_each_has_a_name_of_its_own() -> None:
    limits = Settings.read({"PERDURE_LARGEST_VALUE": "5000"}).limits

    assert limits == Limits(value=5000)
    with pytest.raises(SettingError, match="PERDURE_LARGEST_JOURNAL"):
        Settings.read({"PERDURE_LARGEST_JOURNAL": "much"})


@pytest.mark.parametrize("text", ["0", "-1", "80.5", "eighty", "65536", "²"])
def test_a_number_that_is_none_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(SettingError, match="PERDURE_INGRESS_PORT"):
        Settings.read({"PERDURE_INGRESS_PORT": text})


@pytest.mark.parametrize(
    ("name", "url", "wanted"),
    [
        ("DATABASE_URL", "nonsense://here", "postgresql://"),
        ("DATABASE_URL", "somewhere", "postgresql://"),
        ("BROKER_URL", "nonsense", "amqp://"),
        ("BROKER_URL", "http://broker", "redis://"),
        ("CHANNEL_URL", "amqp://broker", "redis://"),
        ("CHANNEL_URL", "redis://[", "redis://"),
    ],
)
def test_an_address_that_is_none_is_refused_with_its_name_and_what_it_should_be(
    name: str, url: str, wanted: str
) -> None:
    with pytest.raises(SettingError) as refusal:
        Settings.read({name: url})
    assert name in str(refusal.value)
    assert wanted in refusal.value.hint


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://me:p%40ss@/mine?host=/run/pg&port=5433",
            {"NAME": "mine", "USER": "me", "PASSWORD": "p@ss", "HOST": "/run/pg", "PORT": "5433", "OPTIONS": {}},
        ),
        ("postgresql://db.example/mine?sslmode=require", {"HOST": "db.example", "OPTIONS": {"sslmode": "require"}}),
        ("postgresql:///mine", {"NAME": "mine"}),
    ],
)
def test_django_reads_the_same_database_address(url: str, expected: dict[str, object]) -> None:
    assert expected.items() <= database(url).items()


def test_redelivery_is_hurried_on_redis_only() -> None:
    assert transport_options("redis://localhost")["visibility_timeout"] == 60
    assert transport_options("amqp://localhost") == {}
