"""Sessions on one database, interleaved by hand: a transaction is held open until another really waits for it.

Links are patient here (a second would be short on a busy machine): what waits is let go by the test, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

import psycopg

from runtime.core.changes import Changes, Completed, Creation, Mail, Parked
from runtime.core.invocation import Invocation, Mode, Outcome, Status
from runtime.store import commit as commits
from runtime.store import owners
from runtime.store.claim import Claim, Key
from runtime.store.commit import Receipt
from runtime.store.link import Link, Pipeline, Statement, whole

T = TypeVar("T")

WITHIN = 15.0  # seconds for what takes milliseconds on a quiet machine
DAY = 86_400
QUEUE = "default"

PATIENT = (
    Statement("SET lock_timeout = '30s'"),
    Statement("SET idle_in_transaction_session_timeout = '30s'"),
)

_numbers = itertools.count(1)


class Sessions:
    """Opens sessions and closes them with the test; asks the database what has become of it."""

    def __init__(self, database: str) -> None:
        self.database = database
        self._links: list[Link] = []
        self._connections: list[psycopg.AsyncConnection] = []
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        self._watch = await psycopg.AsyncConnection.connect(self.database, autocommit=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            await connection.close()
        for link in self._links:
            link.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watch.close()

    async def link(self, *, name: str = "", patient: bool = True) -> Link:
        """One of our hot connections, with an application name; as impatient as in earnest only when asked."""
        conninfo = psycopg.conninfo.make_conninfo(self.database, application_name=name)
        link = await Link.connect(conninfo)
        self._links.append(link)
        if patient:
            pipeline = Pipeline()
            for setting in PATIENT:
                pipeline.call(setting)
            await link.run(pipeline)
        return link

    async def connection(self) -> psycopg.AsyncConnection:
        """Anybody's: its first statement begins a transaction."""
        connection = await psycopg.AsyncConnection.connect(self.database)
        self._connections.append(connection)
        return connection

    async def engine(self, *, backends: Sequence[int] = (), lock_key: int = 0) -> bytes:
        """A living engine's row."""
        id = uuid4().bytes
        await owners.register(
            await self.link(),
            id=id, host="here", pid=1, address="nowhere", queues=[QUEUE], deployments=["code"],
            lock_key=lock_key, backends=backends,
        )  # fmt: skip
        return id

    # Interleaving

    async def blocked(
        self, work: Coroutine[Any, Any, T], waiting: Link, by: Link | psycopg.AsyncConnection
    ) -> asyncio.Task[T]:
        """Start `work`, and return when it waits for a lock of the other session."""
        holder = by.backend_pid if isinstance(by, Link) else by.info.backend_pid
        task = self.start(work)
        async with asyncio.timeout(WITHIN):
            while not await self.value("SELECT %s = ANY (pg_blocking_pids(%s))", holder, waiting.backend_pid):
                assert not task.done(), f"it did not wait: {task.exception() or task.result()}"
                await asyncio.sleep(0.002)
        return task

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let it run beside the test, and no longer than it."""
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        return task

    # What has become of it

    async def rows(self, query: str, *parameters: Any) -> list[Any]:
        return await (await self._watch.execute(query, parameters)).fetchall()

    async def value(self, query: str, *parameters: Any) -> Any:
        """The one column of the one row."""
        ((value,),) = await self.rows(query, *parameters)
        return value

    async def execute(self, query: str, *parameters: Any) -> None:
        await self._watch.execute(query, parameters)

    async def count(self, table: str) -> int:
        return int(await self.value(f"SELECT count(*) FROM {table}"))

    async def status(self, invocation: Invocation) -> str:
        """Where it stands: a status, `completed`, or `unknown`."""
        found = await self.rows(
            "SELECT status FROM invocation WHERE id = %s UNION ALL SELECT 'completed' FROM done WHERE id = %s",
            UUID(bytes=invocation.id), UUID(bytes=invocation.id),
        )  # fmt: skip
        assert len(found) < 2, f"it is in two places: {found}"
        return str(found[0][0]) if found else "unknown"

    async def owner(self, invocation: Invocation) -> bytes | None:
        owner = await self.value("SELECT owner FROM invocation WHERE id = %s", UUID(bytes=invocation.id))
        return owner and bytes(owner.bytes)

    async def queued(self) -> list[Any]:
        """What waits for an engine, in order: invocations by their ids, keys as (service, key)."""
        found = await self.rows("SELECT invocation, service, key FROM ready ORDER BY position")
        return [(service, key) if id is None else id.bytes for id, service, key in found]

    async def inbox(self, key: Key) -> list[bytes]:
        found = await self.rows("SELECT invocation FROM inbox WHERE service = %s AND key = %s ORDER BY position", *key)
        return [id.bytes for (id,) in found]

    async def position(self, invocation: Invocation) -> int:
        return int(await self.value("SELECT position FROM inbox WHERE invocation = %s", UUID(bytes=invocation.id)))

    async def mail(self, invocation: Invocation) -> dict[int, bytes]:
        """Unread, by slot."""
        return dict(await self.rows("SELECT slot, frame FROM mail WHERE target = %s", UUID(bytes=invocation.id)))

    async def lease(self, key: Key) -> bytes | None:
        """The engine that leases a key; fails when the key has no row."""
        owner = await self.value("SELECT owner FROM object_key WHERE service = %s AND key = %s", *key)
        return owner and bytes(owner.bytes)


@contextlib.asynccontextmanager
async def open_flush(
    link: Link,
    *all_changes: Changes,
    engine: bytes | None = None,
    release: Sequence[Key] = (),
    wanted: Claim | None = None,
) -> AsyncIterator[Receipt]:
    """The very statements of a `commit`, all of them run, and committed when the block ends; undone if it fails."""
    receipt = Receipt()
    running, committing = Pipeline(), Pipeline()
    running.begin()
    running.calls += commits.statements(all_changes, receipt, engine, release, wanted).calls
    committing.commit()
    async with whole(link):
        await link.run(running)
        yield receipt
        await link.run(committing)


# Values -------------------------------------------------------------------------------------------------------------


def new_id() -> bytes:
    """Ids sort in the order in which they were made."""
    return next(_numbers).to_bytes(16, "big")


def service(*, caller: Invocation | None = None, once: str | None = None) -> Invocation:
    """An invocation without a key."""
    return Invocation(
        new_id(), "Greeter", "greet", None, Mode.SERVICE, QUEUE, b"input",
        caller=caller.id if caller else None, caller_completion=1 if caller else 0, idempotency_key=once,
    )  # fmt: skip


def letter(key: str = "k", *, caller: Invocation | None = None) -> Invocation:
    """An exclusive invocation of the object `Counter`."""
    return Invocation(
        new_id(), "Counter", "add", key, Mode.EXCLUSIVE, QUEUE, b"input",
        caller=caller.id if caller else None, caller_completion=1 if caller else 0,
    )  # fmt: skip


def key_of(invocation: Invocation) -> Key:
    assert invocation.key is not None
    return invocation.service, invocation.key


def born(*invocations: Invocation, owner: bytes | None = None, due: int = 0, token: bytes | None = None) -> Changes:
    return Changes(creations=[Creation(one, owner=owner, due=due, token=token) for one in invocations])


def begun(invocation: Invocation, *frames: bytes) -> Changes:
    """The first that the database hears of its start, with what it has done since."""
    return Changes(invocation, begun="code", first=1, frames=list(frames))


def told(target: Invocation, slot: int, frame: bytes = b"") -> Changes:
    return Changes(mails=[Mail(target.id, slot, frame)])


def parked(
    invocation: Invocation, status: Status = Status.SUSPENDED, *, waits: Sequence[int] = (), due: int = 0
) -> Changes:
    return Changes(invocation, ending=Parked(status, tuple(waits), due))


def ended(
    invocation: Invocation, *, position: int | None = None, result: bytes = b"result", retention: int = DAY
) -> Changes:
    """It has succeeded, and its caller is told."""
    changes = Changes(invocation, first=1, ending=Completed(Outcome.SUCCEEDED, result, retention, position))
    if invocation.caller is not None:
        changes.mails.append(Mail(invocation.caller, invocation.caller_completion, result))
    return changes
