"""Workers over the API and in the shell: who works, how busy they are, and draining them."""

from __future__ import annotations

import doctest
import io
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.management import CommandError, call_command
from django.test import AsyncClient

from perdure.protocol.messages import Sleep
from runtime import drains
from runtime.conf import settings
from runtime.core.invocation import Status
from runtime.engine import pulse
from runtime.reading import workers
from runtime.reading.workers import Celery, CeleryWorker
from runtime.servers.valkey import Valkey
from tests.support import history


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is what Celery knows of."""

    async def celery() -> Celery:
        return Celery([CeleryWorker("engines@here", 7, 2, 60)])

    monkeypatch.setattr(workers, "celery", celery)


@pytest.fixture
def sql(our_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(our_database, autocommit=True) as connection:
        yield connection


def engine(sql: psycopg.Connection, **beat: Any) -> UUID:
    """A living engine, with its last beat."""
    id = uuid4()
    sql.execute(
        "INSERT INTO engine (id, host, pid, address, queues, deployments, lock_key) "
        "VALUES (%s, 'here', 11, '', '{default,slow}', '{dp_1}', 1)",
        [id],
    )
    beat = {"attached": True, "in_flight": 0, "leases": 0, "finished_per_s": 0, **beat}
    sql.execute(
        f"INSERT INTO heartbeat (engine, {', '.join(beat)}) VALUES (%s, {', '.join(['%s'] * len(beat))})",
        [id, *beat.values()],
    )
    return id


async def test_engines_queues_and_celerys_workers_are_shown_side_by_side(
    client: AsyncClient, sql: psycopg.Connection
) -> None:
    id = engine(sql, in_flight=3, leases=1, finished_per_s=12.34)
    sql.execute("INSERT INTO ready (queue, service) VALUES ('slow', 'Greeter'), ('nobodys', 'Greeter')")

    shown = (await client.get("/workers")).json()

    (one,) = shown["engines"]
    assert (one["id"], one["host"], one["pid"], one["status"]) == (str(id), "here", 11, "working")
    assert (one["in_flight"], one["keys"], one["finished_per_second"]) == (3, 1, 12.3)
    assert (one["queues"], one["deployments"]) == (["default", "slow"], ["dp_1"])
    assert [(queue["name"], queue["status"], queue["engines"], queue["ready"]) for queue in shown["queues"]] == [
        ("default", "working", 1, 0),
        ("nobodys", "idle", 0, 1),
        ("slow", "working", 1, 1),
    ]
    assert shown["queues"][2]["oldest_ready_at"] is not None
    assert shown["celery"] == {
        "workers": [{"name": "engines@here", "pid": 7, "processes": 2, "uptime_seconds": 60}],
        "trouble": None,
    }
    assert (await client.get(f"/workers/{id}")).json() == one


async def test_an_engine_without_a_pulse_is_silent_and_one_that_is_not_attached_idle(
    client: AsyncClient, sql: psycopg.Connection
) -> None:
    silent, idle = engine(sql), engine(sql, attached=False)
    sql.execute("UPDATE heartbeat SET beat_at = now() - interval '1 minute' WHERE engine = %s", [silent])

    assert (await client.get(f"/workers/{silent}")).json()["status"] == "silent"
    assert (await client.get(f"/workers/{idle}")).json()["status"] == "idle"


async def test_draining_an_engine_says_what_is_left_until_nothing_is(
    client: AsyncClient, sql: psycopg.Connection
) -> None:
    id = engine(sql, in_flight=3, leases=1)

    drained = (await client.patch(f"/workers/{id}/drain")).json()
    assert drained == {
        "id": str(id),
        "status": "draining",
        "in_flight": 3,
        "keys": 1,
        "message": "It is draining: 3 invocations and 1 key left.",
    }
    sql.execute("UPDATE heartbeat SET attached = false, in_flight = 0, leases = 0")
    again = (await client.patch(f"/workers/{id}/drain")).json()
    assert (again["status"], again["message"]) == ("drained", "It is drained: nothing left.")

    sql.execute("UPDATE heartbeat SET attached = true")
    resumed = (await client.patch(f"/workers/{id}/resume")).json()
    assert (resumed["status"], resumed["message"]) == ("working", "It takes new work.")


async def test_draining_a_queue_says_what_has_begun_of_it(client: AsyncClient, sql: psycopg.Connection) -> None:
    id = engine(sql)
    await history.alive(status=Status.RUNNING, entries=[Sleep(1_767_268_800_000, 1)])
    sql.execute("INSERT INTO claimed (engine, invocation) SELECT %s, id FROM invocation", [id])

    drained = (await client.patch("/queues/default/drain")).json()

    assert (drained["status"], drained["in_flight"]) == ("draining", 1)
    assert drained["message"] == "It is draining: 1 invocation left."
    shown = {queue["name"]: queue for queue in (await client.get("/queues")).json()["queues"]}
    assert (shown["default"]["status"], shown["default"]["in_flight"]) == ("draining", 1)
    assert shown["slow"]["status"] == "working"
    resumed = await client.patch("/queues/default/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (200, "working")


async def test_who_drained_what_is_in_the_audit_log(client: AsyncClient, sql: psycopg.Connection) -> None:
    id = engine(sql)
    for path in (f"/workers/{id}/drain", "/queues/slow/drain", "/queues/slow/resume", f"/workers/{uuid4()}/drain"):
        await client.patch(path)

    noted = sql.execute("SELECT verb, target, result FROM audit ORDER BY id").fetchall()

    assert noted[:3] == [
        ("engine.drain", str(id), "drained"),
        ("queue.drain", "slow", "drained"),
        ("queue.resume", "slow", "resumed"),
    ]
    assert noted[3][2] == "unknown"


@pytest.mark.parametrize("verb", ["drain", "resume"])
async def test_what_is_unknown_is_a_404_in_words_and_no_id_at_all_a_400(
    client: AsyncClient, sql: psycopg.Connection, verb: str
) -> None:
    engine(sql)
    assert (await client.patch(f"/workers/{uuid4()}/{verb}")).status_code == 404
    assert (await client.patch(f"/workers/nonsense/{verb}")).status_code == 400
    for name in ("nobodys", "%00", "%ff", "x" * 5000):
        response = await client.patch(f"/queues/{name}/{verb}")
        assert response.status_code == 404
        assert response.json()["message"].startswith("There is no queue ")
        assert response.json()["message"].endswith(" Those that there are: default, slow.")


@pytest.mark.parametrize("module", [workers, pulse])
def test_the_examples_are_true(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


# The shell


def told(*arguments: str) -> str:
    said = io.StringIO()
    call_command("workers", *arguments, stdout=said, stderr=said)
    return said.getvalue()


def test_the_shell_lists_drains_and_resumes(sql: psycopg.Connection) -> None:
    id = str(engine(sql, attached=False))

    assert f"{id}  drained" in told("drain", id[:8])
    assert f"{id}  nothing left" in told("drain", id[:8], "--wait")
    assert "slow  drained" in told("drain", "--queue", "slow")
    lines = told().splitlines()
    assert lines[0].split()[:4] == ["ENGINE", "HOST", "PID", "STATUS"]
    assert lines[1].split()[:4] == [id[:8], "here", "11", "drained"]
    assert any(line.split()[:2] == ["slow", "drained"] for line in lines)
    assert f"{id}  resumed" in told("resume", id)
    assert '"status": "idle"' in told("--json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["drain"], "Which one?"),
        (["drain", "no-such"], "No engine has an id that begins with 'no-such'."),
        (["drain", "--queue", "nobodys"], "There is no engine or queue nobodys."),
    ],
)
def test_the_shell_says_what_it_does_not_find(our_database: str, arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        told(*arguments)


# Celery


async def test_a_broker_out_of_reach_is_said_instead_of_waited_for(
    use_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await sync_to_async(workers._ask_celery)("redis://:secret@127.0.0.1:1/0")

    assert said.workers == []
    assert "does not answer" in (said.trouble or "")
    assert "secret" not in (said.trouble or "")


@pytest.fixture
def use_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Points at a broker whatever goes by the settings."""

    def forget() -> None:
        settings.cache_clear()
        drains._producer.cache_clear()

    def use(url: str) -> None:
        monkeypatch.setenv("BROKER_URL", url)
        forget()

    yield use
    forget()


def test_without_celery_workers_the_answer_is_empty(valkey: Valkey, use_broker: Callable[[str], None]) -> None:
    use_broker(valkey.broker_url)
    assert async_to_sync(sync_to_async(workers._ask_celery))(valkey.broker_url) == Celery([])
