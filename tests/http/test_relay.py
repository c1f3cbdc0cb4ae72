"""What an application sends in a transaction of its own: it exists if that commits, once, in order, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from psycopg import sql

from perdure import (
    Context,
    Endpoint,
    ObjectContext,
    Service,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.protocol.ids import format_id, idempotent_id, parse_id, workflow_id
from perdure.protocol.limits import DEFAULTS, Limits
from runtime.errors import DatabaseError, Disconnected
from runtime.ingress import relay as relays
from runtime.ingress.paths import Paths
from runtime.ingress.relay import Relay
from runtime.operations import UnknownInvocation, operations
from runtime.store import outbox
from runtime.store.link import Link
from tests.support.faults import SESSION_ENDS, Faults, refusal
from tests.support.world import World

Connection = psycopg.AsyncConnection[Any]


class Mailbox(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, text: str) -> int:
        letters = await ctx.get("letters", list[str]) or []
        ctx.set("letters", [*letters, text])
        return len(letters) + 1


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello {name}"

    @handler
    async def size(self, ctx: Context, content: bytes) -> int:
        return len(content)

    @handler(private=True)
    async def whisper(self, ctx: Context) -> None:
        return None


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, mail: str) -> str:
        return f"{mail} {await ctx.promise('word', str)}"

    @handler
    async def confirm(self, ctx: WorkflowSharedContext, word: str) -> None:
        await ctx.promise("word", str).resolve(word)


class Staffed:
    """A world with a relay, and an application's connection to its database."""

    def __init__(self, world: World, application: Connection) -> None:
        self.world = world
        self.application = application
        self._tasks: list[asyncio.Task[None]] = []

    def start_relay(self) -> asyncio.Task[None]:
        operations = self.world.operations
        task = asyncio.create_task(Relay(operations, self.world.database, lambda: Paths(operations.registry)).run())
        self._tasks.append(task)
        return task

    async def stop_relays(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def send(self, arguments: str, *parameters: Any, connection: Connection | None = None) -> str:
        """`SELECT perdure_send(...)`, in whatever transaction the application has open."""
        answer = await (connection or self.application).execute(f"SELECT perdure_send({arguments})", parameters)
        row = await answer.fetchone()
        assert row is not None
        return str(row[0])

    async def letters(self, who: str) -> list[str]:
        return list((await self.world.state("Mailbox", who)).get("letters", []))

    async def drained(self) -> None:
        async def is_empty() -> bool:
            return await self.world.leftovers("outbox") == {}

        await self.world.until(is_empty)
        await self.world.settle()


@pytest.fixture
def sockets() -> Iterator[Path]:
    with TemporaryDirectory(prefix="pd-") as directory:
        yield Path(directory)


@pytest.fixture
async def staffed(database: str, sockets: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Staffed]:
    monkeypatch.setattr(relays, "RECONNECT", 0.01)
    monkeypatch.setattr(relays, "PATIENCE", 0.05)
    monkeypatch.setattr(operations, "POLL", 0.05)
    async with (
        World(database, sockets, Endpoint(Mailbox, Greeter, Signup)) as world,
        await psycopg.AsyncConnection.connect(database) as application,
    ):
        staffed = Staffed(world, application)
        yield staffed
        await staffed.stop_relays()


# If and only if


async def test_what_was_committed_is_done_and_answers_under_its_id(staffed: Staffed) -> None:
    staffed.start_relay()
    id = await staffed.send("'Greeter', 'greet', '\"Mary\"'")
    await staffed.application.commit()
    assert await staffed.world.answer_of(id) == "Hello Mary"


async def test_the_id_is_known_as_soon_as_the_application_has_committed(staffed: Staffed) -> None:
    id = await staffed.send("'Greeter', 'greet', '\"Mary\"'")
    with pytest.raises(UnknownInvocation):
        await staffed.world.operations.output(parse_id(id))
    await staffed.application.commit()
    assert await staffed.world.operations.output(parse_id(id)) is None
    staffed.start_relay()
    assert await staffed.world.answer_of(id) == "Hello Mary"


async def test_what_was_rolled_back_never_was(staffed: Staffed) -> None:
    staffed.start_relay()
    await staffed.send("'Mailbox', 'put', '\"lost\"', 'Mary'")
    await staffed.application.rollback()
    await staffed.send("'Mailbox', 'put', '\"kept\"', 'Mary'")
    await staffed.application.commit()
    await staffed.drained()
    assert await staffed.letters("Mary") == ["kept"]


async def test_a_savepoint_that_is_rolled_back_takes_only_its_own_with_it(staffed: Staffed) -> None:
    staffed.start_relay()
    await staffed.send("'Mailbox', 'put', '\"before\"', 'Mary'")
    with contextlib.suppress(psycopg.errors.UndefinedObject):
        async with staffed.application.transaction():
            await staffed.send("'Mailbox', 'put', '\"within\"', 'Mary'")
            await staffed.send("'Nobody', 'put'")
    await staffed.send("'Mailbox', 'put', '\"after\"', 'Mary'")
    await staffed.application.commit()
    await staffed.drained()
    assert await staffed.letters("Mary") == ["before", "after"]


async def test_an_application_without_a_transaction_sends_with_each_statement(staffed: Staffed) -> None:
    staffed.start_relay()
    await staffed.application.set_autocommit(True)
    id = await staffed.send("'Greeter', 'greet', '\"Mary\"'")
    assert await staffed.world.answer_of(id) == "Hello Mary"


async def test_an_application_that_is_killed_before_its_commit_has_sent_nothing(staffed: Staffed) -> None:
    staffed.start_relay()
    program = (
        "import psycopg, sys\n"
        "connection = psycopg.connect(sys.argv[1])\n"
        "connection.execute('''SELECT perdure_send('Mailbox', 'put', '\"lost\"', 'Mary')''')\n"
        "print('sent', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, staffed.world.database, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"sent\n"
    process.kill()
    await process.wait()
    await staffed.send("'Mailbox', 'put', '\"kept\"', 'Mary'")
    await staffed.application.commit()
    await staffed.drained()
    assert await staffed.letters("Mary") == ["kept"]


FAULTS = [refusal("40001"), refusal("53100"), SESSION_ENDS]


@pytest.mark.parametrize("fault", FAULTS, ids=["conflict", "full disk", "session ends"])
async def test_a_relay_that_breaks_off_at_any_statement_does_each_message_once(
    staffed: Staffed, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(staffed.world.operations, staffed.world.database, lambda: Paths(staffed.world.operations.registry))
    faults = Faults(monkeypatch)
    sent = []
    number = 0
    met = True
    while met:
        number += 1
        await staffed.send("'Mailbox', 'put', %s, 'Mary', null, %s", f'"{number}"', f"once-{number}")
        await staffed.send("'Mailbox', 'put', %s, 'Mary'", f'"{number}!"')
        await staffed.application.commit()
        sent += [f"{number}", f"{number}!"]
        await _meet(relay, staffed, faults, number, fault)
        met = faults.disarm()
    assert number > 10
    staffed.start_relay()
    await staffed.drained()
    assert await staffed.letters("Mary") == sent


async def _meet(relay: Relay, staffed: Staffed, faults: Faults, number: int, fault: Any) -> None:
    """One batch on a link of its own, which meets the fault at the statement of this number, if it has so many."""
    link = await Link.connect(staffed.world.database)
    run = outbox.relay

    async def armed(*arguments: Any) -> None:
        faults.arm(number, fault, only=link)
        await run(*arguments)

    with contextlib.suppress(Disconnected, DatabaseError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "relay", armed)
        await relay._look(link)
    link.close()


# In order


async def test_one_transaction_and_one_session_after_another_keep_their_order(staffed: Staffed) -> None:
    for _ in range(2):
        staffed.start_relay()

    async def application(name: str) -> list[str]:
        sent = []
        async with await psycopg.AsyncConnection.connect(staffed.world.database) as connection:
            for turn in range(15):
                for letter in ("a", "b"):
                    sent.append(f"{name}{turn}{letter}")
                    await staffed.send("'Mailbox', 'put', %s, 'all'", f'"{sent[-1]}"', connection=connection)
                await connection.commit()
        return sent

    everything = await asyncio.gather(*(application(name) for name in "xyz"))
    await staffed.drained()
    letters = await staffed.letters("all")
    assert len(letters) == sum(map(len, everything))
    for sent in everything:
        assert [letter for letter in letters if letter[0] == sent[0][0]] == sent


async def test_what_comes_to_light_late_is_found_below_what_was_taken(staffed: Staffed) -> None:
    staffed.start_relay()
    late = await psycopg.AsyncConnection.connect(staffed.world.database)
    async with late:
        await staffed.send("'Mailbox', 'put', '\"late\"', 'Mary'", connection=late)
        for number in range(30):
            await staffed.send("'Mailbox', 'put', %s, 'Mary'", f'"{number}"')
            await staffed.application.commit()
            await staffed.drained()
        await late.commit()
        await staffed.drained()
    assert await staffed.letters("Mary") == [*map(str, range(30)), "late"]


async def test_more_than_a_batch_is_relayed_in_order(staffed: Staffed) -> None:
    await staffed.application.execute(
        "SELECT perdure_send('Mailbox', 'put', to_jsonb(n::text), 'Mary') FROM generate_series(1, %s) AS n",
        [outbox.BATCH + 7],
    )
    await staffed.application.commit()
    staffed.start_relay()
    await staffed.drained()
    assert await staffed.letters("Mary") == [str(n) for n in range(1, outbox.BATCH + 8)]


async def test_what_one_statement_sends_for_the_same_moment_arrives_in_order(staffed: Staffed) -> None:
    await staffed.application.execute(
        "SELECT perdure_send('Mailbox', 'put', to_jsonb(nth::text), key => 'Mary', delay => '0.3 seconds')"
        " FROM generate_series(1, 50) AS nth"
    )
    await staffed.application.commit()
    staffed.start_relay()
    await staffed.drained()
    assert await staffed.letters("Mary") == [str(nth) for nth in range(1, 51)]


async def test_a_delay_counts_from_the_call_by_the_databases_clock(staffed: Staffed) -> None:
    staffed.start_relay()
    id = await staffed.send("'Mailbox', 'put', '\"later\"', 'Mary', '0.3 s'")
    due = await (await staffed.application.execute("SELECT clock_timestamp() + interval '0.3 s'")).fetchone()
    await staffed.application.commit()
    await staffed.world.until_status(id, "scheduled")
    await staffed.drained()
    ((began,),) = await staffed.world.rows("SELECT completed_at FROM done")
    assert due is not None
    assert (began - due[0]).total_seconds() > -0.1


# Once


async def test_an_idempotency_key_makes_one_of_many(staffed: Staffed) -> None:
    once = format_id(idempotent_id("Mailbox", "Mary", "put", "order-1"))
    staffed.start_relay()
    for text in ("first", "second"):
        for _ in range(2):
            assert await staffed.send("'Mailbox', 'put', %s, 'Mary', null, 'order-1'", f'"{text}"') == once
        await staffed.application.commit()
        await staffed.drained()
    assert await staffed.world.call("Mailbox/Mary/put", "third", once="order-1") == 1
    assert await staffed.letters("Mary") == ["first"]


async def test_a_workflow_is_sent_once_for_each_key_and_told_something(staffed: Staffed) -> None:
    staffed.start_relay()
    ids = {await staffed.send("'Signup', 'run', '\"mary@example.com\"', 'mary'") for _ in range(2)}
    assert ids == {format_id(workflow_id("Signup", "mary"))}
    await staffed.send("'Signup', 'confirm', '\"yes\"', 'mary', idempotency_key => 'once'")
    await staffed.application.commit()
    assert await staffed.world.answer_of(ids.pop()) == "mary@example.com yes"


async def test_a_message_that_cannot_begin_is_no_run_of_its_workflow(staffed: Staffed) -> None:
    staffed.start_relay()
    id = await staffed.send("'Signup', 'run', '17', 'mary'")
    await staffed.application.commit()
    await staffed.drained()
    with pytest.raises(TerminalError):
        await staffed.world.answer_of(id)
    assert await staffed.send("'Signup', 'run', '\"mary@example.com\"', 'mary'") == id
    await staffed.send("'Signup', 'run', '17', 'mary'")
    await staffed.send("'Signup', 'confirm', '\"yes\"', 'mary'")
    await staffed.application.commit()
    await staffed.drained()
    assert await staffed.world.answer_of(id) == "mary@example.com yes"


async def test_a_key_is_not_used_up_by_a_message_that_cannot_begin(staffed: Staffed) -> None:
    staffed.start_relay()
    once = await staffed.send("'Mailbox', 'put', '3', 'Mary', null, 'order-1'")
    await staffed.application.commit()
    with pytest.raises(TerminalError, match="does not fit"):
        await staffed.world.answer_of(once)
    assert await staffed.send("'Mailbox', 'put', '\"good\"', 'Mary', null, 'order-1'") == once
    await staffed.application.commit()
    await staffed.drained()
    assert await staffed.letters("Mary") == ["good"]


# What is wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("'Nobody', 'put'", 'There is no service "Nobody"'),
        ("null, 'put'", "There is no service"),
        ("'Greeter', 'meet'", 'The service "Greeter" has no handler "meet"'),
        ("'Greeter', 'whisper'", "private"),
        ("'Greeter', 'greet', '1', 'Mary'", '"greet" takes no key'),
        ("'Mailbox', 'put', '1'", '"put" needs a key'),
        ("'Signup', 'run', '1'", '"Signup" is a workflow: "run" needs a key'),
        ("'Signup', 'run', '1', 'mary', null, 'order-1'", "takes no idempotency key"),
        ("'Mailbox', 'put', '1', ''", "A key must not be empty"),
        ("'Mailbox', 'put', '1', repeat('é', 257)", "512 bytes of UTF-8: this one has 514"),
        ("'Mailbox', 'put', '1', 'Mary', null, ''", "An idempotency key must not be empty"),
        ("'Mailbox', 'put', '1', 'Mary', '11 years'", "too long"),
        (f"'Greeter', 'greet', to_jsonb(repeat('x', {DEFAULTS.payload}))", f"may have {DEFAULTS.payload} bytes"),
    ],
)
async def test_what_is_known_to_be_wrong_is_refused_at_once(staffed: Staffed, arguments: str, words: str) -> None:
    with pytest.raises(psycopg.Error, match=words):
        await staffed.send(arguments)
    await staffed.application.rollback()
    assert await staffed.world.leftovers("outbox") == {}


async def test_a_payload_that_does_not_fit_is_a_failed_invocation_and_keeps_nobody_waiting(staffed: Staffed) -> None:
    bad = await staffed.send("'Mailbox', 'put', '3', 'Mary'")
    await staffed.send("'Mailbox', 'put', '\"good\"', 'Mary'")
    await staffed.application.commit()
    staffed.start_relay()
    await staffed.drained()
    assert await staffed.letters("Mary") == ["good"]
    assert await staffed.world.outcome(bad) == "failed"
    with pytest.raises(TerminalError, match="does not fit") as error:
        await staffed.world.answer_of(bad)
    assert error.value.code == 400


async def test_why_a_payload_does_not_fit_is_told_without_the_payload(staffed: Staffed) -> None:
    bad = await staffed.send("""'Mailbox', 'put', '{"card": "4111"}', 'Mary'""")
    await staffed.application.commit()
    staffed.start_relay()
    words = r'does not fit Mailbox/put: at \$: the value is not of type "string"'
    with pytest.raises(TerminalError, match=words) as error:
        await staffed.world.answer_of(bad)
    assert "4111" not in str(error.value)


async def test_a_payload_that_is_too_large_here_is_a_failed_invocation(staffed: Staffed) -> None:
    staffed.world.operations.limits = Limits(payload=1000)
    large = await staffed.send("'Greeter', 'greet', to_jsonb(repeat('x', 999))")
    await staffed.application.commit()
    staffed.start_relay()
    with pytest.raises(TerminalError, match=r"has 1001 bytes, and may have 1000 \(PERDURE_LARGEST_PAYLOAD\)") as error:
        await staffed.world.answer_of(large)
    assert error.value.code == 413


async def test_a_handler_that_has_gone_meanwhile_leaves_a_failed_invocation(staffed: Staffed) -> None:
    gone = await staffed.send("'Greeter', 'greet', '\"Mary\"'")
    await staffed.application.commit()
    await staffed.world.sql.execute("DELETE FROM service WHERE name = 'Greeter'")
    staffed.start_relay()
    with pytest.raises(TerminalError, match="no service 'Greeter'") as error:
        await staffed.world.answer_of(gone)
    assert error.value.code == 404


async def test_what_the_database_refuses_alone_is_a_failed_invocation(staffed: Staffed) -> None:
    await staffed.world.sql.execute("ALTER TABLE invocation ADD CONSTRAINT no_poison CHECK (key <> 'poison')")
    ids = [await staffed.send("'Mailbox', 'put', '\"Hi\"', %s", key) for key in ("a", "b", "poison", "c", "d")]
    await staffed.application.commit()
    staffed.start_relay()
    await staffed.drained()
    assert [await staffed.world.outcome(id) for id in ids] == ["succeeded"] * 2 + ["failed"] + ["succeeded"] * 2


async def test_a_locked_key_delays_only_itself_and_keeps_its_order(staffed: Staffed) -> None:
    await staffed.world.sql.execute(
        "INSERT INTO object_key (service, key, queue) VALUES ('Mailbox', 'held', 'default')"
    )
    await staffed.world.sql.execute("INSERT INTO ready (queue, service, key) VALUES ('default', 'Mailbox', 'held')")
    async with await psycopg.AsyncConnection.connect(staffed.world.database) as holder:
        await holder.execute("SELECT FROM object_key WHERE key = 'held' FOR UPDATE")
        for number in range(3):
            await staffed.send("'Mailbox', 'put', %s, 'held'", f'"{number}"')
            await staffed.send("'Mailbox', 'put', %s, 'free'", f'"{number}"')
        await staffed.application.commit()
        staffed.start_relay()

        async def are_done() -> bool:
            return await staffed.letters("free") == ["0", "1", "2"]

        await staffed.world.until(are_done)
        assert len((await staffed.world.leftovers("outbox"))["outbox"]) == 3
        await holder.rollback()
    await staffed.drained()
    assert await staffed.letters("held") == ["0", "1", "2"]


# Applications


async def test_bytes_travel_as_they_are(staffed: Staffed) -> None:
    staffed.start_relay()
    row = await (
        await staffed.application.execute("SELECT perdure_send_bytes('Greeter', 'size', %s::bytea)", [b"\0\xff\n"])
    ).fetchone()
    await staffed.application.commit()
    assert row is not None
    assert await staffed.world.answer_of(row[0]) == 3


async def test_an_applications_own_role_may_send_when_it_was_granted_that_and_nothing_else(staffed: Staffed) -> None:
    role = sql.Identifier(f"app_{os.getpid()}")
    admin = staffed.world.sql
    await admin.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        await staffed.application.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(role))
        await staffed.application.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await staffed.send("'Greeter', 'greet', '\"Mary\"'")
        await staffed.application.rollback()
        await admin.execute(sql.SQL("GRANT EXECUTE ON FUNCTION perdure_send, perdure_send_bytes TO {}").format(role))
        staffed.start_relay()
        id = await staffed.send("'Greeter', 'greet', '\"Mary\"'")
        await staffed.application.commit()
        assert await staffed.world.answer_of(id) == "Hello Mary"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await staffed.application.execute("SELECT * FROM outbox")
        await staffed.application.rollback()
    finally:
        await staffed.application.close()
        await admin.execute(sql.SQL("DROP OWNED BY {}").format(role))
        await admin.execute(sql.SQL("DROP ROLE {}").format(role))
