"""`/metrics`: in Prometheus' format, of everything that was counted, and of how it stands."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Iterator

import psycopg
import pytest
from django.test import AsyncClient

from runtime.core.invocation import Status
from runtime.core.tally import name
from runtime.reading import metrics
from tests.support import history

SAMPLE = re.compile(r'^([a-z_:]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)$')


@pytest.fixture
def sql(our_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(our_database, autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what the last test had under way."""
    monkeypatch.setattr(metrics, "_under_way", metrics.UnderWay())


def tell(sql: psycopg.Connection, counts: dict[str, float]) -> None:
    sql.execute("INSERT INTO tally (process, counts) VALUES (gen_random_uuid(), %s)", [json.dumps(counts)])


def samples(text: str) -> dict[str, float]:
    """Each sample by its name and labels; fails where a line is none of the format's."""
    found: dict[str, float] = {}
    typed: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        if line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        assert match, line
        assert match[1] in typed or re.sub("_(bucket|sum|count)$", "", match[1]) in typed, line
        key = line.rpartition(" ")[0]
        assert key not in found, line
        found[key] = float(match[3])
    return found


def test_the_examples_are_true() -> None:
    assert doctest.testmod(metrics).failed == 0


async def test_the_counts_of_all_processes_are_added_up(client: AsyncClient, sql: psycopg.Connection) -> None:
    for _ in range(2):
        tell(sql, {name("completed", "Greeter", "greet", "succeeded"): 2, name("retries", "Greeter", "greet"): 1})

    response = await client.get("/metrics")

    assert response.status_code == 200
    assert response["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(response.content.decode())
    labels = 'service="Greeter",handler="greet"'
    assert found[f'perdure_invocations_completed_total{{{labels},outcome="succeeded"}}'] == 4
    assert found[f"perdure_retries_total{{{labels}}}"] == 2
    assert found["perdure_engines_fenced_total"] == 0


async def test_a_histogram_counts_all_that_is_at_most_so_large(client: AsyncClient, sql: psycopg.Connection) -> None:
    for part, count in (("0.001", 3), ("10", 2), ("+Inf", 1), ("sum", 720.5)):
        tell(sql, {name("attempt_seconds", "Greeter", "greet", part): count})

    found = samples((await client.get("/metrics")).content.decode())

    labels = 'service="Greeter",handler="greet"'
    buckets = {
        key.partition("le=")[2].strip('"}'): count
        for key, count in found.items()
        if key.startswith("perdure_attempt_seconds_bucket")
    }
    assert buckets == {"0.001": 3, "10": 5, "+Inf": 6}
    assert found[f"perdure_attempt_seconds_sum{{{labels}}}"] == 720.5
    assert found[f"perdure_attempt_seconds_count{{{labels}}}"] == 6


async def test_how_it_stands_is_shown_without_any_count(client: AsyncClient, sql: psycopg.Connection) -> None:
    await history.alive(status=Status.PAUSED)
    sql.execute(
        "WITH born AS (INSERT INTO engine (id, host, pid, address, queues, deployments, lock_key) "
        "VALUES (gen_random_uuid(), '', 1, '', '{default}', '{}', 1) RETURNING id) "
        "INSERT INTO heartbeat (engine, attached, in_flight, room) SELECT id, true, 7, 100 FROM born"
    )
    sql.execute("INSERT INTO ready (queue, service, since) VALUES ('a \"b\"', 'Greeter', now() - interval '90 s')")
    sql.execute("INSERT INTO drained_queue (queue) VALUES ('default')")

    found = samples((await client.get("/metrics")).content.decode())

    assert found['perdure_engines{status="draining"}'] == 1
    assert found["perdure_invocations_in_flight"] == 7
    assert found["perdure_room"] == 100
    assert found['perdure_invocations{status="paused"}'] == 1
    assert found['perdure_queue_ready{queue="a \\"b\\""}'] == 1
    assert found['perdure_queue_oldest_ready_seconds{queue="a \\"b\\""}'] >= 90
    assert found['perdure_queue_drained{queue="default"}'] == 1
    assert found["perdure_outbox_messages"] == 0


async def test_who_may_see_some_services_sees_the_counts_of_those(client: AsyncClient, sql: psycopg.Connection) -> None:
    tell(sql, {name("started", "Greeter", "greet"): 1, name("started", "Secret", "work"): 1, name("fenced"): 1})

    found = samples(await metrics.text({"Greeter"}))

    assert found == {'perdure_invocations_started_total{service="Greeter",handler="greet"}': 1}


async def test_what_another_version_has_counted_is_left_out(client: AsyncClient, sql: psycopg.Connection) -> None:
    tell(sql, {name("of_tomorrow", "x"): 1, name("fenced"): 2})

    assert samples((await client.get("/metrics")).content.decode())["perdure_engines_fenced_total"] == 2
