"""`doctor` and Django's checks: what is well is said to be, what is not comes with a cure, secrets stay secret."""

from __future__ import annotations

import doctest
import importlib
import io
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from runtime import checks, conf
from runtime.conf import Settings
from runtime.management.commands import doctor
from runtime.reading import health
from runtime.reading.health import Condition, Finding
from runtime.servers import ports
from runtime.servers.valkey import Valkey


@pytest.fixture
def nowhere(tmp_path: Path) -> Settings:
    """Settings of which nothing answers."""
    port = ports.choose()
    return Settings.read(
        {
            "PERDURE_DATA": str(tmp_path),
            "DATABASE_URL": f"postgresql://127.0.0.1:{port}/none",
            "BROKER_URL": f"redis://:secret@127.0.0.1:{port}/0",
            "CHANNEL_URL": f"redis://:secret@127.0.0.1:{port}/1",
            "PERDURE_INGRESS_PORT": str(port),
            "PERDURE_SERVICES": "no_such_module:app",
        }
    )


@pytest.mark.parametrize(
    ("look", "words", "cure"),
    [
        (health.look_at_broker, "does not answer", "BROKER_URL"),
        (health.look_at_channel_layer, "does not answer", "CHANNEL_URL"),
        (health.look_at_broker, "does not answer", "PERDURE_DATA=DIR"),
        (doctor.look_at_services, "No module named 'no_such_module'", "PERDURE_SERVICES"),
        (doctor.look_at_ingress, "nothing answers on port", "PERDURE_INGRESS_PORT"),
    ],
)
def test_what_is_ill_comes_with_a_cure_and_without_passwords(
    nowhere: Settings, look: health.Look, words: str, cure: str
) -> None:
    finding = look(nowhere)
    assert words in finding.words
    assert cure in finding.hint
    assert "secret" not in finding.words + finding.hint


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:{}/0", "amqp://me:secret@127.0.0.1:{}//"])
def test_a_broker_that_accepts_and_says_nothing_is_not_waited_for(nowhere: Settings, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody accepts, but the system does
        began = time.monotonic()
        finding = health.look_at_broker(replace(nowhere, broker_url=url.format(silent.getsockname()[1])))
    assert "does not answer" in finding.words
    assert "secret" not in finding.words
    assert time.monotonic() - began < 30, "it has a limit"


def test_a_service_is_found_in_a_module_that_can_be_imported(
    nowhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_of_doctor.py").write_text("app = object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not doctor.look_at_services(replace(nowhere, services=("shop_of_doctor:app",))).hint
    assert "nothing" in doctor.look_at_services(replace(nowhere, services=("shop_of_doctor:nothing",))).words
    sys.modules.pop("shop_of_doctor")


def test_a_valkey_that_answers_is_well(nowhere: Settings, valkey: Valkey) -> None:
    settings = replace(nowhere, broker_url=valkey.broker_url, channel_url=valkey.channel_url)
    for look in (health.look_at_broker, health.look_at_channel_layer):
        finding = look(settings)
        assert not finding.hint
        assert valkey.password not in finding.words


@pytest.mark.django_db
def test_the_command_fails_when_something_is_ill(nowhere: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "settings", lambda: nowhere)
    said = io.StringIO()
    with pytest.raises(CommandError, match="are not well"):
        call_command("doctor", stdout=said)
    assert "well  python" in said.getvalue()
    assert "ill   broker" in said.getvalue()


def test_what_somebody_has_drained_is_noted_and_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    drained = Finding("drained: slow", "Resume it.", Condition.DEGRADED, is_wanted=True)
    monkeypatch.setattr(doctor, "LOOKS", {"queues": lambda _: drained, "python": doctor.look_at_python})
    said = io.StringIO()

    call_command("doctor", stdout=said, no_color=True)

    assert said.getvalue().startswith("note  queues     drained: slow\n                 Resume it.\nwell  python")


def test_a_process_without_lasting_secret_is_warned_of(nowhere: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "settings", lambda: nowhere)
    assert [message.id for message in checks.secret_key_is_lasting(None)] == ["perdure.W002"]
    monkeypatch.setattr(checks, "settings", lambda: replace(nowhere, secret_key="lasting"))
    assert checks.secret_key_is_lasting(None) == []


@pytest.mark.parametrize(
    "module", [conf.__name__, "runtime.supervisor", "runtime.servers.reach", "runtime.management.tryout"]
)
def test_examples_in_docstrings_are_true(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0
