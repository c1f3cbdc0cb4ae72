"""`/health/parts`: each part is looked at, what is not well says so with a cure, and nothing makes the answer wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from django.utils import timezone

from perdure.protocol.ids import parse_id
from runtime import checks, hall
from runtime.conf import Settings, settings
from runtime.core.invocation import Status
from runtime.models import Inbox, ObjectKey
from runtime.reading import health, orphans
from runtime.reading.health import Condition, Finding
from runtime.reading.orphans import Fault
from runtime.servers.valkey import Valkey
from tests.support import history
from tests.support.database import Cluster


@pytest.fixture(autouse=True)
def from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_place", orphans.BEGINNING)


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
    """One of those that the database tells of: a broker that is not there would be waited for."""
    found = await asyncio.to_thread(health._look_at, health.DATABASE, settings())
    return next(part.finding for part in found if part.name == name)


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
    assert list(parts) == ["database", "engines", "queues", "keys", "outbox", "broker", "channels"]
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


async def keyed(sql: psycopg.AsyncConnection, key: str, *, status: Status = Status.PENDING, owner: UUID | None = None,
                age: int = 60) -> str:  # fmt: skip
    """A key and the only one in its inbox; answers the id of that."""
    then = timezone.now() - timedelta(seconds=age)
    id = await history.alive(f"Mailbox/{key}/put", status=status, created_at=then)
    uuid = UUID(bytes=parse_id(id))
    await Inbox.objects.acreate(service="Mailbox", key=key, position=1, invocation=uuid)
    await ObjectKey.objects.acreate(service="Mailbox", key=key, queue="default", owner=owner, leased_at=then)
    return id


async def test_keys_that_somebody_takes_care_of_are_well(sql: psycopg.AsyncConnection) -> None:
    await engine(sql)
    ((living,),) = await (await sql.execute("SELECT id FROM engine")).fetchall()
    await keyed(sql, "held", status=Status.RUNNING, owner=living)
    for status in (Status.SUSPENDED, Status.BACKING_OFF, Status.PAUSED):
        await keyed(sql, status, status=status)
    await keyed(sql, "fresh", age=-3600)
    await keyed(sql, "queued")
    await sql.execute("INSERT INTO ready (queue, service, key) VALUES ('default', 'Mailbox', 'queued')")

    assert await part("keys") == Finding("none is stuck (seen: all inboxes)")


async def test_a_key_that_nobody_is_about_to_take_is_named_with_a_cure(sql: psycopg.AsyncConnection) -> None:
    id = await keyed(sql, "Mary")

    found = await part("keys")

    assert found.condition is Condition.DEGRADED
    assert found.words.startswith(
        f"the key 'Mary' of Mailbox is stuck: {id} is to have it, and no engine is to take that"
    )
    assert f"kill {id}" in found.hint


async def test_the_first_of_a_key_that_is_not_known_and_a_key_that_is_not_there_are_found(
    sql: psycopg.AsyncConnection,
) -> None:
    ended, waits = await keyed(sql, "Anne"), await keyed(sql, "Mary")
    await sql.execute("DELETE FROM invocation WHERE id = %s", [UUID(bytes=parse_id(ended))])
    await sql.execute("DELETE FROM object_key WHERE key = 'Mary'")

    look = await sync_to_async(orphans.look)()

    assert [(one.key, one.fault) for one in look.orphans] == [
        ("Anne", Fault.FIRST_UNKNOWN),
        ("Mary", Fault.NOT_THERE),
    ]
    gone = f"{ended} has it, which has ended or is not known"
    assert look.orphans[0].words == f"the key 'Anne' of Mailbox is stuck: {gone}"
    assert look.orphans[1].cure == "Whatever is sent to the key next wakes it up."
    assert waits in look.orphans[1].words


@pytest.mark.parametrize(("seconds", "count"), [(-3600, 0), (60, 1)])
async def test_a_key_of_an_engine_that_is_dead_for_long_is_found_without_an_inbox_too(
    sql: psycopg.AsyncConnection, seconds: int, count: int
) -> None:
    await engine(sql)
    await sql.execute("UPDATE engine SET alive = false, ended_at = now() - make_interval(secs => %s)", [seconds])
    await sql.execute(
        "INSERT INTO object_key (service, key, queue, owner) SELECT 'Mailbox', 'k' || n, 'default', id "
        "FROM engine, generate_series(1, 3) AS n"
    )

    look = await sync_to_async(orphans.look)()

    assert [one.fault for one in look.orphans] == count * [Fault.DEAD_OWNER]


async def test_a_look_that_cannot_see_all_is_gone_on_with_by_the_next(
    sql: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "WALK", orphans.WALK.replace(f"LIMIT {orphans.PAGE}", "LIMIT 2"))
    monkeypatch.setattr(orphans, "PAGE", 2)
    monkeypatch.setattr(orphans, "BUDGET", 0.0)
    for key in "abcde":
        await keyed(sql, key)
    look = sync_to_async(orphans.look)

    looks = [await look() for _ in range(4)]

    assert ["".join(one.key for one in found.orphans) for found in looks] == ["ab", "cd", "e", "ab"]
    assert not any(found.is_whole for found in looks)


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
