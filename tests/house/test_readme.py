"""The README: its first code is an example that runs, and what it links to is there."""

from __future__ import annotations

import re

import pytest

from examples.greeter import Greeter
from perdure.testing import Rehearsal
from tests.support.servers import ROOT

README = (ROOT / "README.md").read_text()


def test_the_first_code_is_an_example_word_for_word() -> None:
    (first, *_) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert first == (ROOT / "sdk" / "examples" / "greeter.py").read_text()


async def test_the_first_code_does_what_the_page_shows() -> None:
    assert await Rehearsal(Greeter.greet).play("Mary") == "Hello Mary"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("page", ["docs/api.md", "docs/deployments.md", "docs/sql.md"])
def test_whatever_is_asked_of_the_api_says_who_asks(page: str) -> None:
    asked = re.findall(r"^curl .*localhost:9070/.*$", (ROOT / page).read_text(), re.MULTILINE)
    assert asked
    assert [line for line in asked if '"$AUTH"' not in line and "Bearer" not in line and "/health" not in line] == []


def test_every_setting_is_explained() -> None:
    explained = set(
        re.findall(r"`((?:PERDURE_|DATABASE_|BROKER_|CHANNEL_)[A-Z_]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    )
    read = set(
        re.findall(r'"((?:PERDURE_|DATABASE_|BROKER_|CHANNEL_)[A-Z_]+)"', (ROOT / "runtime/conf.py").read_text())
    )
    assert read <= explained
