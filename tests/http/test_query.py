"""POST /query: what the views show, and that a query can do nothing but read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.test import AsyncClient
from hypothesis import given
from hypothesis import strategies as st

from perdure.protocol.ids import format_id
from perdure.protocol.messages import (
    Call,
    CallCompletion,
    CallInvocationIdCompletion,
    Entry,
    InvocationRef,
    Message,
    Run,
    RunCompletion,
    Sleep,
    Value,
)
from runtime.conf import settings
from runtime.core.invocation import Status
from runtime.operations import Operations, Submission
from tests.support import history


async def ask(client: AsyncClient, sql: str, accept: str = "application/json") -> Any:
    return await client.post("/query", {"query": sql}, content_type="application/json", headers={"accept": accept})


async def rows(client: AsyncClient, sql: str) -> list[dict[str, Any]]:
    response = await ask(client, sql)
    assert response.status_code == 200, response.content
    return list(response.json()["rows"])


async def send(operations: Operations, target: str, due: int = 0) -> bytes:
    service, *key, handler = target.split("/")
    info = operations.registry.resolve(service, handler)
    accepted = await operations.send(Submission(info, key[0] if key else None, b'"Mary"', due=due))
    return accepted.id


# The views


async def test_an_invocation_has_the_names_that_restate_gives_it(client: AsyncClient, operations: Operations) -> None:
    id = await send(operations, "Mailbox/Mary/put")

    (row,) = await rows(client, "SELECT * FROM sys_invocation")

    assert (row["id"], row["target"], row["status"]) == (format_id(id), "Mailbox/Mary/put", "pending")
    assert (row["target_service_name"], row["target_service_key"]) == ("Mailbox", "Mary")
    assert (row["target_service_ty"], row["invoked_by"], row["journal_size"]) == ("virtual_object", "ingress", 1)


async def test_an_invocation_shows_how_many_of_its_attempts_failed_also_when_it_has_ended(client: AsyncClient) -> None:
    await history.alive(status=Status.PAUSED, failed_attempts=3)
    await history.ended(failed_attempts=2)

    found = await rows(client, "SELECT status, retry_count FROM sys_invocation ORDER BY status")

    assert found == [{"status": "completed", "retry_count": 2}, {"status": "paused", "retry_count": 3}]


async def test_one_invocation_is_found_by_its_id(client: AsyncClient, operations: Operations) -> None:
    ids = [await send(operations, "Greeter/greet") for _ in range(3)]

    found = await rows(client, f"SELECT id FROM sys_invocation WHERE raw_id = parse_id('{format_id(ids[1])}')")

    assert found == [{"id": format_id(ids[1])}]


async def test_the_inbox_of_a_key_is_in_order_and_its_first_one_holds_the_key(
    client: AsyncClient, operations: Operations
) -> None:
    ids = [format_id(await send(operations, "Mailbox/Mary/put")) for _ in range(3)]

    inbox = await rows(client, "SELECT id FROM sys_inbox ORDER BY sequence_number")
    (key,) = await rows(client, "SELECT * FROM sys_keyed_service_status")

    assert [row["id"] for row in inbox] == ids
    assert (key["service_key"], key["invocation_id"], key["inbox_length"]) == ("Mary", ids[0], 3)


async def test_a_delayed_send_is_among_the_scheduled(client: AsyncClient, operations: Operations) -> None:
    id = await send(operations, "Greeter/greet", due=4_000_000_000_000)

    (row,) = await rows(client, "SELECT * FROM sys_scheduled")

    assert (row["id"], row["scheduled_start_at"]) == (format_id(id), "2096-10-02T07:06:40+00:00")


async def test_services_and_deployments_are_shown(client: AsyncClient, operations: Operations) -> None:
    found = await rows(
        client,
        "SELECT name, sys_service.ty, public, endpoint FROM sys_service"
        " JOIN sys_deployment ON sys_deployment.id = deployment_id ORDER BY name",
    )

    assert [row["name"] for row in found] == ["Greeter", "Mailbox"]
    assert found[0] == {"name": "Greeter", "ty": "service", "public": True, "endpoint": "tests.support.endpoints:app"}


async def test_a_value_is_shown_as_text_when_it_is_one(client: AsyncClient, our_database: str) -> None:
    with psycopg.connect(our_database) as connection:
        connection.execute("INSERT INTO state VALUES ('S', 'k', 'text', 'Mary'), ('S', 'k', 'bytes', '\\xff')")

    found = await rows(client, "SELECT key, value_utf8, value FROM state ORDER BY key")

    assert [(row["key"], row["value_utf8"], row["value"]) for row in found] == [
        ("bytes", None, "\\xff"),
        ("text", "Mary", "\\x4d617279"),
    ]


JOURNAL: list[Entry] = [
    Run(1, "pay"),
    Sleep(1_700_000_000_000, 2),
    Call("Mailbox", "put", b"1", 3, 4, "Mary"),
    RunCompletion(1, Value(b"1")),
    CallInvocationIdCompletion(3, InvocationRef(format_id(bytes(16)))),
    CallCompletion(4, Value(b"2")),
]


async def test_a_journal_reads_in_sql_as_in_the_api(client: AsyncClient, our_database: str) -> None:
    id = await history.ended(entries=JOURNAL[:3], last=JOURNAL[3:])

    found = await rows(client, f"SELECT * FROM sys_journal WHERE raw_id = parse_id('{id}') ORDER BY index")

    shown = (await client.get(f"/invocations/{id}")).json()["journal"]
    assert len(found) == len(JOURNAL) + 2
    for row, entry in zip(found, shown, strict=True):
        expected = (entry["index"], entry["type"], entry["name"], entry["completed"])
        assert (row["index"], row["entry_type"], row["name"], row["completed"]) == expected
    assert (found[3]["invoked_target"], found[3]["invoked_id"]) == ("Mailbox/Mary/put", format_id(bytes(16)))


def test_every_kind_of_entry_has_the_name_that_the_api_gives_it(module_database: str) -> None:
    entries = [kind for kind in _kinds(Message) if kind.CODE >= 0x400]
    with psycopg.connect(module_database) as connection:
        for kind in entries:
            (named,) = connection.execute("SELECT perdure_sql.entry_type(%s)", (kind.CODE,)).fetchone() or ("",)
            is_command = kind.CODE < 0x8000
            prefix = "Command: " if is_command else "Notification: "
            assert named == prefix + (kind.__name__ if is_command else kind.__name__.removesuffix("Completion"))


def _kinds(kind: type[Message]) -> Iterator[type[Message]]:
    for child in kind.__subclasses__():
        if child.CODE >= 0:
            yield child
        yield from _kinds(child)


@pytest.fixture(scope="module")
def connection(module_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(module_database) as connection:
        yield connection


@given(id=st.binary(min_size=16, max_size=16))
def test_ids_are_written_and_read_as_everywhere(connection: psycopg.Connection, id: bytes) -> None:
    written, read = connection.execute(
        "SELECT perdure_sql.format_id(%s::uuid), perdure_sql.parse_id(%s)", (id.hex(), format_id(id))
    ).fetchone() or ("", None)

    assert (written, read.bytes if read else b"") == (format_id(id), id)


# Answers


async def test_an_answer_is_csv_for_those_who_accept_that(client: AsyncClient) -> None:
    response = await ask(client, "SELECT 1 AS a, 'x,y' AS b UNION ALL SELECT NULL, NULL ORDER BY a", "text/csv")

    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.content == b'a,b\r\n1,"x,y"\r\n,\r\n'


async def test_a_long_answer_is_cut_and_says_so(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with bounds(monkeypatch, PERDURE_QUERY_ROWS="3"):
        answer = (await ask(client, "SELECT * FROM generate_series(1, 5)")).json()
        as_csv = await ask(client, "SELECT * FROM generate_series(1, 5)", "text/csv")

    assert (len(answer["rows"]), answer["cut"]) == (3, "There is more: the answer was cut after 3 rows.")
    assert "3 rows" in as_csv.headers["x-perdure-cut"]


async def test_an_answer_that_ends_at_the_bound_is_whole(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with bounds(monkeypatch, PERDURE_QUERY_ROWS="3"):
        answer = (await ask(client, "SELECT * FROM generate_series(1, 3)")).json()

    assert (len(answer["rows"]), answer["cut"]) == (3, None)


async def test_an_answer_that_grows_too_large_is_cut(client: AsyncClient) -> None:
    answer = (await ask(client, "SELECT repeat('x', 6000000) AS x FROM generate_series(1, 5)")).json()

    assert len(answer["rows"]) == 2
    assert answer["cut"] == "There is more: the answer was cut after 2 rows."


@pytest.mark.parametrize("value", ["repeat('x', 20000000)", "repeat(chr(1), 4000000)"], ids=["itself", "as JSON"])
async def test_a_row_that_is_too_large_is_refused_with_the_limit(client: AsyncClient, value: str) -> None:
    response = await ask(client, f"SELECT {value} AS x")

    assert response.status_code == 400
    assert "more than the 16 MB" in response.json()["message"]


async def test_columns_of_one_name_are_refused(client: AsyncClient) -> None:
    response = await ask(client, "SELECT 1 AS a, 2 AS a")

    assert response.status_code == 400
    assert response.json()["message"] == 'Two columns are named "a". Name the columns apart, with AS.'


@pytest.mark.parametrize(
    ("query", "said"),
    {
        "": "The query is empty. Ask with one SELECT",
        " \n ": "The query is empty. Ask with one SELECT",
        "-- nothing": "There is no statement in the query.",
        "/* nothing */ ;": "There is no statement in the query.",
        "EXPLAIN SELECT 1": "EXPLAIN is not answered, only the SELECT itself.",
        "-- all\nDELETE FROM state": "Only a SELECT is answered, and this begins with DELETE.",
        "SELEC 1": "Only a SELECT is answered, and this begins with SELEC.",
        "SELECT 1; SELECT 2": "Only one SELECT is answered, and these are several statements.",
    }.items(),
)
async def test_what_is_no_select_is_refused_in_words(client: AsyncClient, query: str, said: str) -> None:
    response = await ask(client, query)

    assert response.status_code == 400
    assert response.json()["message"].startswith(said)


@pytest.mark.parametrize("query", ["SELECT 1 AS n;", "/* one */ select 1 AS n -- end", "(SELECT 1 AS n)"])
async def test_a_select_is_answered_however_it_is_written(client: AsyncClient, query: str) -> None:
    assert await rows(client, query) == [{"n": 1}]


async def test_a_mistake_is_answered_with_its_place(client: AsyncClient) -> None:
    response = await ask(client, "SELECT nothing FROM state")

    assert (response.status_code, "at character 8" in response.json()["message"]) == (400, True)


# Attacks

REFUSED = {
    "another table": "SELECT * FROM public.invocation",
    "another table, through XML": "SELECT table_to_xml('public.state', true, true, '')",
    "accounts": "SELECT * FROM auth_user",
    "accounts by their schema": "SELECT * FROM public.auth_user",
    "roles and their passwords": "SELECT * FROM pg_authid",
    "what others ask": "SELECT * FROM pg_stat_activity",
    "the catalog": 'SELECT * FROM "pg_catalog"."pg_class"',
    "the standard's catalog": "SELECT * FROM information_schema.tables",
    "insert": "INSERT INTO public.state VALUES ('a', 'b', 'c', '')",
    "delete through a view": "DELETE FROM state",
    "delete in a WITH": "WITH gone AS (DELETE FROM public.state RETURNING 1) SELECT * FROM gone",
    "create": "CREATE TEMP TABLE mine (x int)",
    "select into": "SELECT 1 AS x INTO mine",
    "drop": "DROP VIEW state",
    "a second statement": "SELECT 1; DELETE FROM public.state",
    "a second statement, ended early": "SELECT 1; COMMIT; DELETE FROM public.state",
    "reset role": "RESET ROLE",
    "set role": "SET ROLE NONE",
    "reset session authorization": "RESET SESSION AUTHORIZATION",
    "set role by a function": "SELECT set_config('role', 'none', false)",
    "set role in a block": "DO $$ BEGIN PERFORM set_config('role', 'none', false); DELETE FROM public.state; END $$",
    "set role in Unicode": "SELECT U&\"\\0073et_config\"('role', 'none', false)",
    "set role behind a comment": "SELECT pg_catalog . /* no */ set_config -- here\n ('role', 'none', false)",
    "set role in quotes": "SELECT \"pg_catalog\".\"set_config\"('role', 'none', false)",
    "set role in capitals": "SELECT SET_CONFIG('role', 'none', false)",
    "SQL within SQL": "SELECT query_to_xml('DELETE FROM public.state', true, true, '')",
    "SQL within a text search": "SELECT * FROM ts_stat('SELECT to_tsvector(name) FROM public.service')",
    "more memory": "SELECT set_config('work_mem', '100GB', true)",
    "sleep": "SELECT pg_sleep(600)",
    "sleep for ever": "SELECT pg_sleep_for('1 day')",
    "a file": "SELECT pg_read_file('/etc/passwd')",
    "a directory": "SELECT pg_ls_dir('/')",
    "a file as a large object": "SELECT lo_import('/etc/passwd')",
    "copy to a file": "COPY (SELECT 1) TO '/tmp/x'",
    "copy to a program": "COPY (SELECT 1) TO PROGRAM 'true'",
    "copy out": "COPY state TO STDOUT",
    "an advisory lock": "SELECT pg_advisory_lock(1)",
    "an advisory lock if it is free": "SELECT pg_try_advisory_xact_lock(1)",
    "end others": "SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL)",
    "cancel others": "SELECT pg_cancel_backend(1)",
    "reload": "SELECT pg_reload_conf()",
    "lock a table": "LOCK TABLE public.state",
    "lock rows": "SELECT * FROM state FOR UPDATE",
    "lock rows gently": "SELECT * FROM sys_engine FOR KEY SHARE",
    "a number of a sequence": "SELECT nextval('public.inbox_position')",
    "an engine's fence": "SELECT public.fence('00000000-0000-0000-0000-000000000000')",
    "itself": "SELECT * FROM perdure_sql.read('SELECT 1', 1, 1)",
    "set up": "SELECT perdure_sql.set_up_reader()",
    "notify": "NOTIFY perdure",
    "listen": "LISTEN perdure",
    "notify by a function": "SELECT pg_notify('perdure', 'x')",
    "prepare": "PREPARE mine AS SELECT 1",
    "vacuum": "VACUUM",
    "explain analyze": "EXPLAIN ANALYZE SELECT 1",
    "nothing": "",
    "a comment": "-- nothing",
}


@pytest.mark.parametrize("attack", REFUSED)
async def test_what_is_not_a_read_of_the_views_is_refused(client: AsyncClient, our_database: str, attack: str) -> None:
    with psycopg.connect(our_database) as connection:
        connection.execute("INSERT INTO state VALUES ('S', 'k', 'name', 'kept')")

    response = await ask(client, REFUSED[attack])

    assert response.status_code == 400, response.content
    assert response.json()["message"]
    with psycopg.connect(our_database) as connection:
        assert connection.execute("SELECT name FROM state").fetchall() == [("name",)]


async def test_what_runs_for_long_is_stopped(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with bounds(monkeypatch, PERDURE_QUERY_SECONDS="1"):
        response = await ask(client, "SELECT count(*) FROM generate_series(1, 1e12)")

    assert (response.status_code, "stopped after 1 s" in response.json()["message"]) == (400, True)


async def test_a_query_runs_as_a_role_that_can_sign_in_nowhere_and_may_nothing_else(
    client: AsyncClient, our_database: str
) -> None:
    assert await rows(client, "SELECT current_user") == [{"current_user": "perdure_reader"}]

    with psycopg.connect(our_database) as connection:
        (powers,) = connection.execute(
            "SELECT rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
            " FROM pg_roles WHERE rolname = 'perdure_reader'"
        ).fetchone() or (None,)
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')"
            " AND CASE WHEN relkind = 'S' THEN has_sequence_privilege('perdure_reader', oid, 'USAGE')"
            " ELSE has_table_privilege('perdure_reader', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') END"
        ).fetchall()
        (makes,) = connection.execute(
            "SELECT has_schema_privilege('perdure_reader', 'perdure_sql', 'CREATE')"
        ).fetchone() or (None,)
    assert (powers, tables, makes) == (False, [], False)


async def test_even_without_the_list_of_words_the_role_cannot_be_left(client: AsyncClient, our_database: str) -> None:
    with psycopg.connect(our_database) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION perdure_sql.forbidden(query text) RETURNS SETOF text LANGUAGE sql STABLE"
            " AS 'SELECT NULL::text WHERE false'"
        )

    escape = await ask(client, "SELECT set_config('role', 'none', true), current_user")
    other = await ask(client, "SELECT set_config('session_authorization', session_user::text, true)")
    table = await ask(client, "SELECT query_to_xml('SELECT * FROM public.invocation', true, true, '')")
    write = await ask(client, "SELECT set_config('transaction_read_only', 'off', true), perdure_sql.set_up_reader()")
    file = await ask(client, "SELECT pg_read_file('/etc/hostname')")

    assert [answer.status_code for answer in (escape, other, table, write, file)] == [400] * 5


async def test_a_query_keeps_no_writer_waiting(client: AsyncClient, our_database: str) -> None:
    with psycopg.connect(our_database) as writer:
        writer.execute("LOCK TABLE state IN ROW EXCLUSIVE MODE")
        writer.execute("INSERT INTO state VALUES ('S', 'k', 'name', 'new')")

        assert await rows(client, "SELECT count(*) AS n FROM state") == [{"n": 0}]


async def test_without_the_role_the_answer_says_how_to_make_it(client: AsyncClient, our_database: str) -> None:
    with psycopg.connect(our_database) as connection:
        connection.execute("DROP FUNCTION perdure_sql.read(text, int, int)")
    before = await ask(client, "SELECT 1 AS n")
    with psycopg.connect(our_database) as connection:
        connection.execute("SELECT perdure_sql.set_up_reader()")

    assert before.status_code == 501
    assert "SELECT perdure_sql.set_up_reader()" in before.json()["message"]
    assert await rows(client, "SELECT 1 AS n") == [{"n": 1}]


async def test_a_view_that_comes_later_can_be_read_too(client: AsyncClient, our_database: str) -> None:
    with psycopg.connect(our_database) as connection:
        connection.execute("CREATE VIEW perdure_sql.sys_later AS SELECT 1 AS n")

    assert await rows(client, "SELECT n FROM sys_later") == [{"n": 1}]


@contextmanager
def bounds(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        settings.cache_clear()
        yield
    settings.cache_clear()
