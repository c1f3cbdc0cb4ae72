"""The commands of operators: what they print, how they end, and what they say when something is wrong."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.core.management.base import CommandError

from perdure.protocol.ids import format_id
from perdure.protocol.messages import Call, CallInvocationIdCompletion, Entry, Failure, InvocationRef, Run, Value
from runtime.core.invocation import Outcome, Status
from runtime.management.commands._output import lines
from runtime.operations import Ended, Operations
from runtime.replaying import Misfit, Replayed
from tests.support import history
from tests.support.database import Cluster

APP = "tests.support.endpoints:app"
UNKNOWN = format_id(bytes(16))


@dataclass
class Said:
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


def manage(*command: str) -> Said:
    """Run a command; raises CommandError where its process would say why it failed."""
    out, err = io.StringIO(), io.StringIO()
    call_command(*command, stdout=out, stderr=err, no_color=True)
    return Said(out.getvalue(), err.getvalue())


@pytest.fixture
def registered(our_database: str) -> None:
    manage("register", APP)


# replay


def test_replaying_says_that_all_fits_or_what_does_not(registered: None) -> None:
    assert "All 0 under way would go on with it" in manage("replay", APP).err
    assert manage("replay", APP, "--json").json() == {"invocations": 0, "misfits": [], "left_out": 0}


def test_replaying_says_what_does_not_fit_and_exits_with_3(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def replayed(*_: object) -> Replayed:
        return Replayed(2, (Misfit(UNKNOWN, "Greeter/greet", "They part.", 3),))

    monkeypatch.setattr("runtime.management.commands.replay.replayed", replayed)
    with pytest.raises(CommandError, match="1 of 2 under way would not go on with it") as caught:
        manage("replay", APP)
    assert caught.value.returncode == 3


# register


def test_registering_says_what_is_served(our_database: str) -> None:
    first, again = manage("register", APP), manage("register", APP)

    assert first.out.startswith(f"{APP}: registered as dp_")
    assert first.out.endswith("serving Greeter, Mailbox\n")
    assert "already known" in again.out


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("tests.support.endpoints", "is not the name of an endpoint"),
        ("tests support:app", "is not the name of an endpoint"),
        ("tests.support.nowhere:app", "ModuleNotFoundError: No module named 'tests.support.nowhere'"),
        ("tests.support.endpoints:ap", "has no 'ap'. There is tests.support.endpoints:app"),
        ("tests.support.endpoints:number", "is of type int, not an Endpoint"),
        ("tests.support.endpoints:Greeter", "is the class Greeter, not an Endpoint"),
    ],
)
def test_what_is_no_endpoint_is_refused_in_words(location: str, message: str) -> None:
    with pytest.raises(CommandError) as refusal:
        manage("register", location)

    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 2  # what is wrong, and what to do


def test_a_module_that_fails_is_shown_with_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_written.py").write_text("first = 1\nsecond = first / 0\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(CommandError, match=r"ZeroDivisionError: division by zero \(half_written.py, line 2\)"):
        manage("register", "half_written:app")


def test_one_bad_location_keeps_all_from_being_registered(our_database: str) -> None:
    with pytest.raises(CommandError):
        manage("register", APP, "tests.support.endpoints:number")

    assert manage("services").out == ""


def test_endpoints_that_have_a_service_in_common_are_refused_together(our_database: str) -> None:
    with pytest.raises(CommandError, match="both have a service 'Greeter'"):
        manage("register", "--force", APP, "tests.support.endpoints:greeter")

    assert manage("services").out == ""


def test_a_service_moves_to_another_endpoint_only_by_force(registered: None) -> None:
    with pytest.raises(CommandError, match=r"would move to tests\.support\.endpoints:greeter"):
        manage("register", "tests.support.endpoints:greeter")

    assert "would move" in manage("register", "--force", "tests.support.endpoints:greeter").err


# deployments


def test_deployments_are_listed_looked_at_and_deleted(registered: None) -> None:
    heading, line = manage("deployments").out.splitlines()
    id = line.split()[0]

    assert heading.split() == ["DEPLOYMENT", "LOCATION", "CREATED", "ENGINES", "SERVES"]
    assert line.split()[1] == APP
    assert line.endswith("not loaded  Greeter Mailbox")
    assert "0 invocations" in manage("deployments", id).out
    assert manage("deployments", id, "--delete").err == "Nobody serves Greeter, Mailbox any more.\n"
    assert manage("deployments").out == ""
    with pytest.raises(CommandError, match="There is no deployment"):
        manage("deployments", id)


# services


def test_services_are_a_table_for_people_and_json_for_programs(registered: None) -> None:
    heading, greeter, mailbox = manage("services").out.splitlines()

    assert heading.split() == ["SERVICE", "TYPE", "REVISION", "CODE", "HANDLERS"]
    assert greeter.split()[:3] == ["Greeter", "service", "1"]
    assert greeter.endswith("greet whisper")
    assert "virtual object" in mailbox
    listed = manage("services", "--json").json()
    assert isinstance(listed, list)
    assert [served["info"]["name"] for served in listed] == ["Greeter", "Mailbox"]


def test_nothing_registered_says_how_to_register(our_database: str) -> None:
    said = manage("services")

    assert said.out == ""
    assert "./dev manage register" in said.err


def test_options_of_a_service_are_set_shown_and_taken_back(registered: None) -> None:
    manage("services", "Greeter", "--set", "public=false", "--set", "retry_max_attempts=3")
    told = manage("services", "Greeter", "--unset", "retry_max_attempts").out.splitlines()

    assert told[0].split() == ["service", "Greeter"]
    assert told[-1].split() == ["set", "public=false"]
    with pytest.raises(CommandError, match="has no option 'publik'"):
        manage("services", "Greeter", "--set", "publik=false")
    with pytest.raises(CommandError, match="There is no service 'Nobody'"):
        manage("services", "Nobody", "--set", "public=false")
    with pytest.raises(CommandError, match="is not OPTION=VALUE"):
        manage("services", "Greeter", "--set", "public")


# keys


def test_keys_of_a_service_are_made_listed_and_taken_back(registered: None) -> None:
    open_to_all = manage("keys", "Greeter").err
    key = manage("keys", "Greeter", "--create", "the shop").out.strip()
    heading, line = manage("keys", "Greeter").out.splitlines()
    id = line.split()[0]

    assert "open to whoever" in open_to_all
    assert heading.split() == ["KEY", "CREATED", "BY", "NOTE"]
    assert key.startswith(id)
    assert line.endswith("the shop")
    with pytest.raises(CommandError, match="is the only key of 'Greeter'"):
        manage("keys", "Greeter", "--revoke", id)
    assert manage("keys", "Greeter", "--revoke", id, "--open").err == "Greeter is open now.\n"


# invocations


def test_invocations_are_listed_newest_first(our_database: str) -> None:
    async def rows() -> tuple[str, str]:
        failed = await history.ended(outcome=Outcome.FAILED, failure={"code": 500, "message": "no\nstock"})
        later = history.BEGINNING + timedelta(seconds=1)
        return failed, await history.alive("Mailbox/Mary/put", created_at=later, failed_attempts=2)

    failed, running = async_to_sync(rows)()
    _, first, second = manage("invocations").out.splitlines()

    assert first.split()[:2] == ["running", running]
    assert "Mailbox/Mary/put" in first
    assert first.endswith("2 ×")
    assert second.split()[:2] == ["failed", failed]
    assert second.endswith("no")
    assert len(manage("invocations", "--limit", "1").out.splitlines()) == 2


def test_invocations_are_listed_by_filter_page_by_page_and_counted(our_database: str) -> None:
    async def rows() -> list[str]:
        await history.ended("Greeter/greet")
        return [
            await history.alive("Mailbox/Mary/put", created_at=history.BEGINNING + timedelta(seconds=second))
            for second in range(3)
        ]

    ids = async_to_sync(rows)()
    wanted = ("invocations", "--service", "Mailbox", "--status", "running", "--created-after", "2026-01-01T12:00Z")

    first = manage(*wanted, "--sort", "created", "--limit", "2")
    cursor = first.err.split()[-1]
    second = manage(*wanted, "--sort", "created", "--cursor", cursor)

    assert [line.split()[1] for line in first.out.splitlines()[1:]] == ids[:2]
    assert [line.split()[1] for line in second.out.splitlines()[1:]] == ids[2:]
    assert second.err == ""
    assert manage(*wanted, "--count").out == "3\n"
    assert manage(*wanted, "--count", "--json").json() == {"value": 3, "exact": True}
    assert manage("invocations", "--outcome", "killed").err == "There is none, or no more.\n"


def test_what_keeps_an_invocation_is_said_and_what_keeps_the_one_it_waits_for(our_database: str) -> None:
    async def rows() -> tuple[str, str]:
        callee = await history.alive("Mailbox/Mary/put", status=Status.PAUSED)
        call: list[Entry] = [
            Call("Mailbox", "put", b"", 1, 2, key="Mary"),
            CallInvocationIdCompletion(1, InvocationRef(callee)),
        ]
        return await history.alive(status=Status.SUSPENDED, waits=[2], entries=call), callee

    caller, callee = async_to_sync(rows)()

    said = manage("invocations", caller, "--why").out.splitlines()

    assert said[0] == f"It awaits the result of Mailbox/Mary/put ({callee})."
    assert said[1].startswith(f"{callee}: It is paused since 2026-01-01 12:00:00 UTC, until somebody resumes it")
    assert said[0] in manage("invocations", caller).out
    with pytest.raises(CommandError, match="Which one"):
        manage("invocations", "--why")
    with pytest.raises(CommandError, match="Either an ID or filters"):
        manage("invocations", caller, "--key", "Mary")


def test_the_last_failure_is_shown_with_the_place_where_it_happened(our_database: str) -> None:
    failure = {
        "code": 500,
        "message": "ValueError: no",
        "stacktrace": "Traceback:\n  shop.py, line 3\nValueError: no\n",
    }
    id = async_to_sync(history.alive)("Mailbox/Mary/put", status=Status.PAUSED, failure=failure, failed_attempts=5)

    shown = manage("invocations", id).out

    assert "where the last attempt failed\nTraceback:\n  shop.py, line 3\nValueError: no\n\n" in shown
    assert "attempts    5 failed\n" in shown


def test_what_nobody_serves_is_said_with_what_to_start(registered: None) -> None:
    id = manage("invoke", "Greeter", "greet", "--input", '"Mary"', "--send").out.strip()

    assert f"not served: {APP}" in manage("services").out
    assert f"./dev up --services {APP}" in manage("services").err
    assert f"for an engine that has loaded its code, {APP}" in manage("invocations", id).out


def test_one_invocation_is_shown_with_its_journal(our_database: str) -> None:
    id = async_to_sync(history.alive)("Mailbox/Mary/put", entries=[Run(1, "charge")])

    said = manage("invocations", id)

    assert f"invocation  {id}\ntarget      Mailbox/Mary/put\nstatus      running\n" in said.out
    assert said.out.splitlines()[-1].split() == ["1", "Command:", "Run", "charge", "awaited"]


@pytest.mark.parametrize(("id", "message"), [(UNKNOWN, "There is no invocation"), ("x", "'x' is not the id")])
def test_an_invocation_that_is_not_there_is_an_error(our_database: str, id: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        manage("invocations", id)


# cancel and kill


def test_what_has_not_started_is_cancelled_at_once(registered: None) -> None:
    id = manage("invoke", "Mailbox", "put", "--key", "Mary", "--input", '"Hi"', "--send").out.strip()

    assert manage("cancel", id).out == f"{id}  ended before it started\n"
    assert "completed, cancelled" in manage("invocations", id).out


def test_of_several_each_is_told_and_a_failure_is_the_exit_code(registered: None) -> None:
    id = manage("invoke", "Greeter", "greet", "--input", '"Mary"', "--send").out.strip()
    out = io.StringIO()

    with pytest.raises(CommandError, match="1 of 2 could not be told") as failure:
        call_command("kill", UNKNOWN, id, stdout=out, no_color=True)

    assert failure.value.returncode == 1
    assert out.getvalue().splitlines() == [f"{UNKNOWN}  is not known, or not kept any more", f"{id}  ended"]


def test_what_has_not_started_has_nothing_to_resume(registered: None) -> None:
    id = manage("invoke", "Mailbox", "put", "--key", "Mary", "--input", '"Hi"', "--send").out.strip()
    out = io.StringIO()

    with pytest.raises(CommandError, match="1 of 1 could not be told"):
        call_command("resume", id, "--deployment", "latest", stdout=out, no_color=True)

    assert out.getvalue() == f"{id}  has not started yet: there is nothing to resume\n"


# invoke


def answering(monkeypatch: pytest.MonkeyPatch, result: Value | Failure) -> None:
    """Let whatever is invoked end so: there are no engines here."""

    async def attach(_: Operations, id: bytes) -> Ended:
        return Ended(id, result)

    monkeypatch.setattr(Operations, "attach", attach)


def test_a_result_is_printed_readably(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, Value(b'{"greeting":"Hello"}'))

    assert manage("invoke", "Greeter", "greet", "--input", '"Mary"').out == '{\n  "greeting": "Hello"\n}\n'


def test_a_failed_invocation_is_exit_code_3(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, Failure(410, "sold out"))

    with pytest.raises(CommandError, match="failed with 410: sold out") as failure:
        manage("invoke", "Greeter", "greet", "--input", '"Mary"')

    assert failure.value.returncode == 3


def test_one_that_does_not_end_in_time_is_exit_code_4_and_goes_on(
    registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Operations, id: bytes) -> Ended:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Operations, "attach", never)
    with pytest.raises(CommandError, match=r"has not ended within 0\.01 s") as failure:
        manage("invoke", "Greeter", "greet", "--input", '"Mary"', "--timeout", "0.01")

    assert failure.value.returncode == 4
    assert manage("invocations").out.splitlines()[1].startswith("ready")


def test_a_message_can_be_delayed_and_taken_from_a_file(registered: None, tmp_path: Path) -> None:
    (tmp_path / "name.json").write_text('"Mary"')

    id = manage("invoke", "Greeter", "greet", "--file", str(tmp_path / "name.json"), "--delay", "1h").out.strip()

    shown = manage("invocations", id, "--json").json()
    assert isinstance(shown, dict)
    assert shown["summary"]["status"] == "scheduled"
    assert shown["journal"][0]["details"]["value"] == {"json": "Mary"}


def test_a_handler_that_takes_nothing_is_invoked_without_an_input(
    registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Value(b"[]"))

    assert manage("invoke", "Mailbox", "letters", "--key", "Mary").out == "[]\n"


def test_an_idempotency_key_invokes_once(registered: None) -> None:
    command = ("invoke", "Greeter", "greet", "--input", '"Mary"', "--send", "--idempotency-key", "order-1", "--json")

    first, second = manage(*command).json(), manage(*command).json()

    assert isinstance(first, dict)
    assert second == {**first, "is_new": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Nobody", "greet"), "There is no service 'Nobody'"),
        (("Greeter", "shout"), "has no handler 'shout'"),
        (("Mailbox", "put", "--input", '"Hi"'), "needs a key"),
        (("Greeter", "greet", "--input", '"Hi"', "--key", "Mary"), "takes no key"),
        (("Greeter", "greet"), r"needs an input.*\nAs in: \./dev manage invoke Greeter greet --input '\"text\"'$"),
        (("Mailbox", "put", "--key", "Mary"), r"\nAs in: .* Mailbox put --key Mary --input '\"text\"'$"),
        (("Greeter", "greet", "--input", "1"), r'does not fit Greeter/greet: at \$: 1 is not of type "string"'),
        (("Mailbox", "letters", "--key", "Mary", "--input", "1"), "takes no input"),
        (("Greeter", "greet", "--input", "Mary"), "is not JSON"),
        (("Greeter", "greet", "--delay", "soon"), "cannot be understood. A delay is"),
        (("Greeter", "greet", "--file", "no/such/file"), "cannot be read: No such file"),
    ],
)
def test_what_cannot_be_invoked_is_refused_in_words(registered: None, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        manage("invoke", *arguments)


# What all have in common


@pytest.mark.parametrize(
    "command", [("services",), ("invocations",), ("register", APP), ("cancel", UNKNOWN), ("invoke", "Greeter", "greet")]
)
def test_without_a_database_every_command_says_where_to_look(
    use_database: Callable[[str], None], command: tuple[str, ...]
) -> None:
    use_database("postgresql://nobody@127.0.0.1:1/nothing")

    with pytest.raises(CommandError, match="does DATABASE_URL name it"):
        manage(*command)


@pytest.mark.parametrize("command", [("services",), ("invocations",), ("register", APP), ("cancel", UNKNOWN)])
def test_without_tables_every_command_says_to_migrate(
    cluster: Cluster, use_database: Callable[[str], None], command: tuple[str, ...]
) -> None:
    with cluster.fresh() as bare:
        use_database(bare)

        with pytest.raises(CommandError, match=r"\./dev manage migrate"):
            manage(*command)


def test_a_table_that_is_too_wide_gives_way_on_the_right() -> None:
    rows = [["STATUS", "FAILURE"], ["failed", "a long story about stock"]]

    assert lines(rows, None)[1] == "failed  a long story about stock"
    assert lines(rows, 24)[1] == "failed  a long story ab…"
