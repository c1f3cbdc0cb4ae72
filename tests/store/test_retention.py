"""Retention: what nobody may ask for any more goes by the day, and no reader makes writers wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from runtime.core.changes import Changes
from runtime.core.invocation import Invocation
from runtime.store.commit import commit
from runtime.store.retention import keep_house
from tests.support.sessions import Sessions, begun, born, ended, service

LONG_AGO = "2020-01-01"
Commit = Callable[..., Awaitable[None]]


async def day(sessions: Sessions, table: str, day: str = LONG_AGO) -> str:
    """A partition of a day that is over; answers its name."""
    name = f"{table}_{day.replace('-', '')}"
    await sessions.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{day}') TO ('{day}'::date + 1)")
    return name


async def partitions(sessions: Sessions, table: str) -> list[str]:
    found = await sessions.rows(
        f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{table}'::regclass"
    )
    return sorted(name for (name,) in found)


@pytest.fixture
async def write(sessions: Sessions) -> Commit:
    """Commits as an engine does."""
    engine, link = await sessions.engine(), await sessions.link()

    async def write(*changes: Changes) -> None:
        await commit(link, changes, engine=engine)

    return write


@pytest.fixture
async def live(write: Commit) -> Invocation:
    """An invocation under way, with a journal."""
    one = service()
    await write(born(one), begun(one, b"frame"))
    return one


async def test_a_day_of_history_goes_when_all_of_it_has_expired(sessions: Sessions) -> None:
    over = await day(sessions, "done")
    assert await keep_house(sessions.database) == [over]
    assert over not in await partitions(sessions, "done")
    assert await keep_house(sessions.database) == []


async def test_what_became_of_values_goes_with_its_day_or_by_itself_where_that_was_not_foreseen(
    sessions: Sessions,
) -> None:
    over = await day(sessions, "state_history")
    change = (
        "INSERT INTO state_history (service, key, name, invocation, handler, expires_on)"
        " VALUES ('Counter', %s, 'count', gen_random_uuid(), 'add', CURRENT_DATE + %s)"
    )
    for key, days in (("long over", -1000), ("today's", 0), ("far off", 1000)):
        await sessions.execute(change, key, days)
    assert await keep_house(sessions.database) == [over]
    assert await sessions.rows("SELECT key FROM state_history ORDER BY key") == [("far off",), ("today's",)]


async def test_the_days_to_come_are_there_and_today_stays(sessions: Sessions) -> None:
    before = await partitions(sessions, "done"), await partitions(sessions, "journal")
    today = await sessions.value("SELECT to_char((now() AT TIME ZONE 'UTC')::date, 'YYYYMMDD')")
    await sessions.execute("DROP TABLE done_" + today)
    assert await keep_house(sessions.database) == []
    assert (await partitions(sessions, "done"), await partitions(sessions, "journal")) == before
    assert f"journal_{today}" in before[1]
    assert len(before[0]) == len(before[1]) == 10, "today, eight days and what was not foreseen"


async def test_a_journal_stays_while_its_invocation_lives_or_is_remembered(
    sessions: Sessions, write: Commit, live: Invocation
) -> None:
    remembered, forgotten = service(), service()
    await write(born(remembered, forgotten), begun(remembered, b"frame"), begun(forgotten, b"frame"))
    await write(ended(remembered), ended(forgotten))
    await sessions.execute("DELETE FROM done WHERE id = %s", UUID(bytes=forgotten.id))
    over = await day(sessions, "journal")
    await sessions.execute("UPDATE journal SET day = %s", LONG_AGO)

    assert await keep_house(sessions.database) == [over]

    kept = await sessions.rows("SELECT invocation, frames FROM journal ORDER BY invocation")
    assert kept == [(UUID(bytes=one.id), b"frame") for one in (live, remembered)]

    await sessions.execute("DELETE FROM done")
    await keep_house(sessions.database)
    assert await sessions.rows("SELECT invocation FROM journal") == [(UUID(bytes=live.id),)], "and no longer"


async def test_yesterdays_journal_has_a_days_grace(sessions: Sessions) -> None:
    yesterday = await sessions.value("SELECT ((now() AT TIME ZONE 'UTC')::date - 1)::text")
    name = await day(sessions, "journal", yesterday)
    assert await keep_house(sessions.database) == []
    assert name in await partitions(sessions, "journal")


async def test_behind_a_reader_nobody_waits_and_the_day_goes_the_next_time(
    sessions: Sessions, write: Commit, live: Invocation
) -> None:
    over, journals = await day(sessions, "done"), await day(sessions, "journal")
    reader = await sessions.connection()
    await reader.execute("SELECT count(*) FROM done")
    house = sessions.start(keep_house(sessions.database))
    writes = 0
    while not house.done():
        async with asyncio.timeout(2):
            one = service()
            await write(born(one), ended(one))
        writes += 1
    assert await house == [journals], "what is read is left, and keeps nothing else"
    assert writes > 0
    await reader.commit()
    assert await keep_house(sessions.database) == [over]


async def test_history_that_was_not_foreseen_goes_row_by_row(
    sessions: Sessions, write: Commit, live: Invocation
) -> None:
    other = service()
    await write(born(other), ended(live, retention=40 * 86_400), ended(other, retention=40 * 86_400))
    await sessions.execute(
        "UPDATE done SET expires_at = now() - interval '1 second' WHERE id = %s", UUID(bytes=live.id)
    )
    await keep_house(sessions.database)
    assert await sessions.rows("SELECT id FROM done_default") == [(UUID(bytes=other.id),)]


async def test_an_idempotency_key_is_forgotten_when_it_has_expired_and_not_before(sessions: Sessions) -> None:
    await sessions.execute(
        "INSERT INTO idempotency (invocation, token, expires_at) VALUES"
        " (%s, %s, now() - interval '1 second'), (%s, %s, now() + interval '1 hour'), (%s, %s, NULL)",
        *[UUID(int=number) for number in (1, 1, 2, 2, 3, 3)],
    )
    await keep_house(sessions.database)
    assert await sessions.rows("SELECT invocation FROM idempotency ORDER BY 1") == [(UUID(int=2),), (UUID(int=3),)]


async def test_an_expired_key_that_is_used_anew_meanwhile_stays(sessions: Sessions) -> None:
    await sessions.execute(
        "INSERT INTO idempotency (invocation, token, expires_at) VALUES (%s, %s, now() - interval '1 second')",
        UUID(int=1), UUID(int=1),
    )  # fmt: skip
    user = await sessions.connection()
    await user.execute("UPDATE idempotency SET token = %s, expires_at = NULL", [UUID(int=2)])
    house = sessions.start(keep_house(sessions.database))
    async with asyncio.timeout(10):
        while not await sessions.rows("SELECT FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))",
                                      user.info.backend_pid):  # fmt: skip
            assert not house.done()
            await asyncio.sleep(0.003)
    await user.commit()
    await house
    assert await sessions.rows("SELECT token FROM idempotency") == [(UUID(int=2),)]


async def test_engines_that_died_long_ago_and_left_nothing_are_forgotten(sessions: Sessions) -> None:
    forgotten, owing, recent, alive = [await sessions.engine() for _ in range(4)]
    dead = "UPDATE engine SET alive = false, ended_at = now() - %s::interval WHERE id = %s"
    await sessions.execute(dead, "2 days", UUID(bytes=forgotten))
    await sessions.execute(dead, "2 days", UUID(bytes=owing))
    await sessions.execute(dead, "1 hour", UUID(bytes=recent))
    await sessions.execute("INSERT INTO claimed VALUES (%s, %s)", UUID(bytes=owing), UUID(int=1))
    await keep_house(sessions.database)
    assert {id.bytes for (id,) in await sessions.rows("SELECT id FROM engine")} == {owing, recent, alive}
