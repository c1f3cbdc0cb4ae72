"""A world: engines, and the hall that callers come through, in the test's own process, on a database of the test's.

Engines can be killed: their tasks end and their connections close without a word, as a kill -9 would have it, and
nothing is given back. When a world ends, everything that it accepted must have ended, once, and left nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import msgspec
import psycopg

from perdure import Endpoint, TerminalError
from perdure.protocol.ids import format_id, parse_id
from perdure.protocol.limits import DEFAULTS
from perdure.protocol.messages import Failure, Value
from runtime import editing, steering
from runtime.core.access import Actor, Role
from runtime.core.edits import Edit
from runtime.discovery import deployment_id
from runtime.editing import Edited
from runtime.engine.engine import Engine
from runtime.engine.memory import Code
from runtime.engine.runner import code_of
from runtime.operations import Operations, Submission
from runtime.store import adoption, deployments, owners
from runtime.store.drained import Drain
from runtime.store.link import Link
from runtime.store.restart import Restarted

TESTER = Actor("tester", Role.ADMIN, "tests")
TOKEN = b"of this test run"
WITHIN = 15.0  # seconds for what takes milliseconds on a quiet machine

LEFT_BY_INVOCATIONS = ("claimed", "inbox", "mail", "ready", "timer", "waiter")


class Member:
    """One engine of a world."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_attached = True
        self.is_mourned = False  # its end, however it comes, is meant
        self.task = asyncio.create_task(engine.run())

    @property
    def id(self) -> UUID:
        return UUID(bytes=self.engine.id)

    @property
    def is_alive(self) -> bool:
        return not self.task.done()

    async def stop(self) -> None:
        """Ask it to stop, as a worker that shuts down does."""
        self.engine.stop()
        await self.task

    async def kill(self) -> None:
        """Let it drop dead: whatever it has in its hands stays where it is."""
        if self.is_alive:
            self.is_mourned = True
            self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def check(self) -> None:
        """Fail the test when it has died by itself."""
        if self.task.done() and not self.is_mourned:
            self.task.result()


class World:
    """One engine for each endpoint that is given, and who calls them."""

    def __init__(self, database: str, sockets: Path, *endpoints: Endpoint) -> None:
        self.database = database
        self._sockets = sockets
        self._endpoints = endpoints
        self._is_open = False
        self.limits = DEFAULTS
        self.operations = Operations(database, TOKEN)
        self.members: list[Member] = []
        self.accepted: list[str] = []
        """What was sent, and the calls that have ended."""

    # Its life

    async def __aenter__(self) -> Self:
        self.sql = await psycopg.AsyncConnection.connect(self.database, autocommit=True)
        try:
            for endpoint in dict.fromkeys(self._endpoints):
                await self.register(endpoint)
            for endpoint in self._endpoints:
                await self.start_engine(endpoint)
            await self.operations.start()
        except BaseException:
            await self._close()
            raise
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.settle()
                await asyncio.gather(*(member.stop() for member in self.members if member.is_alive))
                left = await self.leftovers("object_key", *LEFT_BY_INVOCATIONS)
                assert not left, f"left behind: {left}, of the engines {await self.rows('SELECT * FROM engine')}"
        finally:
            await self._close()
        if error is None:
            for member in self.members:
                member.check()

    async def _close(self) -> None:
        for member in self.members:
            await member.kill()
        if self._is_open:
            await self.operations.stop()
        await self.sql.close()

    async def register(self, endpoint: Endpoint) -> str:
        """Let an endpoint take the new invocations of its services; answers the deployment's id."""
        id = deployment_id(endpoint)
        link = await Link.connect(self.database)
        await deployments.store_deployment(link, id=id, location="tests:app", manifest=endpoint.manifest(), force=True)
        link.close()
        if self._is_open:
            await self.until(lambda: self._knows(endpoint))
        return id

    async def _knows(self, endpoint: Endpoint) -> bool:
        known = (await self.operations.refresh_registry()).services
        return all(service.name in known for service in endpoint.manifest().services)

    async def start_engine(
        self,
        *endpoints: Endpoint,
        deployment: str | None = None,
        code: Sequence[Code] = (),
        is_drained: bool = False,
        is_mourned: bool = False,
    ) -> Member:
        """A further engine, which has loaded these endpoints, ready to be given work; `deployment` is its name for
        code that is not what its name says. Raises what it dies of meanwhile."""
        engine = Engine(
            self.database,
            queues=["default"],
            code=[
                *(code_of(endpoint, deployment or deployment_id(endpoint), self.limits) for endpoint in endpoints),
                *code,
            ],
            sockets=str(self._sockets),
            token=TOKEN,
            is_attached=lambda: member.is_attached,
            stuck_after=600,
            most_bytes=2**40,
            limits=self.limits,
            is_drained=is_drained,
        )
        member = Member(engine)
        member.is_mourned = is_mourned
        self.members.append(member)

        async def is_known() -> bool:
            if not member.is_alive:
                member.task.result()
            # Its pulse says the same half a second later.
            updated = await self.sql.execute(
                "UPDATE heartbeat SET attached = true, room = 1000 WHERE engine = %s", [member.id]
            )
            return updated.rowcount == 1

        await self.until(is_known)
        return member

    async def adopt(self) -> None:
        """Let what waits for code that nobody has any more go on with the newest, without the usual patience."""
        link = await Link.connect(self.database)
        await self.until(lambda: adoption.adopt(link, patience=0))
        link.close()

    async def bury(self, member: Member) -> None:
        """Declare an engine dead, as its watchers would; it may still think otherwise."""
        member.is_mourned = True
        link = await Link.connect(self.database)
        await owners.bury(link, member.engine.id)
        link.close()

    # Callers

    async def call(self, target: str, argument: Any = msgspec.UNSET, *, once: str | None = None) -> Any:
        """Call `Service/handler` or `Object/key/handler` and await the answer; raises TerminalError."""
        submission = self._submission(target, argument, once)
        async with asyncio.timeout(WITHIN):
            ended = await self.operations.call(submission)
        self.accepted.append(format_id(ended.id))
        return answer(ended.result)

    async def send(self, target: str, argument: Any = msgspec.UNSET, *, due: int = 0, once: str | None = None) -> str:
        """Send, to be begun now or when it is due (milliseconds since the epoch); answers the invocation's id."""
        submission = self._submission(target, argument, once, due)
        async with asyncio.timeout(WITHIN):
            accepted = await self.operations.send(submission)
        id = format_id(accepted.id)
        self.accepted.append(id)
        return id

    async def answer_of(self, id: str) -> Any:
        """What an invocation ends with; raises TerminalError."""
        async with asyncio.timeout(WITHIN):
            ended = await self.operations.attach(parse_id(id))
        return answer(ended.result)

    async def cancel(self, id: str) -> steering.Word:
        return await self._tell(steering.Verb.CANCEL, id)

    async def kill(self, id: str) -> steering.Word:
        return await self._tell(steering.Verb.KILL, id)

    async def pause(self, id: str) -> steering.Word:
        return await self._tell(steering.Verb.PAUSE, id)

    async def resume(self, id: str, deployment: str = steering.KEEP) -> steering.Word:
        """Let a paused or backing-off invocation be tried again."""
        return await self._tell(steering.Verb.RESUME, id, deployment)

    async def purge(self, id: str) -> steering.Word:
        return await self._tell(steering.Verb.PURGE, id)

    async def restart(self, id: str, last: int = 0, deployment: str | None = None) -> tuple[Restarted, str]:
        """Do it again, from an entry of its journal on; answers the new one's id with the word."""
        found = await steering.restart(self.operations, parse_id(id), TESTER, last, deployment)
        if found.new is None:
            return found.word, ""
        self.accepted.append(format_id(found.new))
        return found.word, format_id(found.new)

    async def _tell(self, verb: steering.Verb, id: str, deployment: str = steering.KEEP) -> steering.Word:
        return await steering.tell(self.operations, verb, parse_id(id), TESTER, deployment)

    # Operators

    async def drain(self, *members: Member) -> None:
        """Let engines take nothing new; returns when they know."""
        for member in members:
            assert await steering.drain_engine(self.operations, member.id, TESTER) is Drain.DRAINED
        await self.until(lambda: _all(member.engine.is_drained for member in members))
        await self.operations._refresh()

    async def let_work(self, *members: Member) -> None:
        """Let engines that were drained take work again."""
        for member in members:
            assert await steering.resume_engine(self.operations, member.id, TESTER) is Drain.RESUMED

    async def drain_queue(self) -> None:
        """Let nothing new of the engines' queue begin; returns when they know."""
        assert await steering.drain_queue(self.operations, "default", TESTER) is Drain.DRAINED
        living = [member for member in self.members if member.is_alive]
        await self.until(lambda: _all(member.engine.memory.drained.queues for member in living))
        await self.operations._refresh()

    async def resume_queue(self) -> None:
        assert await steering.resume_queue(self.operations, "default", TESTER) is Drain.RESUMED

    async def edit(
        self,
        object: str,
        values: Mapping[str, Any],
        *,
        clear: Sequence[str] = (),
        version: str | None = None,
        replaces: bool = False,
        patience: float = WITHIN,
    ) -> Edited:
        """Change the values of `Object/key` as an operator; answers what came of it within the patience."""
        service, key = object.split("/")
        wanted = Edit(
            by=TESTER.name,
            expected=version,
            set={name: msgspec.json.encode(value) for name, value in values.items()},
            clear=list(clear),
            replaces=replaces,
        )
        edited = await editing.edit(self.operations, service, key, wanted, TESTER, patience=patience)
        self.accepted.append(format_id(edited.id))
        return edited

    # What has become of it

    async def status(self, id: str) -> str:
        """Where an invocation stands: a status, or `completed`."""
        rows = await self.rows("SELECT status FROM invocation WHERE id = %s", uuid(id))
        return str(rows[0][0]) if rows else "completed"

    async def outcome(self, id: str) -> str:
        """How an invocation ended, as history has it; waits for the end."""
        await self.until_status(id, "completed")
        rows = await self.rows("SELECT outcome FROM done WHERE id = %s", uuid(id))
        assert len(rows) == 1, f"{id} has {len(rows)} ends"
        return str(rows[0][0])

    async def failure(self, id: str) -> dict[str, Any]:
        """The last failed attempt of an invocation under way."""
        ((failure,),) = await self.rows("SELECT failure FROM invocation WHERE id = %s", uuid(id))
        return dict(failure)

    async def failed_attempts(self, id: str) -> int:
        """How many attempts of an invocation have failed, whatever has become of it."""
        query = "SELECT failed_attempts FROM {} WHERE id = %s"
        alive = await self.rows(query.format("invocation"), uuid(id))
        ((count,),) = alive or await self.rows(query.format("done"), uuid(id))
        return int(count)

    async def state(self, service: str, key: str) -> dict[str, Any]:
        """An object's committed values."""
        rows = await self.rows("SELECT name, value FROM state WHERE service = %s AND key = %s", service, key)
        return {name: msgspec.json.decode(value) for name, value in rows}

    async def newest(self, service: str, key: str | None = None) -> str:
        """The id of the youngest invocation under way; waits for one."""

        async def there_is() -> list[Any]:
            return await self.rows(
                "SELECT id FROM invocation WHERE service = %s AND (%s::text IS NULL OR key = %s) ORDER BY id DESC",
                service, key, key,
            )  # fmt: skip

        rows = await self.until(there_is)
        return format_id(rows[0][0].bytes)

    async def leftovers(self, *tables: str) -> dict[str, list[Any]]:
        """The rows of those tables that are not empty.

        The timer of a sleep that nobody sleeps any more is let run out: then it finds nobody, and is gone.
        """
        found = {table: await self.rows(f"SELECT * FROM {table}") for table in tables}
        if timers := found.get("timer"):
            living = {row[0] for row in await self.rows("SELECT id FROM invocation")}
            found["timer"] = [row for row in timers if row[1] in living]
        return {table: rows for table, rows in found.items() if rows}

    async def settle(self) -> None:
        """Wait until all that was accepted has ended; each must have done so once, and nothing be left of it."""

        async def is_all_over() -> bool:
            return await self.leftovers("invocation", *LEFT_BY_INVOCATIONS) == {}

        try:
            await self.until(is_all_over)
        except TimeoutError:
            left = await self.leftovers("invocation", "object_key", *LEFT_BY_INVOCATIONS)
            raise AssertionError(f"left over: {left}") from None
        ends = [row[0] for row in await self.rows("SELECT id FROM done")]
        assert len(ends) == len(set(ends)), "something has ended twice"
        lost = {uuid(id) for id in self.accepted} - set(ends)
        assert not lost, f"accepted and lost: {lost}"

    async def rows(self, query: str, *parameters: Any) -> list[Any]:
        return await (await self.sql.execute(query, parameters)).fetchall()

    # Waiting

    async def until(self, condition: Callable[[], Awaitable[Any]], *, within: float = WITHIN) -> Any:
        """The first true answer; raises TimeoutError, or whatever an engine of ours has died of."""
        async with asyncio.timeout(within):
            while not (found := await condition()):
                for member in self.members:
                    member.check()
                await asyncio.sleep(0.01)
            return found

    async def until_status(self, id: str, *wanted: str) -> None:
        """Wait until an invocation stands so."""

        async def stands_so() -> bool:
            return await self.status(id) in wanted

        try:
            await self.until(stands_so)
        except TimeoutError:
            raise AssertionError(f"{id} is {await self.status(id)}, not {' or '.join(wanted)}") from None

    def _submission(self, target: str, argument: Any, once: str | None, due: int = 0) -> Submission:
        service, *key, handler = target.split("/")
        body = b"" if argument is msgspec.UNSET else msgspec.json.encode(argument)
        registry = self.operations.registry
        return Submission(
            registry.resolve(service, handler), key[0] if key else None, body, idempotency_key=once, due=due
        )


def answer(result: Value | Failure) -> Any:
    """What a caller gets; raises TerminalError."""
    if isinstance(result, Failure):
        raise TerminalError(result.message, code=result.code, metadata=dict(result.metadata))
    return msgspec.json.decode(result.content) if result.content else None


def uuid(id: str) -> UUID:
    return UUID(bytes=parse_id(id))


async def _all(conditions: Iterable[object]) -> bool:
    return all(conditions)


class Gate:
    """Where handlers wait inside a `ctx.run` until the test opens it, and how many have come."""

    def __init__(self) -> None:
        self.arrived = 0
        self._opened = asyncio.Event()
        self._arrival = asyncio.Condition()

    async def wait(self) -> None:
        async with self._arrival:
            self.arrived += 1
            self._arrival.notify_all()
        await self._opened.wait()

    def open(self) -> None:
        self._opened.set()

    async def reached(self, times: int = 1) -> None:
        """Wait until a handler has come to it, for the nth time."""
        async with asyncio.timeout(WITHIN), self._arrival:
            await self._arrival.wait_for(lambda: self.arrived >= times)
