"""The page of the distribution `perdure`: its Python is one module, which type-checks and does what the page says."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import perdure
from perdure.protocol.ids import format_awakeable, format_id
from perdure.service import Component, Handler, Options
from perdure.testing import NEVER, Rehearsal
from runtime.core.retry import RetryPolicy
from tests.sdk.test_client import ACCEPTED, Ingress, answer

SDK = Path(__file__).parents[2] / "sdk"
README = SDK / "README.md"
TEXT = README.read_text()


def python_of(text: str) -> str:
    """The blocks of Python, each line where it stands on the page, so that errors name the page's lines."""
    lines, is_python = [], False
    for line in text.splitlines():
        is_fence = line.startswith("```")
        lines.append(line if is_python and not is_fence else "")
        is_python = line == "```python" or (is_python and not is_fence)
    return "\n".join(lines) + "\n"


def module_of(source: str) -> Any:
    module = sys.modules["perdure_readme"] = ModuleType("perdure_readme")  # dataclasses look their module up
    exec(compile(source, README, "exec"), vars(module))
    return module


SOURCE = python_of(TEXT)
page = module_of(SOURCE)
TESTS = [name for name in vars(page) if name.startswith("test_")]
ORDER = page.Order("o1", "shoe", 10)
INVOCATION = format_id(bytes(16))
NEGATIVE = page.Order("o2", "shoe", -1)

Play = tuple[Handler[..., Any], list[Any], dict[str, Any], Any]
"""A handler, its argument, what else its rehearsal is told, and its result (or what its terminal error says)."""


def refused(message: str) -> perdure.TerminalError:
    return perdure.TerminalError(message)


PLAYS: list[Play] = [
    (page.Greeter.greet, ["Mary"], {}, "Hello Mary"),
    (page.Front.welcome, ["Mary"], {"answers": {page.Greeter.greet: "Hello Mary", page.Mailbox.put: 1}}, 1),
    (page.Front.new_year, ["Mary"], {}, "inv_10000000000000000000002"),
    (page.Ranking.rank, ["Mary"], {"answers": {"Scores/rank": 3}}, 3),
    (page.Mailbox.put, ["Hi"], {"key": "Mary"}, 1),
    (page.Mailbox.empty, [], {"key": "Mary", "state": {"seen": 1, "letters": []}}, ["letters", "seen"]),
    (page.Mailbox.letters, [], {"key": "Mary", "state": {"letters": ["Hi"]}}, "Mary has 1"),
    (page.Till.pay, [ORDER], {}, "payment-o1"),
    (page.Till.pay, [NEGATIVE], {}, refused("a price cannot be negative")),
    (page.Shop.buy, [ORDER], {"answers": {page.Till.pay: "paid"}}, "paid"),
    (page.Shop.buy, [page.Order("o3", "", 1)], {}, refused("nothing was ordered")),
    (page.Shop.buy_or_not, [NEGATIVE], {"answers": {page.Till.pay: refused("no")}}, "not sold: no"),
    (page.Prices.ask, ["north"], {}, 5),
    (page.Prices.compare, [], {"answers": {page.Prices.ask: len}}, [5, 8]),
    (page.Prices.fastest, [], {"answers": {page.Prices.ask: len}}, "5 from the north"),
    (page.Prices.patient, [], {"answers": {page.Prices.ask: 7}}, "7"),
    (page.Prices.patient, [], {"answers": {page.Prices.ask: NEVER}}, "nobody answered"),
    (page.Signup.run, ["m@e.org"], {"key": "Mary", "promises": {"confirmed": "by mail"}}, "by mail"),
    (page.Signup.run, ["m@e.org"], {"key": "Mary"}, "nobody confirmed it"),
    (page.Signup.run, ["m@e.org"], {"key": "Mary", "promises": {"confirmed": refused("not me")}}, refused("not me")),
    (page.Signup.confirm, ["by mail"], {"key": "Mary"}, None),
    (page.Signup.confirm, ["again"], {"key": "Mary", "promises": {"confirmed": "by mail"}}, refused("already")),
    (page.Signup.decline, [], {"key": "Mary"}, None),
    (page.Signup.is_confirmed, [], {"key": "Mary"}, False),
    (page.Signup.is_confirmed, [], {"key": "Mary", "promises": {"confirmed": "by mail"}}, True),
    (page.Desk.approve, [ORDER], {"awakeables": [True]}, True),
    (page.Desk.collect, [2], {"signals": {"word": ["good", "bad"]}}, ["good", "bad"]),
    (page.Desk.tell, [INVOCATION], {}, None),
    (page.Desk.decide, [format_awakeable(bytes(16), 17)], {}, None),
    (page.Desk.sign_up, ["Mary"], {"answers": {page.Signup.run: "by phone"}}, "by phone"),
    (page.Trip.book, [ORDER], {"answers": {page.Mailbox.put: 1}}, "payment-o1"),
    (page.Trip.book, [NEGATIVE], {}, refused("a price cannot be negative")),
    (page.Courier.label, [page.Address(street="Elm", number=3)], {}, b"Elm 3"),
    (page.Reports.monthly, [2], {"service": page.Reports("EUR"), "answers": {page.Reports.total: "9"}}, "9"),
    (page.Reports.total, [2], {"service": page.Reports("EUR")}, "200 EUR"),
]


def components() -> list[type[Component]]:
    return [value for value in vars(page).values() if isinstance(value, type) and hasattr(value, "__perdure__")]


@pytest.mark.parametrize(("handler", "arguments", "told", "expected"), PLAYS)
async def test_handlers_do_what_the_page_says(
    handler: Handler[..., Any], arguments: list[Any], told: dict[str, Any], expected: Any
) -> None:
    rehearsal = Rehearsal(handler, **told)
    if isinstance(expected, perdure.TerminalError):
        with pytest.raises(perdure.TerminalError, match=expected.message):
            await rehearsal.play(*arguments)
    else:
        assert await rehearsal.play(*arguments) == expected
    await rehearsal.replay()


def test_every_handler_of_the_page_is_played() -> None:
    written = {handler for component in components() for handler in component.__perdure__.handlers.values()}
    assert written == {handler for handler, *_ in PLAYS}


def test_every_service_of_the_page_is_offered() -> None:
    offered = {service.name for service in page.everything.manifest().services}
    assert offered == {component.__perdure__.name for component in components()}


@pytest.mark.parametrize("name", TESTS)
async def test_the_tests_of_the_page_pass(name: str) -> None:
    await getattr(page, name)()


async def test_the_program_outside_calls_sends_and_attaches() -> None:
    accepted = answer(ACCEPTED, 202, x_restate_id="inv_1sent")
    ingress = Ingress([answer(b'"Hello Mary"'), answer(b"1"), accepted, answer(b"2")])
    server = await asyncio.start_server(ingress.serve, "127.0.0.1", 0)
    async with server:
        result = await page.main(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert result == ["Hello Mary", 1, 2]
    assert [request.partition(" HTTP")[0] for request in ingress.requests] == [
        "POST /Greeter/greet",
        "POST /Mailbox/Mary/put",
        "POST /Mailbox/Mary/put/send?delay=5000ms",
        "GET /restate/invocation/inv_1sent/attach",
    ]


async def test_the_program_outside_starts_a_workflow_and_speaks_to_it() -> None:
    ingress = Ingress([answer(ACCEPTED, 202), answer(b""), answer(b'"by phone"')])
    server = await asyncio.start_server(ingress.serve, "127.0.0.1", 0)
    async with server:
        assert await page.sign_up(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") == "by phone"
    assert [request.partition(" HTTP")[0] for request in ingress.requests] == [
        "POST /Signup/Mary/run/send",
        "POST /Signup/Mary/confirm",
        "GET /restate/workflow/Signup/Mary/attach",
    ]


def test_the_page_type_checks(tmp_path: Path) -> None:
    module, settings = tmp_path / "page.py", tmp_path / "mypy.ini"
    module.write_text(SOURCE)
    settings.write_text(f"[mypy]\nstrict = true\npython_version = 3.11\nmypy_path = {SDK}\n")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", settings, module],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_all_options_are_explained() -> None:
    assert {option for option, _ in table("Options")} == {"name", "shared", *Options.__struct_fields__}


def test_the_pauses_between_attempts_are_the_runtimes() -> None:
    policy = RetryPolicy()
    pauses = dict(table("Errors and retries"))
    assert {option: pauses[option] for option in perdure.Retry.__struct_fields__ if option in pauses} == {
        "initial": f"{policy.initial_ms / 1000:g} s",
        "factor": f"{policy.factor:g}",
        "max_interval": f"{policy.max_ms / 60_000:g} min",
        "max_attempts": f"{policy.max_attempts}",
        "on_max_attempts": f'`"{policy.on_max_attempts.lower()}"`',
    }


def test_links_lead_somewhere() -> None:
    headings = {re.sub("[^a-z -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^## (.*)$", TEXT, re.M)}
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", TEXT):
        assert (SDK / path).exists(), path
        assert not anchor or anchor in headings, anchor


def table(section: str) -> list[tuple[str, str]]:
    """What stands first in each row of a section's tables, and what stands second."""
    [found] = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| `(\w+)`[^|]*\| ([^|]*?) \|", found, re.MULTILINE)
