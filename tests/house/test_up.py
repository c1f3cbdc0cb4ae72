"""`manage.py up` as a person meets it: it comes up, says so, stops when told, and can be killed without a trace."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runtime.conf import noted_servers
from runtime.servers import ports
from tests.support.servers import ROOT, wait_until

pytestmark = pytest.mark.servers

HOUSE = "postgres,valkey,migrate,web"
GIVEN = ("DATABASE_URL", "BROKER_URL", "CHANNEL_URL")


class Up:
    """One run of the command, in a directory of its own."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.port = ports.choose()
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--only", HOUSE, "--data", str(data)]
        self.process = subprocess.Popen(
            [*command, "--web-port", str(self.port), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            cwd=data.parent,
        )
        self.lines: list[str] = []

    def until(self, words: str) -> None:
        """Read on until it says so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        pytest.fail(f"it never said {words!r}:\n{''.join(self.lines)}")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        self.lines += output.splitlines(keepends=True)
        return self.process.returncode

    def traces(self) -> list[int]:
        """The processes that live and were started with our data directory."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._is_ours(path)]

    def _is_ours(self, process: Path) -> bool:
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return str(self.data).encode() in told and state != "Z" and int(process.name) != os.getpid()


def environment() -> dict[str, str]:
    """Ours without servers that the test run may have been given."""
    ours = {name: value for name, value in os.environ.items() if name not in GIVEN}
    return ours | {"PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"}


@contextlib.contextmanager
def up(data: Path, *arguments: str) -> Iterator[Up]:
    run = Up(data, *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.end(signal.SIGTERM)
        if run.process.stdout is not None:
            run.process.stdout.close()
        wait_until(lambda: run.traces() == [])


class House:
    """A data directory on which one run follows another, as a person's do; the next test has what was left running."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._runs = contextlib.ExitStack()
        self._last: Up | None = None

    def run(self) -> Up:
        """One that is up."""
        if self._last is None or self._last.process.poll() is not None:
            return self.run_again()
        return self._last

    def run_again(self, *arguments: str) -> Up:
        """The next one, when the last has ended, in whatever way."""
        self._last = run = self._runs.enter_context(up(self.data, *arguments))
        run.until("up after")
        run.until("curl")
        return run

    def close(self) -> None:
        self._runs.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("up") / ".perdure")
    yield house
    house.close()


def test_other_commands_find_its_database_and_its_secrets_are_the_owners(house: House) -> None:
    house.run()
    subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "migrate", "--check"],
        env=environment() | {"PERDURE_DATA": str(house.data)},
        check=True,
    )
    for name in ("servers.json", "secret_key", "credentials", "token"):
        assert (house.data / name).stat().st_mode & 0o077 == 0


def test_a_second_one_on_the_same_data_is_told_who_holds_it(house: House) -> None:
    run = house.run()
    assert f"is in use by another `up` (pid {run.process.pid})" in refusal(house.data)


def test_it_comes_up_and_stops_in_order_on_ctrl_c(house: House) -> None:
    run = house.run()
    assert run.end(signal.SIGINT) == 0
    said = "".join(run.lines)
    assert said.index("postgres | answers") < said.index("migrate  | done") < said.index("web      | answers")
    assert said.rstrip().endswith("stopped")
    wait_until(lambda: run.traces() == [])


def test_the_first_start_makes_an_admin_and_a_token_that_the_next_ones_keep(house: House) -> None:
    run = house.run()
    secret = (house.data / "token").read_text().strip()
    assert asked(run.port, "/tokens", secret) == 200
    assert asked(run.port, "/tokens", "perdure_wrong") == 401
    name, _ = (house.data / "credentials").read_text().split()
    assert name == "admin"
    run.end(signal.SIGTERM)
    again = house.run()
    assert (house.data / "token").read_text().strip() == secret
    assert asked(again.port, "/tokens", secret) == 200
    assert secret not in "".join(again.lines)


def asked(port: int, path: str, token: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code


def test_killed_it_leaves_nothing_and_the_next_one_starts_on_the_same_data(house: House) -> None:
    run = house.run()
    with psycopg.connect(noted_servers(house.data)["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept ()")
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: run.traces() == [])
    house.run()
    with psycopg.connect(noted_servers(house.data)["DATABASE_URL"]) as connection:
        connection.execute("SELECT FROM kept")


def test_the_next_one_need_not_wait_for_the_last_of_a_killed_one(house: House) -> None:
    run = house.run()
    run.end(signal.SIGKILL)
    house.run_again("--web-port", str(run.port))


def test_it_says_what_is_drained_and_how_to_resume_it(house: House) -> None:
    run = house.run()
    with psycopg.connect(noted_servers(house.data)["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("INSERT INTO drained_queue (queue) VALUES ('slow')")
    run.end(signal.SIGTERM)
    house.run().until("drained    queue 'slow': what comes waits there until ./dev manage workers resume --queue slow")
    with psycopg.connect(noted_servers(house.data)["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DELETE FROM drained_queue")


def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        said = refusal(tmp_path / ".perdure", "--web-port", str(port))
    assert f"Port {port} of web is taken by " in said
    assert f"(pid {os.getpid()})" in said
    assert "--web-port" in said


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    said = refusal(tmp_path / ".perdure", "--only", "wbe")
    assert "wbe: not among postgres, valkey, migrate, register, ingress, web, engines, chores" in said


def test_a_service_that_cannot_be_registered_stops_everything_with_its_words(tmp_path: Path) -> None:
    said = refusal(tmp_path / ".perdure", "--only", "postgres,migrate,register", "--services", "no_such_module:app")
    assert "register ended with exit code" in said
    assert "no_such_module" in said


@pytest.mark.parametrize("name", GIVEN)
def test_a_server_of_ones_own_that_does_not_answer_is_named_before_anything_starts(tmp_path: Path, name: str) -> None:
    scheme = "postgresql" if name == "DATABASE_URL" else "redis"
    said = refusal(tmp_path / ".perdure", **{name: f"{scheme}://:secret@127.0.0.1:{ports.choose()}/0"})
    assert len(said.splitlines()) == 2
    assert said.startswith(f"CommandError: {name}: ")
    assert f"correct {name}" in said
    assert "secret" not in said


def test_an_address_that_is_none_is_two_lines(tmp_path: Path) -> None:
    said = refusal(tmp_path / ".perdure", BROKER_URL="nonsense")
    assert said.splitlines()[0].startswith("BROKER_URL is 'nonsense'")
    assert len(said.splitlines()) == 2


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    manage = f"{sys.executable} {ROOT / 'manage.py'} help --commands"
    command = f"{manage} | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=environment(), cwd=tmp_path
    )
    assert (run.returncode, run.stderr) == (0, "")


def refusal(data: Path, *arguments: str, **given: str) -> str:
    """What it says when it does not come up at all."""
    run = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "up", "--only", HOUSE, "--data", str(data), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment() | given,
        cwd=data.parent,
    )
    assert run.returncode not in (0, -signal.SIGKILL)
    return run.stdout + run.stderr
