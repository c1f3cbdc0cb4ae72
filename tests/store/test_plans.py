"""What statements cost the server: they find rows by index, also when planned on empty tables, and update in place."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runtime.engine.pulse import BEAT
from runtime.store import (
    adoption,
    bulk,
    claim,
    commit,
    deployments,
    drained,
    finish,
    journal,
    lookup,
    mail,
    owners,
    park,
    promises,
    purge,
    restart,
    resume,
    submit,
    tally,
    timers,
    verbs,
)
from runtime.store.claim import Claim
from runtime.store.commit import commit as commit_all
from runtime.store.link import SETTINGS, Statement
from tests.support.sessions import QUEUE, WITHIN, Sessions, born, ended, letter, parked, service, told

MODULES = (
    adoption,
    bulk,
    claim,
    commit,
    deployments,
    drained,
    finish,
    journal,
    lookup,
    mail,
    owners,
    park,
    promises,
    purge,
    restart,
    resume,
    submit,
    tally,
    timers,
    verbs,
)

WHOLE = {
    adoption.WAITING: "now and then; most of the time the queue is empty",
    adoption.ADOPT: "now and then; most of the time the queue has no orphans",
    deployments.BEHIND_URLS: "a few dozen deployments",
    deployments.REPLACED: "asked when code is registered",
    deployments.BOUND: "asked when somebody looks at a deployment, or deletes it",
    deployments.KEYS: "a few keys of services",
    deployments.NEEDED: "asked when code is registered",
    deployments.RETIRE: "a few dozen services",
    claim.OWNED: "all that an engine has",
    bulk.FIND: "a handful of verbs by filter that are not finished",
    bulk.FINISH: "a handful of verbs by filter that are not finished",
    bulk.STOP: "a handful of verbs by filter that are not finished",
    deployments.VERSION: "a few dozen services",
    deployments.SERVING: "a few dozen services",
    drained.KNOWN_QUEUES: "a few engines and queues",
    drained.LOOK: "a few queues",
    mail.UNREAD: "mail holds what is on its way, and little else",
    owners.LOCK_INVOCATIONS: "all that a dead engine had",
    owners.LOCK_KEYS: "all that a dead engine had",
    owners.LOOK: "a few engines",
    owners.MARK_DEAD: "its one heart",
    owners.ROSTER: "a few engines",
    owners.TAKE_CLAIMED: "all that a dead engine had",
    owners.TAKE_KEYS: "all that a dead engine had",
    owners.UNFINISHED: "a few engines",
    resume.HAVE_CODE: "a few dozen services, deployments and engines",
    timers.NEXT_DUE: "the first of an index",
}
"""Statements that look at a whole table or index, or at all that an engine has; some on some versions of PostgreSQL
only, and why they may."""


def statements() -> Iterator[Any]:
    seen = set()
    for module in MODULES:
        for name, value in vars(module).items():
            if isinstance(value, Statement) and value.name not in seen:
                seen.add(value.name)
                yield pytest.param(value, id=f"{module.__name__.rpartition('.')[2]}.{name}")


@pytest.fixture(scope="module")
def planner(module_database: str) -> Iterator[psycopg.Connection]:
    """A session with a link's settings on empty tables, where the worst plans are made."""
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute(SETTINGS)
        yield connection


@pytest.mark.parametrize("statement", list(statements()))
def test_a_statement_finds_its_rows_by_index(planner: psycopg.Connection, statement: Statement) -> None:
    wholes = list(whole_scans(plan(planner, statement)))
    assert not wholes or statement in WHOLE, wholes


def plan(planner: psycopg.Connection, statement: Statement) -> dict[str, Any]:
    types = [planner.execute("SELECT format_type(%s, NULL)", [oid]).fetchone() for oid in statement.types]
    declared = ", ".join(str(row[0]) for row in types if row)
    values = ", ".join(["NULL"] * len(types))
    name = statement.name.decode()
    planner.execute(f"PREPARE {name} {declared and f'({declared})'} AS {statement.sql.decode()}")
    explained = planner.execute(f"EXPLAIN (FORMAT JSON) EXECUTE {name} {values and f'({values})'}")
    ((found,),) = explained.fetchall()
    return dict(found[0]["Plan"])


OF_AN_ENGINE = re.compile(r"\((owner|engine) (= \$\d+|IS NULL)\)")


def whole_scans(node: dict[str, Any]) -> Iterator[str]:
    """Tables and indexes that a plan reads from one end to the other, or all that one engine has, or nobody."""
    kind = node["Node Type"]
    if kind == "Seq Scan" or (
        kind in ("Index Scan", "Index Only Scan", "Bitmap Index Scan")
        and ("Index Cond" not in node or OF_AN_ENGINE.fullmatch(node["Index Cond"]))
    ):
        yield node.get("Relation Name") or node["Index Name"]
    for child in node.get("Plans", ()):
        yield from whole_scans(child)


def test_the_settings_of_a_link_are_what_keeps_the_plans(planner: psycopg.Connection) -> None:
    settings = ("enable_seqscan", "plan_cache_mode", "jit", "lock_timeout", "idle_in_transaction_session_timeout")
    shown = [planner.execute(f"SHOW {name}").fetchone() for name in settings]
    assert shown == [("off",), ("force_generic_plan",), ("off",), ("1s",), ("5s",)]


# Updates in place: an index that names a status or an owner would make every change of it a new entry in all (T14).


@pytest.fixture
async def sessions(own_database: str) -> AsyncIterator[Sessions]:
    """On a database that has counted nothing yet."""
    async with Sessions(own_database) as sessions:
        yield sessions


async def updates(sessions: Sessions, table: str, at_least: int) -> tuple[int, int]:
    """How many rows were updated, and how many of them in place; told when the sessions that did it have ended."""
    async with asyncio.timeout(WITHIN):
        while True:
            await sessions.execute("SELECT pg_stat_force_next_flush()")
            found = await sessions.rows(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s", table
            )
            ((updated, in_place),) = found
            if updated >= at_least:
                return int(updated), int(in_place)
            await asyncio.sleep(0.01)


async def test_an_invocation_changes_its_status_in_place(sessions: Sessions) -> None:
    engine, link = await sessions.engine(), await sessions.link()
    one, rounds = service(), 40
    wanted = Claim(1, 0, [QUEUE], {one.service: "code"}, ["code"])
    await commit_all(link, [born(one, owner=engine)], engine=engine)
    for slot in range(1, rounds + 1):
        await commit_all(link, [parked(one, waits=[slot])], engine=engine)
        await commit_all(link, [told(one, slot)])
        await sessions.execute("DELETE FROM mail")
        assert (await commit_all(link, [], engine=engine, wanted=wanted)).claimed.invocations == [one.id]
    link.close()
    updated, in_place = await updates(sessions, "invocation", 3 * rounds)
    assert (updated, in_place) == (3 * rounds, 3 * rounds)


async def test_a_key_is_entered_in_place(sessions: Sessions) -> None:
    engine, link = await sessions.engine(), await sessions.link()
    rounds = 100
    for _ in range(rounds + 1):
        await commit_all(link, [born(letter("hot"), owner=engine)], engine=engine)
    link.close()
    assert await updates(sessions, "object_key", rounds) == (rounds, rounds)


async def test_a_heart_beats_in_place(sessions: Sessions) -> None:
    engine, rounds = await sessions.engine(), 300
    async with await psycopg.AsyncConnection.connect(sessions.database, autocommit=True) as pulse:
        for _ in range(rounds):
            await pulse.execute(BEAT, (True, 100, 0, 0, 0.0, 0.0, 0.0, UUID(bytes=engine)))
    assert await updates(sessions, "heartbeat", rounds) == (rounds, rounds)


async def test_a_short_life_leaves_nothing_but_history(sessions: Sessions) -> None:
    engine, link = await sessions.engine(), await sessions.link()
    one, held = service(), letter("mary")
    await commit_all(link, [born(one, held, owner=engine)], engine=engine)
    position = await sessions.position(held)
    await commit_all(link, [ended(one), ended(held, position=position)], engine=engine, release=[("Counter", "mary")])
    await commit_all(link, [], engine=engine, release=[("Counter", "mary")])
    for table in ("invocation", "claimed", "inbox", "mail", "ready", "timer", "waiter", "journal", "object_key"):
        assert await sessions.count(table) == 0, table
    assert [await sessions.status(one), await sessions.status(held)] == ["completed", "completed"]
