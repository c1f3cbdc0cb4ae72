"""The embedded servers for real: what they keep through kill -9, whom they let in, and what they refuse."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql

from runtime.servers import lock, ports
from runtime.servers.lock import DataInUse
from runtime.servers.postgres import Postgres, PostgresUnusable
from runtime.servers.valkey import Valkey
from runtime.supervisor import Supervisor
from tests.support.database import Cluster, Shared
from tests.support.servers import answers, running

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a PostgreSQL has been made, which the tests of this module start one after another."""
    home = tmp_path_factory.mktemp("house") / "postgres"
    Postgres.prepare(home)
    return home


def test_postgres_keeps_its_address_over_restarts(home: Path) -> None:
    first = Postgres.prepare(home)
    with running(first.process()):
        pass
    assert Postgres.prepare(home).url == first.url


def test_postgres_lets_nobody_in_without_the_password(home: Path) -> None:
    postgres = Postgres.prepare(home)
    with running(postgres.process()):
        for url in (postgres.url, f"postgresql://perdure:{postgres.password}@127.0.0.1:{postgres.port}/perdure"):
            psycopg.connect(url).close()
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(url.replace(postgres.password, "wrong"))
    assert stat.S_IMODE((home / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_postgres_does_not_make_each_connection_pay_for_a_password_that_nobody_guesses(home: Path) -> None:
    postgres = Postgres.prepare(home)
    with running(postgres.process()), psycopg.connect(postgres.url) as connection:
        kept = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'perdure'").fetchone()
        assert kept is not None
        assert kept[0].startswith("SCRAM-SHA-256$1:")


def test_postgres_does_not_run_as_root(home: Path) -> None:
    postgres = Postgres.prepare(home)
    with running(postgres.process()) as child, psycopg.connect(postgres.url) as connection:
        inside = connection.execute("SELECT pg_read_file('/proc/self/status')").fetchone()
        assert inside is not None
        assert not any(line.split()[1] == "0" for line in inside[0].splitlines() if line.startswith("Uid:"))
        assert child.poll() is None


def test_a_statement_that_wants_all_memory_is_refused_and_ends_nobody(home: Path) -> None:
    postgres = Postgres.prepare(home)
    with running(postgres.process()), psycopg.connect(postgres.url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.OutOfMemory):
            connection.execute("SELECT length(repeat('x', 600000000)) + length(repeat('y', 600000000))")
        assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_supervised_postgres_is_back_after_kill_9_with_every_acknowledged_row(home: Path) -> None:
    postgres = Postgres.prepare(home)
    supervisor = Supervisor([[postgres.process()]], lambda name, line: None)
    up = asyncio.Event()

    async def is_up() -> None:
        up.set()

    life = asyncio.create_task(supervisor.run(is_up))
    await up.wait()
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE acknowledged (n int)")
        for n in range(100):
            await connection.execute("INSERT INTO acknowledged VALUES (%s)", [n])
        os.kill(int((postgres.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            while True:
                await connection.execute("SELECT 1")
    async with asyncio.timeout(30):
        while not await postgres.answers():
            await asyncio.sleep(0.05)
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        rows = await (await connection.execute("SELECT count(*) FROM acknowledged")).fetchone()
    assert rows == (100,)
    supervisor.stop()
    await life
    assert not await postgres.answers()


def test_what_an_interrupted_start_left_of_a_cluster_is_made_anew(tmp_path: Path) -> None:
    draft = tmp_path / "postgres" / "data.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    postgres = Postgres.prepare(tmp_path / "postgres")
    with running(postgres.process()):
        psycopg.connect(postgres.url).close()
    assert not draft.exists()


def test_data_of_another_version_is_refused_with_both_versions_named(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(PostgresUnusable, match=r"is of PostgreSQL 15; the installed one is PostgreSQL 18"):
        Postgres.prepare(tmp_path / "postgres")
    assert (data / "PG_VERSION").read_text() == "15\n"


def test_a_path_too_long_for_a_socket_is_served_over_tcp(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 30)
    postgres = Postgres.prepare(home)
    assert postgres.sockets is None
    with running(postgres.process()):
        assert answers(postgres.process())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to be somebody else")
def test_root_without_user_namespaces_runs_it_as_nobody_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        try:
            postgres = Postgres.prepare(Path(directory, "postgres"))
        except PostgresUnusable as fault:  # the checkout is where nobody else can reach it
            assert "where the user nobody can reach them" in fault.hint
            return
        with running(postgres.process()) as child:
            assert Path(f"/proc/{child.pid}").stat().st_uid != 0
            psycopg.connect(postgres.url).close()


def test_valkey_keeps_what_it_was_told_over_restarts(tmp_path: Path) -> None:
    first = Valkey.prepare(tmp_path)
    with running(first.process()):
        redis.from_url(first.broker_url).set("hint", "work")
    second = Valkey.prepare(tmp_path)
    assert second.port == first.port
    with running(second.process()):
        assert redis.from_url(second.broker_url).get("hint") == b"work"


def test_valkey_lets_nobody_in_without_the_password(tmp_path: Path) -> None:
    valkey = Valkey.prepare(tmp_path)
    with running(valkey.process()), pytest.raises(redis.AuthenticationError):
        redis.from_url(f"redis://127.0.0.1:{valkey.port}").ping()
    assert stat.S_IMODE(valkey.configuration.stat().st_mode) == 0o600


def test_a_taken_port_is_told_with_its_holder_and_not_chosen_again(tmp_path: Path) -> None:
    valkey = Valkey.prepare(tmp_path)
    with running(valkey.process()) as child:
        assert not ports.is_free(valkey.port)
        assert f"(pid {child.pid})" in (ports.holder(valkey.port) or "")
        assert ports.kept(tmp_path / "port") != valkey.port
    assert ports.is_free(valkey.port)


def test_a_data_directory_is_held_by_one_at_a_time_and_freed_by_its_death(tmp_path: Path) -> None:
    holding = "import sys, time; from runtime.servers import lock; from pathlib import Path\n"
    holding += "with lock.held(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", holding, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DataInUse, match=f"pid {other.pid}"), lock.held(tmp_path):
            pass
        other.kill()
        other.wait()
        with lock.held(tmp_path):
            pass


def test_each_test_has_a_database_of_its_own(database: str, module_database: str) -> None:
    names = []
    for url in (database, module_database):
        with psycopg.connect(url) as connection:
            names.append(connection.info.dbname)
            connection.execute(sql.SQL("CREATE TABLE mine ()"))
    assert names[0] != names[1]


def test_the_shared_database_is_as_good_as_new_for_the_next_test(cluster: Cluster, template: str) -> None:
    shared = Shared(cluster, template)
    try:
        first = shared.clean()
        with psycopg.connect(first, autocommit=True) as left:
            left.execute("INSERT INTO drained_queue (queue) VALUES ('slow')")
            left.execute("SELECT nextval('inbox_position')")
            assert shared.clean() == first
            with pytest.raises(psycopg.OperationalError):  # who is still connected is thrown out
                left.execute("SELECT 1")
        with psycopg.connect(first, autocommit=True) as connection:
            assert connection.execute("SELECT FROM drained_queue").fetchall() == []
            assert connection.execute("SELECT nextval('inbox_position')").fetchall() == [(1,)]
            connection.execute("ALTER TABLE state ADD CHECK (true)")
        assert shared.clean() != first
    finally:
        shared.drop()
