"""Retention: history goes by partition, a day at a time, when nobody may ask for it any more.

A DROP waits behind one reader, and all writers behind it. So it waits for a moment only, and is left to the next time
when the reader is still there. (Detaching concurrently would wait alone, but is refused where there is a default
partition.) What is live or retained in an old day of the journal moves to the kept day (infinity) first.
"""

from __future__ import annotations

import logging

import psycopg
from psycopg import sql

from runtime.store import tally

log = logging.getLogger(__name__)

DAYS_AHEAD = 8
BATCH = 5_000
MOMENT = "100ms"

EXPIRED_DONE = """
DELETE FROM done WHERE (id, expires_on) IN (
    SELECT id, expires_on FROM done_default WHERE expires_at < now() LIMIT %s
)
"""
EXPIRED_HISTORY = """
DELETE FROM state_history WHERE (service, key, position, expires_on) IN (
    SELECT service, key, position, expires_on FROM state_history_default WHERE expires_on < CURRENT_DATE LIMIT %s
)
"""
# Looked at again once it is locked: a key that is used anew meanwhile stays. With a workflow's goes all that it has.
EXPIRED_KEYS = """
WITH gone AS (
    DELETE FROM idempotency WHERE expires_at < now()
        AND invocation IN (SELECT invocation FROM idempotency WHERE expires_at < now() LIMIT %s)
    RETURNING service, key
), promises AS (
    DELETE FROM promise USING gone WHERE promise.service = gone.service AND promise.key = gone.key
), values AS (
    DELETE FROM state USING gone WHERE state.service = gone.service AND state.key = gone.key
)
SELECT FROM gone
"""
FORGOTTEN_LISTENERS = """
DELETE FROM promise_listener WHERE NOT EXISTS (SELECT FROM invocation WHERE invocation.id = promise_listener.caller)
"""
FORGOTTEN_PROMISES = """
DELETE FROM promise WHERE result IS NULL AND NOT EXISTS (
    SELECT FROM promise_listener AS listener
    WHERE listener.service = promise.service AND listener.key = promise.key AND listener.name = promise.name
)
"""
FORGOTTEN_RESTARTS = """
DELETE FROM restart_key
WHERE NOT EXISTS (SELECT FROM invocation WHERE invocation.id = restart_key.invocation)
    AND NOT EXISTS (SELECT FROM done WHERE done.id = restart_key.invocation)
"""
DEAD_ENGINES = """
DELETE FROM engine WHERE NOT alive AND ended_at < now() - interval '1 day'
    AND NOT EXISTS (SELECT FROM claimed WHERE claimed.engine = engine.id)
    AND NOT EXISTS (SELECT FROM object_key WHERE object_key.owner = engine.id)
"""
FINISHED_BULK = "DELETE FROM bulk WHERE finished_at < now() - interval '7 days'"
KEEP = """
UPDATE journal SET day = 'infinity' WHERE day = %(day)s AND (
    EXISTS (SELECT FROM invocation WHERE invocation.id = journal.invocation)
    OR EXISTS (SELECT FROM done WHERE done.id = journal.invocation)
)
"""
FORGOTTEN = """
DELETE FROM journal WHERE (invocation, first, day) IN (
    SELECT invocation, first, day FROM journal_default AS old WHERE day = 'infinity'
        AND NOT EXISTS (SELECT FROM invocation WHERE invocation.id = old.invocation)
        AND NOT EXISTS (SELECT FROM done WHERE done.id = old.invocation)
    LIMIT %s
)
"""
PARTITIONS = """
SELECT child.relname, to_date(right(child.relname, 8), 'YYYYMMDD')
FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
WHERE parent.relname = %s AND child.relname ~ '_[0-9]{8}$'
    AND to_date(right(child.relname, 8), 'YYYYMMDD') < %s ORDER BY 1
"""


async def keep_house(database_url: str) -> list[str]:
    """Make the partitions of the days to come and drop those that are over; returns the names of those dropped.

    Repeatable, and safe to be cut off anywhere: whoever comes next goes on with it.
    """
    dropped: list[str] = []
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("SET timezone = 'UTC'; SET lock_timeout = '2s'")
        await connection.execute("SELECT ensure_partitions(%s)", (DAYS_AHEAD,))
        for statement in (EXPIRED_DONE, EXPIRED_HISTORY, EXPIRED_KEYS):
            while (await connection.execute(statement, (BATCH,))).rowcount == BATCH:
                pass
        for statement in (FORGOTTEN_RESTARTS, FORGOTTEN_LISTENERS, FORGOTTEN_PROMISES):
            await connection.execute(statement)
        await connection.execute(DEAD_ENGINES)
        await connection.execute(FINISHED_BULK)
        async with connection.transaction():
            await connection.execute(tally.LOCK)
            await connection.execute(tally.ADD_UP_THE_SILENT)
        today = await _value(connection, "SELECT CURRENT_DATE")
        for parent in ("done", "state_history"):
            for name, _ in await _partitions(connection, parent, today):
                dropped += await _drop(connection, name)
        # A day's grace: a transaction may have begun before midnight and commit long after.
        for name, day in await _partitions(connection, "journal", await _value(connection, "SELECT CURRENT_DATE - 1")):
            await connection.execute(KEEP, {"day": day})
            dropped += await _drop(connection, name)
        while (await connection.execute(FORGOTTEN, (BATCH,))).rowcount == BATCH:
            pass
    if dropped:
        log.info("dropped %s", ", ".join(dropped))
    return dropped


async def _partitions(connection: psycopg.AsyncConnection, parent: str, before: object) -> list[tuple[str, object]]:
    return await (await connection.execute(PARTITIONS, (parent, before))).fetchall()


async def _drop(connection: psycopg.AsyncConnection, name: str) -> list[str]:
    try:
        async with connection.transaction():
            await connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(MOMENT))
            await connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    except psycopg.errors.LockNotAvailable:
        log.info("%s is being read, and is dropped the next time", name)
        return []
    return [name]


async def _value(connection: psycopg.AsyncConnection, query: str) -> object:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row[0]
