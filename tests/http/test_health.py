"""`/health/parts`: each part is looked at, what is not well says so with a cure, and nothing makes the answer wait."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from django.test import AsyncClient

from runtime import checks, hall
from runtime.conf import Settings, settings
from runtime.reading import health
from runtime.reading.health import Condition, Finding
from runtime.servers.valkey import Valkey
from tests.support.database import Cluster


@pytest.fixture
async def sql(our_database: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(our_database, autocommit=True) as connection:
        yield connection
    await hall.leave()


async def engine(sql: psycopg.AsyncConnection, *, attached: bool = True, drained: bool = False) -> None:
    """One that lives, for all that its row and its beat tell."""
    await sql.execute(
        "WITH born AS (INSERT INTO engine (id, host, pid, address, queues, deployments, lock_key, drained_at) "
        "VALUES (gen_random_uuid(), 'here', 1, '', '{default}', '{}', 1, CASE WHEN %s THEN now() END) RETURNING id) "
        "INSERT INTO heartbeat (engine, attached) SELECT id, %s FROM born",
        [drained, attached],
    )


async def part(name: str) -> Finding:
    return next(part.finding for part in await health.parts(settings()) if part.name == name)


async def test_where_everything_is_well_each_part_says_so_in_milliseconds(
    sql: psycopg.AsyncConnection, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("CHANNEL_URL", valkey.channel_url)
    settings.cache_clear()
    await engine(sql)

    response = await AsyncClient().get("/health/parts")

    parts = {part["name"]: part for part in response.json()["parts"]}
    assert (response.status_code, response.json()["status"]) == (200, "ok"), parts
    assert list(parts) == ["database", "engines", "queues", "outbox", "broker", "channels"]
    assert {part["status"] for part in parts.values()} == {"ok"}
    assert parts["engines"]["message"] == "1 alive on 1 machine"
    assert parts["queues"]["message"] == "nothing waits"
    assert all(part["milliseconds"] > 0 for part in parts.values())
    assert valkey.password not in response.content.decode()


async def test_without_servers_the_answer_is_503_and_names_the_cures(use_database: Callable[[str], None]) -> None:
    use_database("postgresql://nobody@127.0.0.1:1/nothing")

    response = await AsyncClient().get("/health/parts")

    parts = {part["name"]: part for part in response.json()["parts"]}
    assert (response.status_code, response.json()["status"]) == (503, "down")
    assert "DATABASE_URL" in parts["database"]["hint"]
    assert parts["engines"]["hint"] == "See to the database first."


async def test_a_database_without_tables_is_behind(cluster: Cluster, use_database: Callable[[str], None]) -> None:
    with cluster.fresh() as empty:
        use_database(empty)
        found = await part("database")
    assert found.condition is Condition.DOWN
    assert found.hint == "Run: ./dev manage migrate"


def test_a_migrated_database_is_well(our_database: str) -> None:
    assert health.look_at_database(settings()).words.endswith("migrated")
    assert checks.postgres_is_new_enough(None, databases=["default"]) == []


async def test_without_a_beating_heart_no_engine_is_alive(sql: psycopg.AsyncConnection) -> None:
    await engine(sql)
    await sql.execute("UPDATE heartbeat SET beat_at = now() - interval '1 minute'")

    assert await part("engines") == Finding(
        "none is alive", "Start them with ./dev up, or a Celery worker.", Condition.DOWN
    )


async def test_engines_that_take_nothing_are_a_weakness(sql: psycopg.AsyncConnection) -> None:
    await engine(sql, attached=False)
    idle = await part("engines")
    await sql.execute("UPDATE engine SET drained_at = now()")
    drained = await part("engines")

    assert (idle.condition, drained.condition) == (Condition.DEGRADED, Condition.DEGRADED)
    assert "Celery" in idle.hint
    assert drained.words == "1 alive on 1 machine, 1 drained"
    assert "workers resume ENGINE" in drained.hint
    assert (idle.is_wanted, drained.is_wanted) == (False, True)
    await sql.execute("UPDATE engine SET drained_at = NULL")
    await sql.execute("INSERT INTO drained_queue (queue) VALUES ('default')")
    assert (await part("engines")).words == "1 alive on 1 machine, 1 drained"


async def test_what_waits_long_is_named_by_its_queue_and_service(sql: psycopg.AsyncConnection) -> None:
    for queue, age in (("slow", 200), ("default", 1)):
        await sql.execute(
            "INSERT INTO ready (queue, service, since) VALUES (%s, 'Greeter', now() - make_interval(secs => %s))",
            [queue, age],
        )

    found = await part("queues")

    assert found.words == "the oldest of 'slow' waits for 3 min"
    assert found.condition is Condition.DEGRADED
    assert "It is of Greeter" in found.hint


async def test_a_drained_queue_is_said_with_the_way_back(sql: psycopg.AsyncConnection) -> None:
    await sql.execute("INSERT INTO drained_queue (queue) VALUES ('slow')")

    found = await part("queues")

    assert found.words == "nothing waits; drained: slow"
    assert "resume --queue slow" in found.hint
    assert found.is_wanted


async def test_what_waits_beside_a_drained_queue_is_still_wrong(sql: psycopg.AsyncConnection) -> None:
    await sql.execute("INSERT INTO drained_queue (queue) VALUES ('slow')")
    for queue, age in (("slow", 200), ("default", 100)):
        await sql.execute(
            "INSERT INTO ready (queue, service, since) VALUES (%s, 'Greeter', now() - make_interval(secs => %s))",
            [queue, age],
        )

    found = await part("queues")

    assert found.words == "the oldest of 'default' waits for 2 min; drained: slow"
    assert "It is of Greeter" in found.hint
    assert (found.condition, found.is_wanted) == (Condition.DEGRADED, False)


@pytest.mark.parametrize(("age", "condition"), [(1, Condition.OK), (60, Condition.DEGRADED)])
async def test_the_outbox_is_well_while_it_is_relayed(
    sql: psycopg.AsyncConnection, age: int, condition: Condition
) -> None:
    await sql.execute(
        "INSERT INTO outbox (position, id, service, handler, payload, sent_at) "
        "VALUES (1, gen_random_uuid(), 'Greeter', 'greet', '', now() - make_interval(secs => %s))",
        [age],
    )

    found = await part("outbox")

    assert found.words.startswith("1 to be relayed, the oldest for ")
    assert found.condition is condition


async def test_a_look_that_never_ends_does_not_hold_up_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()

    def hang(_: Settings) -> Finding:
        let_go.wait()
        return Finding("late")

    quick: dict[str, Any] = {"quick": lambda _: Finding("here")}
    monkeypatch.setattr(health, "PLACES", (quick, {"stuck": hang}))
    monkeypatch.setattr(health, "PATIENCE", 0.2)
    try:
        found = {part.name: part.finding for part in await health.parts(settings())}
    finally:
        let_go.set()

    assert found["quick"] == Finding("here")
    assert found["stuck"].words == "no answer within 0.2 s"
    assert found["stuck"].condition is Condition.DOWN
