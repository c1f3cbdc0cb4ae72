"""A link: one pipeline is one transaction, whatever happens on the way."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
import uvloop

from runtime.errors import DatabaseError, Disconnected
from runtime.servers.postgres import Postgres
from runtime.store import lookup, pack
from runtime.store.link import Link, Pipeline, Statement, rows, whole
from tests.support.servers import running
from tests.support.sessions import WITHIN, Sessions

NOTE = Statement("INSERT INTO note VALUES ($1::int)", pack.INT4)
NOTES = Statement("SELECT number FROM note ORDER BY number")
DIVIDE = Statement("SELECT 1 / $1::int", pack.INT4)
WAIT = Statement("SELECT pg_advisory_xact_lock(7)")
WARN = Statement("SELECT warn()")


@pytest.fixture
async def sessions(module_database: str) -> AsyncIterator[Sessions]:
    """On a database in which these tests may make what they like."""
    async with Sessions(module_database) as sessions:
        yield sessions


@pytest.fixture
async def link(sessions: Sessions) -> Link:
    await sessions.execute("DROP TABLE IF EXISTS note")
    await sessions.execute("CREATE TABLE note (number int PRIMARY KEY)")
    return await sessions.link()


async def run(link: Link, *calls: tuple[Any, ...]) -> list[Any]:
    """The rows that a pipeline of these statements and parameters answers."""
    found: list[Any] = []
    pipeline = Pipeline()
    for statement, *parameters in calls:
        pipeline.call(statement, *parameters, read=lambda result: found.extend(rows(result)))
    await link.run(pipeline)
    return found


def note(number: int) -> tuple[Statement, bytes]:
    return NOTE, pack.int4(number)


async def notes(sessions: Sessions) -> list[int]:
    return [number for (number,) in await sessions.rows("SELECT number FROM note ORDER BY number")]


async def locked(sessions: Sessions) -> psycopg.AsyncConnection:
    """A transaction for whose end WAIT waits."""
    connection = await sessions.connection()
    await connection.execute("SELECT pg_advisory_xact_lock(7)")
    return connection


async def test_a_pipeline_is_durable_when_it_returns(sessions: Sessions, link: Link) -> None:
    assert await run(link, note(1), note(2), (NOTES,)) == [[pack.int4(1)], [pack.int4(2)]]
    assert await notes(sessions) == [1, 2]


async def test_an_error_undoes_what_was_before_it_and_keeps_back_what_comes_after(
    sessions: Sessions, link: Link
) -> None:
    with pytest.raises(DatabaseError) as error:
        await run(link, note(1), (DIVIDE, pack.int4(0)), note(2))
    assert error.value.sqlstate == "22012"
    assert error.value.is_poison
    assert await notes(sessions) == []
    await run(link, note(3), (DIVIDE, pack.int4(1)))
    assert await notes(sessions) == [3], "statements prepared before and behind the error can be used again"


async def test_each_statement_sees_what_others_committed_before_it(sessions: Sessions, link: Link) -> None:
    obstacle = await locked(sessions)
    looks = await sessions.blocked(run(link, (NOTES,), (WAIT,), (NOTES,)), link, by=obstacle)
    await sessions.execute("INSERT INTO note VALUES (1)")
    await obstacle.commit()
    assert await looks == [[b""], [pack.int4(1)]], "the second look sees it, the first did not"


async def test_a_cancelled_caller_leaves_a_transaction_that_ends_and_a_link_that_works(
    sessions: Sessions, link: Link
) -> None:
    obstacle = await locked(sessions)
    caller = await sessions.blocked(run(link, note(1), (WAIT,)), link, by=obstacle)
    caller.cancel()
    await obstacle.commit()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await run(link, (NOTES,)) == [[pack.int4(1)]]


async def test_what_goes_wrong_with_an_answer_is_its_callers(link: Link) -> None:
    pipeline = Pipeline()
    pipeline.call(NOTES, read=lambda result: [][result.ntuples])
    with pytest.raises(IndexError):
        await link.run(pipeline)
    assert await run(link, (NOTES,)) == []


async def test_a_lost_connection_is_told_to_who_waits_and_to_who_comes_later(sessions: Sessions, link: Link) -> None:
    caller = await sessions.blocked(run(link, note(1), (WAIT,)), link, by=await locked(sessions))
    await sessions.execute("SELECT pg_terminate_backend(%s)", link.backend_pid)
    with pytest.raises(Disconnected):
        await caller
    assert link.closed
    with pytest.raises(Disconnected):
        await run(link, note(2))
    assert await notes(sessions) == []


async def test_a_link_that_was_lost_while_idle_says_so(sessions: Sessions, link: Link) -> None:
    await sessions.execute("SELECT pg_terminate_backend(%s, 5000)", link.backend_pid)
    with pytest.raises(Disconnected):
        await run(link, note(1))


async def test_nobody_answers_at_a_wrong_address(sessions: Sessions) -> None:
    with pytest.raises(Disconnected):
        await Link.connect("postgresql://nobody@127.0.0.1:1/nowhere")


async def test_a_warning_that_is_not_about_a_standby_is_no_failure(sessions: Sessions, link: Link) -> None:
    await sessions.execute(
        "CREATE FUNCTION warn() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'old age'; END $$"
    )
    await run(link, note(1), (WARN,))
    assert await notes(sessions) == [1]


# Several pipelines as one transaction


async def test_whole_is_all_of_it(sessions: Sessions, link: Link) -> None:
    first, last = Pipeline(), Pipeline()
    first.begin()
    first.call(*note(1))
    last.call(*note(2))
    last.commit()
    async with whole(link):
        await link.run(first)
        assert await notes(sessions) == []
        await link.run(last)
    assert await notes(sessions) == [1, 2]


@pytest.mark.parametrize("poison", [0, 1])
async def test_whole_is_nothing_when_one_of_its_pipelines_fails(sessions: Sessions, link: Link, poison: int) -> None:
    pipelines = [Pipeline(), Pipeline()]
    pipelines[0].begin()
    pipelines[0].call(*note(1))
    pipelines[poison].call(DIVIDE, pack.int4(0))
    pipelines[1].commit()
    with pytest.raises(DatabaseError):
        async with whole(link):
            for pipeline in pipelines:
                await link.run(pipeline)
    await run(link, note(2))
    assert await notes(sessions) == [2], "the link is out of the failed transaction"


async def test_whole_is_nothing_when_its_caller_is_cancelled_between_two_pipelines(
    sessions: Sessions, link: Link
) -> None:
    first = Pipeline()
    first.begin()
    first.call(*note(1))

    is_open = asyncio.Event()

    async def never_ends() -> None:
        async with whole(link):
            await link.run(first)
            is_open.set()
            await asyncio.Event().wait()

    caller = sessions.start(never_ends())
    await is_open.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await run(link, note(2))
    assert await notes(sessions) == [2]


async def test_a_commit_of_what_has_failed_is_a_failure(sessions: Sessions, link: Link) -> None:
    """The server answers such a COMMIT with success, and with the tag ROLLBACK."""
    failing, committing = Pipeline(), Pipeline()
    failing.begin()
    failing.call(*note(1))
    failing.call(DIVIDE, pack.int4(0))
    committing.commit()
    with pytest.raises(DatabaseError):
        await link.run(failing)
    with pytest.raises(DatabaseError) as error:
        await link.run(committing)
    assert error.value.sqlstate == "25P02"
    assert await notes(sessions) == []


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[str]:
    """The address of a PostgreSQL whose settings may be changed."""
    server = Postgres.prepare(tmp_path)
    with running(server.process()):
        yield server.url


async def test_a_commit_that_no_standby_has_confirmed_is_a_failure(own_server: str) -> None:
    """To cancel the wait for a standby is answered with success, a warning, and a row that everybody sees (T17)."""
    async with Sessions(own_server) as sessions:
        await sessions.execute("CREATE TABLE note (number int PRIMARY KEY)")
        await sessions.execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'")
        await sessions.execute("SELECT pg_reload_conf()")
        link = await sessions.link()
        waiting = sessions.start(run(link, note(1)))
        async with asyncio.timeout(WITHIN):
            while not await sessions.value(WAITS_FOR_STANDBY, link.backend_pid):
                await asyncio.sleep(0.005)
        await sessions.execute("SELECT pg_cancel_backend(%s)", link.backend_pid)
        with pytest.raises(DatabaseError) as error:
            await waiting
        assert not error.value.is_transient, "to do it again would double it"
        assert await notes(sessions) == [1]


WAITS_FOR_STANDBY = "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"


class LastWords:
    """A server that greets, does as it is told once, and then says why it goes, without listening to the end."""

    def __init__(self, directory: Path) -> None:
        self.conninfo = f"host={directory} port=5432 user=perdure dbname=perdure sslmode=disable gssencmode=disable"
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(directory / ".s.PGSQL.5432"))
        self._door.listen()

    def greet(self) -> None:
        self._guest, _ = self._door.accept()
        self._guest.recv(4096)
        self._say(b"R", struct.pack("!i", 0))
        self._say(b"Z", b"I")
        self._guest.recv(4096)
        self._say(b"C", b"SET\0")
        self._say(b"Z", b"I")

    def go(self) -> None:
        self._say(b"E", b"SFATAL\0VFATAL\0C57P01\0Mthe postmaster has gone\0\0")
        self._guest.close()
        self._door.close()

    def _say(self, kind: bytes, words: bytes) -> None:
        self._guest.sendall(kind + struct.pack("!i", 4 + len(words)) + words)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_server_that_says_why_it_goes_has_gone(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main(server: LastWords) -> None:
        greeting = asyncio.ensure_future(asyncio.to_thread(server.greet))
        link = await Link.connect(server.conninfo)
        await greeting
        asked = asyncio.ensure_future(run(link, (Statement("SELECT 1"),)))
        await asyncio.sleep(0)
        server.go()  # its words and its end are there together when the loop looks
        await asyncio.wait([asked], timeout=WITHIN)
        was_told = link.closed
        link.close()
        with pytest.raises(Disconnected):
            await asked
        assert was_told

    with TemporaryDirectory(prefix="pd-") as directory, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main(LastWords(Path(directory))))


async def test_a_session_that_was_lost_is_ended_by_its_number_but_never_by_itself(sessions: Sessions) -> None:
    """Numbers of processes come again: that of the lost session may be this one's."""
    lost, here = await sessions.link(), await sessions.link()
    assert not await lookup.end_session(here, lost.backend_pid)
    async with asyncio.timeout(WITHIN):
        while not await lookup.end_session(here, lost.backend_pid):
            pass
    assert await lookup.end_session(here, here.backend_pid)
    assert await lookup.end_session(here, 2**31 - 1)
