"""How long lists of invocations, keys and scheduled sends take: a million invocations completed, 100,000 waiting.

`.venv/bin/python -m tests.benchmarks.listing [--completed N] [--waiting N] [--only TEXT] [--explain]`, on an embedded
PostgreSQL, or on the one that DATABASE_URL names. The rows are made by SQL, as engines would have left them; requests
go through the whole web application, in this process.

A list is `ok` when each of its answers takes at most 100 ms, `over` when one takes more CPU than that (of this process
and its backend together), and `waits` when it would have been ok on a machine that has nothing else to do. `scans` says
whether a table is read from one end to the other, and which. It ends with 1 when one is over, or scans.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg

from perdure.protocol.ids import format_id
from tests.support import database as databases

BOUND_MS = 100
RUNS = 5
LISTED = re.compile(r'"created_at"|FROM (keys|inbox|"state"|"timer"|"invocation"|"done"|\()')
"""In the queries that find what is listed, or count it, and in no other."""
SCAN = re.compile(r"Seq Scan on (?:public\.)?([a-z_]+?)(?:_\d{8}|_default)?\b")
"""Tables that are read from one end to the other."""
DEEP = 20
"""The page that is asked for besides the first."""

# Twenty services of different size, `Rare` the smallest; a third of it has keys, a tenth was called by another, a
# twentieth has an idempotency key (so its id says nothing of its time), a fiftieth has failed.
DONE = """
INSERT INTO done (id, expires_on, created_at, completed_at, expires_at, outcome, service, handler, key, mode,
                  deployment, caller, idempotency_key, input, entries, frames, result, failure)
SELECT CASE WHEN n % 20 = 7 THEN md5(n::text)::uuid ELSE id_at(created_at, n) END,
       (created_at + interval '1 day')::date, created_at, created_at + n % 1000 * interval '1 ms',
       created_at + interval '1 day',
       CASE WHEN n % 50 = 3 THEN 'failed' WHEN n % 1000 = 4 THEN 'cancelled' WHEN n % 10000 = 5 THEN 'killed'
            ELSE 'succeeded' END,
       CASE WHEN n % 20000 = 11 THEN 'Rare' ELSE 'Service' || (sqrt(n % 400))::int END,
       CASE WHEN n % 7 = 0 THEN 'put' ELSE 'get' END,
       CASE WHEN n % 3 = 0 THEN 'key' || n % 49999 END, CASE WHEN n % 3 = 0 THEN 'exclusive' ELSE 'service' END,
       CASE WHEN n < 1000 THEN 'dp_old' ELSE 'dp_' || n % 2 END,
       CASE WHEN n % 10 = 9 THEN id_at(created_at, n - 1) END, CASE WHEN n % 20 = 7 THEN 'once-' || n END,
       decode(repeat('61', 120), 'hex'), 3, decode(repeat('62', 80), 'hex'), decode(repeat('63', 60), 'hex'),
       CASE WHEN n % 50 = 3 THEN jsonb_build_object('code', 500, 'message', 'Card ' || n || ' was declined') END
FROM (SELECT n, now() - interval '20 hours' + n * interval '20 hours' / {completed} AS created_at
      FROM generate_series(1, {completed}) AS n) AS ended
"""
# A fifth waits for its time, a quarter behind others for a key, 3,333 for one; a tenth is suspended, 100 are paused.
WAITING = """
INSERT INTO invocation (id, created_at, modified_at, status, service, handler, key, mode, queue, deployment, caller,
                        input, due_at, retries, failure)
SELECT id_at(created_at, n), created_at, created_at,
       CASE WHEN n % 1000 = 999 THEN 'paused' WHEN n % 20 = 1 THEN 'backing-off' WHEN n % 10 = 2 THEN 'suspended'
            WHEN n % 5 = 3 THEN 'scheduled' WHEN n % 3 = 0 THEN 'pending' ELSE 'ready' END,
       CASE WHEN n % 20000 = 11 THEN 'Rare' ELSE 'Service' || (sqrt(n % 400))::int END,
       CASE WHEN n % 7 = 0 THEN 'put' ELSE 'get' END,
       CASE WHEN n % 3 = 0 THEN CASE WHEN n % 30 = 0 THEN 'busy' ELSE 'key' || n % 49999 END END,
       CASE WHEN n % 3 = 0 THEN 'exclusive' ELSE 'service' END, 'default', 'dp_' || n % 2,
       CASE WHEN n % 10 = 9 THEN id_at(created_at, n - 1) END, decode(repeat('61', 120), 'hex'),
       CASE WHEN n % 20 = 1 OR n % 5 = 3 THEN now() + n * interval '1 second' END,
       CASE WHEN n % 20 = 1 THEN 3 ELSE 0 END,
       CASE WHEN n % 20 = 1 THEN jsonb_build_object('code', 500, 'message', 'Card ' || n || ' was declined') END
FROM (SELECT n, now() - interval '1 hour' + n * interval '1 hour' / {waiting} AS created_at
      FROM generate_series(1, {waiting}) AS n) AS living
"""
FILL = (
    """
CREATE FUNCTION id_at(at timestamptz, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || left(md5(n::text), 20))::uuid
$$""",
    DONE,
    WAITING,
    """
INSERT INTO inbox (service, key, position, invocation)
SELECT service, key, nextval('inbox_position'), id FROM invocation WHERE status = 'pending' ORDER BY id""",
    "INSERT INTO object_key (service, key, queue) SELECT DISTINCT service, key, 'default' FROM inbox",
    """
INSERT INTO timer (due, invocation, slot, position, service, handler, key)
SELECT due_at, id, -1, nextval('timer_position'), service, handler, key FROM invocation WHERE status = 'scheduled'""",
    "INSERT INTO timer (due, invocation, slot) SELECT due_at, id, -2 FROM invocation WHERE status = 'backing-off'",
    "INSERT INTO ready (queue, invocation, service) SELECT queue, id, service FROM invocation WHERE status = 'ready'",
    """
INSERT INTO state (service, key, name, value)
SELECT 'Service' || n % 20, 'key' || n, 'value' || part, '1'
FROM generate_series(1, {waiting}) AS n, generate_series(1, 3) AS part""",
    "VACUUM ANALYZE",
)

LISTS = {
    "all": "",
    "all, oldest first": "sort=created",
    "all, last modified": "sort=-modified",
    "due next": "sort=due",
    "completed": "status=completed",
    "failed": "outcome=failed",
    "killed (100 of a million)": "outcome=killed",
    "ready": "status=ready",
    "pending": "status=pending",
    "paused (100 of 100,000)": "status=paused",
    "paused or backing off, oldest first": "status=paused&status=backing-off&sort=created",
    "running (none)": "status=running",
    "a service": "service=Service5",
    "a rare service": "service=Rare",
    "a service that is unknown": "service=Nobody",
    "a handler": "service=Service5&handler=put",
    "a key of a service": "service=Service15&key=key123",
    "a key": "key=key123",
    "a busy key": "key=busy",
    "a deployment": "deployment=dp_1",
    "an old deployment": "deployment=dp_old",
    "an idempotency key": "idempotency_key=once-500007",
    "a caller": "caller={caller}",
    "an id": "id={id}",
    "created within a minute": "created_after={minute}&created_before={next_minute}",
    "modified within a minute": "modified_after={minute}&modified_before={next_minute}",
    "due within a minute": "due_after={soon}&due_before={later}",
    "a text in failures": "failure=declined",
    "a rare text in failures": "failure=card%20500003%20was",
    "a rare text in failed ones": "failure=card%20500003%20was&outcome=failed",
}
OTHERS = {
    "keys": "/objects",
    "keys that somebody has or waits for": "/objects?busy=true",
    "keys of a service": "/objects?service=Service5",
    "keys with a prefix": "/objects?prefix=key49",
    "keys of a service with a rare prefix": "/objects?service=Service5&prefix=nobody",
    "a busy key and its inbox": "/objects/Service0/busy",
    "the values of a key": "/objects/Service5/key25/state",
    "scheduled": "/scheduled",
    "scheduled to a service": "/scheduled?service=Service5",
    "scheduled to a rare service": "/scheduled?service=Rare",
    "scheduled to a key": "/scheduled?key=key123",
    "scheduled within a minute": "/scheduled?due_after={soon}&due_before={later}",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.listing", description=__doc__)
    parser.add_argument("--completed", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--waiting", type=int, default=100_000, metavar="N")
    parser.add_argument("--only", default="", metavar="TEXT", help="lists with this in their name")
    parser.add_argument("--explain", action="store_true", help="print the plans")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="perdure-listing-") as directory,
        databases.cluster(Path(directory)) as server,
        databases.migrated(server) as template,
        server.fresh(template=template) as url,
    ):
        fill(url, options.completed, options.waiting)
        return look(url, options.only, explains=options.explain)


def fill(url: str, completed: int, waiting: int) -> None:
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement.format(completed=completed, waiting=waiting))
    print(f"{completed:,} completed and {waiting:,} waiting, made in {time.monotonic() - began:.0f} s\n")


def look(url: str, only: str = "", *, explains: bool = False) -> int:
    """Ask for each list, and print how long it took and how it was found; answers 1 when one is not as it should be."""
    os.environ |= {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "runtime.project.settings", "PERDURE_AUTH": "off"}
    import django
    from django.test.utils import setup_test_environment

    django.setup()
    setup_test_environment()  # its client goes by a name of its own
    names = _names(url)
    is_bad = False
    for title, paths in (
        ("GET /invocations?…", {name: f"/invocations?{query}" for name, query in LISTS.items()}),
        ("GET …", OTHERS),
    ):
        columns = f"{'first page':>10} {'page ' + str(DEEP):>10} {'with count':>10} {'most CPU':>10}"
        print(f"{title:<40} {columns}   verdict  scans       count")
        for name, path in paths.items():
            if only in name:
                is_bad |= asyncio.run(_look_at(name, path.format(**names), explains=explains))
    return int(is_bad)


def _names(url: str) -> dict[str, str]:
    """What the lists ask for."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT id, caller, created_at FROM done WHERE caller IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET 99"
        ).fetchone()
        (soon,) = connection.execute("SELECT now() + interval '1 hour'").fetchone() or (None,)
    assert row is not None
    assert soon is not None
    id, caller, created_at = row
    minute = timedelta(minutes=1)
    times = {"minute": created_at, "next_minute": created_at + minute, "soon": soon, "later": soon + minute}
    return {name: quote(time.isoformat()) for name, time in times.items()} | {
        "id": format_id(id.bytes),
        "caller": format_id(caller.bytes),
    }


async def _look_at(name: str, path: str, *, explains: bool) -> bool:
    from django.test import AsyncClient

    client = AsyncClient()
    path += "" if "?" in path else "?"
    has_count = path.startswith("/invocations")
    page = f"{path}&count=false" if has_count else path
    step = "after" if path.startswith("/objects/") else "cursor"
    first, answer = await _timed(client, page)
    cursor, deep = answer.get("next"), None
    for _ in range(DEEP - 2):
        if cursor is not None:
            cursor = (await _get(client, f"{page}&{step}={cursor}"))["next"]
    if cursor is not None:
        deep, _ = await _timed(client, f"{page}&{step}={cursor}")
    counted, count = None, ""
    if has_count:
        counted, answer = await _timed(client, path)
        count = f"{'' if answer['count']['exact'] else '~'}{answer['count']['value']}"
    plans = await _plans(client, path)
    took = [one for one in (first, deep, counted) if one is not None]
    cpu = max(one.cpu for one in took)
    verdict = "ok" if max(one.wall for one in took) <= BOUND_MS else "waits" if cpu <= BOUND_MS else "over"
    scans = ",".join(sorted(set(SCAN.findall(plans))))
    columns = f"{_ms(first):>10} {_ms(deep):>10} {_ms(counted):>10} {cpu:>7.1f} ms"
    print(f"{name:<40} {columns}   {verdict:<8} {scans or 'no':<11} {count}", flush=True)
    if explains:
        print(plans)
    return verdict == "over" or scans != ""


class Took(NamedTuple):
    """How long an answer took, in milliseconds."""

    wall: float
    cpu: float


def _ms(took: Took | None) -> str:
    return "" if took is None else f"{took.wall:.1f} ms"


async def _timed(client: Any, path: str) -> tuple[Took, Any]:
    """The best of some runs: the machine has other things to do."""
    from asgiref.sync import sync_to_async

    took = []
    backend = await sync_to_async(_backend)()
    for _ in range(RUNS):
        began, burnt = time.perf_counter(), _cpu(backend)
        answer = await _get(client, path)
        took.append(Took((time.perf_counter() - began) * 1000, (_cpu(backend) - burnt) * 1000))
    return Took(min(one.wall for one in took), min(one.cpu for one in took)), answer


def _backend() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def _cpu(backend: int) -> float:
    """Seconds of this process and of its backend, where that is on this machine."""
    spent = Path(f"/proc/{backend}/schedstat")
    return time.process_time() + (int(spent.read_text().split()[0]) / 1e9 if spent.exists() else 0)


async def _get(client: Any, path: str) -> Any:
    response = await client.get(path)
    assert response.status_code == 200, response.content
    return response.json()


async def _plans(client: Any, path: str) -> str:
    """How PostgreSQL finds what a request asks for."""
    from asgiref.sync import sync_to_async
    from django.db import connection

    lines: list[str] = []

    def explain(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if LISTED.search(sql) and not sql.startswith("EXPLAIN"):  # in its own transaction, with its settings
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}", parameters)
                lines.extend(line for (line,) in cursor.fetchall())
        return execute(sql, parameters, many, context)

    await sync_to_async(lambda: connection.execute_wrappers.append(explain))()
    try:
        await _get(client, path)
    finally:
        await sync_to_async(lambda: connection.execute_wrappers.remove(explain))()
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
