"""A link: one hot connection, driven in pipeline mode.

Statements are prepared once and sent in one write up to one Sync; until there they are one transaction, each with
a snapshot of its own. The first error undoes all of it. One pipeline is under way at a time; psycopg's cursors
cost five times the client's CPU for the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import selectors
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from psycopg import OperationalError, pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGconn, PGresult

from runtime.errors import DatabaseError, Disconnected
from runtime.threads import in_own_thread

# A plan cached on an empty table keeps its sequential scan for ever (two thirds of the throughput).
SETTINGS = (
    b"SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET jit = off; SET lock_timeout = '1s';"
    b"SET idle_in_transaction_session_timeout = '5s'; SET client_min_messages = warning; SET timezone = 'UTC'"
)

WANTED = {pq.PollingStatus.READING: selectors.EVENT_READ, pq.PollingStatus.WRITING: selectors.EVENT_WRITE}

Row = list[Any]  # bytes or None, as the statement above its reader says
Reader = Callable[[PGresult], None]


def ignore(_: PGresult) -> None:
    pass


class Statement:
    """A statement with the types of its parameters; prepared on a link at its first use there."""

    _count = 0

    def __init__(self, sql: str, *types: int) -> None:
        Statement._count += 1
        self.name = b"s%d" % Statement._count
        self.sql = sql.encode()
        self.types = types
        self.formats = [pq.Format.BINARY] * len(types)


class Pipeline:
    """Statements in the order in which they run, with what is to be done with each answer."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls: list[tuple[Statement, tuple[bytes | None, ...], Reader]] = []

    def call(self, statement: Statement, *parameters: bytes | None, read: Reader = ignore) -> None:
        self.calls.append((statement, parameters, read))

    def begin(self) -> None:
        """What follows, in this pipeline and the next ones, is one transaction: see `whole`."""
        self.call(BEGIN)

    def commit(self) -> None:
        self.call(COMMIT, read=_committed)


BEGIN, COMMIT, ROLLBACK = Statement("BEGIN"), Statement("COMMIT"), Statement("ROLLBACK")


def _committed(result: PGresult) -> None:
    # A COMMIT of what has failed already is no error to the server: only its tag tells.
    if result.command_status != b"COMMIT":
        raise DatabaseError("25P02", "the transaction had failed and was rolled back")


@contextlib.asynccontextmanager
async def whole(link: Link) -> AsyncIterator[None]:
    """Pipelines from a `begin` to a `commit`: when one of them fails, or their caller is cancelled, all is undone."""
    try:
        yield
    except BaseException:
        if not link.closed:
            pipeline = Pipeline()
            pipeline.call(ROLLBACK)
            await link.run(pipeline)
        raise


class Link:
    def __init__(self, connection: PGconn) -> None:
        self._connection = connection
        self._prepared: set[bytes] = set()
        self._answer: asyncio.Future[None] | None = None
        self._expected: list[Reader] = []
        self._next = 0
        self._error: Exception | None = None
        self._warning: DatabaseError | None = None
        self._loop = asyncio.get_running_loop()
        self._writing = False
        self.closed = False
        self.heard: Callable[[bytes], None] | None = None
        """To be called with what others NOTIFY, on a link that listens."""
        self.ended: Callable[[], None] | None = None
        """To be called when it is closed, by whomever."""
        connection.nonblocking = 1
        connection.enter_pipeline_mode()
        connection.notice_handler = self._noticed
        self._socket = connection.socket
        self._more = select.poll()
        self._more.register(self._socket, select.POLLIN)
        self.backend_pid = connection.backend_pid
        self._loop.add_reader(self._socket, self._readable)

    @classmethod
    async def connect(cls, conninfo: str) -> Link:
        """Open a link; raises Disconnected when the server cannot be reached."""
        connection = await in_own_thread(_connect, conninfo.encode())
        try:
            return cls(connection)
        except OperationalError as error:  # the server went away between two lines
            raise Disconnected(str(error).strip()) from error

    async def run(self, pipeline: Pipeline) -> None:
        """Run all statements as one transaction; when this returns, it is committed.

        Raises DatabaseError: nothing of it was done. Raises Disconnected: nobody knows whether it was.
        """
        if self.closed:
            raise Disconnected("the link is closed")
        assert self._answer is None, "one pipeline at a time"
        connection = self._connection
        expected: list[Reader] = []
        preparing: set[bytes] = set()
        try:
            for statement, parameters, read in pipeline.calls:
                name = statement.name
                if name not in self._prepared and name not in preparing:
                    connection.send_prepare(name, statement.sql, statement.types)
                    preparing.add(name)
                    # Known once answered: behind an error nothing is prepared, before it all stays so.
                    expected.append(functools.partial(self._was_prepared, name))
                connection.send_query_prepared(name, parameters, statement.formats, result_format=pq.Format.BINARY)
                expected.append(read)
            connection.pipeline_sync()
            self._expected, self._next, self._error, self._warning = expected, 0, None, None
            self._answer = self._loop.create_future()
            self._flush()
        except OperationalError as error:
            self._lost(error)
        if self._answer is None:
            raise Disconnected("the connection was lost while sending")
        try:
            await self._answer
        except asyncio.CancelledError:
            await self._come_to_rest()
            raise

    async def _come_to_rest(self) -> None:
        """Its caller was cancelled, the transaction is not: that could undo what is reported as done (T17)."""
        while self._answer is not None:
            self._answer = self._loop.create_future()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await self._answer

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket)
            if self._writing:
                self._loop.remove_writer(self._socket)
            self._connection.finish()
            self._settle(Disconnected("the link was closed"))
            if self.ended is not None:
                self.ended()

    def _was_prepared(self, name: bytes, _: PGresult) -> None:
        self._prepared.add(name)

    def _flush(self) -> None:
        unsent = self._connection.flush()
        if unsent and not self._writing:
            self._loop.add_writer(self._socket, self._writable)
        elif not unsent and self._writing:
            self._loop.remove_writer(self._socket)
        self._writing = bool(unsent)

    def _writable(self) -> None:
        try:
            self._flush()
        except OperationalError as error:
            self._lost(error)

    def _readable(self) -> None:
        # All there is, to the end: of a socket that is broken uvloop tells once, though words are left before the end.
        try:
            self._read()
            while not self.closed and self._more.poll(0):
                self._read()
        except OperationalError as error:
            self._lost(error)

    def _read(self) -> None:
        connection = self._connection
        connection.consume_input()
        while self._answer is not None and not connection.is_busy():
            result = connection.get_result()
            if result is not None:
                self._take(result)
        if self.heard is not None:
            while not self.closed and (notice := connection.notifies()) is not None:
                self.heard(notice.extra)

    def _take(self, result: PGresult) -> None:
        status = result.status
        if status == pq.ExecStatus.PIPELINE_SYNC:
            self._settle(self._error or self._warning)
        elif status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            read = self._expected[self._next]
            self._next += 1
            try:
                read(result)
            except Exception as error:  # the caller's, not the loop's
                self._error = self._error or error
        elif status == pq.ExecStatus.FATAL_ERROR and self._error is None:
            self._error = _error(result)

    def _settle(self, error: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)

    def _noticed(self, notice: PGresult) -> None:
        # A cancelled wait for a synchronous standby reports success with a warning: it is not one. By where it comes
        # from, for its class, 01000, is that of any warning, and its text is translated.
        if notice.error_field(pq.DiagnosticField.SOURCE_FUNCTION) == b"SyncRepWaitForLSN":
            self._warning = _error(notice)

    def _lost(self, error: Exception) -> None:
        answer = self._answer
        self._answer = None
        self.close()
        if answer is not None and not answer.done():
            answer.set_exception(Disconnected(str(error).strip()))


def rows(result: PGresult) -> list[Row]:
    """The rows of a binary result."""
    value = result.get_value
    columns = range(result.nfields)
    return [[value(row, column) for column in columns] for row in range(result.ntuples)]


def _connect(conninfo: bytes) -> PGconn:
    connection = pq.PGconn.connect_start(conninfo)
    _poll(connection, conninfo)
    if connection.status != pq.ConnStatus.OK:
        message = connection.get_error_message()
        connection.finish()
        raise Disconnected(message.strip())
    result = connection.exec_(SETTINGS)
    if result.status != pq.ExecStatus.COMMAND_OK:
        message = result.get_error_message()
        connection.finish()
        raise Disconnected(message.strip())
    return connection


def _poll(connection: PGconn, conninfo: bytes) -> None:
    """Until it is open or has failed. PGconn.connect would hold the GIL: the loop and the pulse stood still."""
    timeout = conninfo_to_dict(conninfo.decode()).get("connect_timeout")
    deadline = time.monotonic() + float(timeout) if timeout and float(timeout) > 0 else None
    state = pq.PollingStatus.WRITING
    while connection.status != pq.ConnStatus.BAD and state in WANTED:
        left = None if deadline is None else deadline - time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(connection.socket, WANTED[state])
            if (left is not None and left <= 0) or not selector.select(left):
                connection.finish()
                raise Disconnected(f"no connection within {timeout} s")
        state = pq.PollingStatus(connection.connect_poll())


def _error(result: Any) -> DatabaseError:
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE) or b"XX000"
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return DatabaseError(sqlstate.decode(), message.decode(errors="replace"))
