"""Services behind HTTP that are killed, frozen or cut off, and engines and a database that die with them at work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest

from perdure.client import Client
from perdure.protocol.ids import parse_id
from runtime.servers import ports
from tests.support.far import Far, cable
from tests.support.servers import wait_until
from tests.support.stack import Stack

pytestmark = pytest.mark.servers

KINDS = ("run", "steps", "sleep", "call", "send", "delayed")
MODES = {"streams": (), "requests": ("--http11",)}

Harm = Callable[[Stack, Far], None]


def restart_service(system: Stack, far: Far) -> None:
    far.kill()
    far.start()


def kill_engines(system: Stack, far: Far) -> None:
    system.kill_engines()


def kill_postgres(system: Stack, far: Far) -> None:
    system.kill("postgres")


@pytest.fixture(scope="module")
def hosts(system: Stack) -> Iterator[dict[str, Far]]:
    """One for each way of driving it, registered."""
    hosts = {mode: Far(mode.capitalize(), system.directory) for mode in MODES}
    try:
        for mode, options in MODES.items():
            hosts[mode].start()
            system.manage("register", f"http://127.0.0.1:{hosts[mode].port}", *options)
        yield hosts
    finally:
        for far in hosts.values():
            far.kill()


@pytest.fixture(params=MODES)
def far(request: pytest.FixtureRequest, hosts: dict[str, Far]) -> Far:
    far = hosts[request.param]
    far.kill()  # whatever the test before has left
    far.start()
    return far


async def begin(client: Client, far: Far, kind: str, tag: str) -> str:
    handle = getattr(client.service_send(far.work), kind)(tag)
    return str(await handle.invocation_id())


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


async def totals(client: Client, far: Far, keys: list[str]) -> list[int]:
    return [await client.object(far.ledger, key).total() for key in keys]


async def all_is_done(system: Stack, far: Far) -> None:
    await asyncio.to_thread(system.wait_until_idle)
    left = "SELECT FROM timer JOIN done ON done.id = timer.invocation WHERE done.service IN (%s, %s)"
    assert system.query(left, far.work, far.ledger) == [], "timers are left behind"


@pytest.mark.parametrize("harm", [restart_service, kill_engines, kill_postgres])
async def test_killed_in_the_middle_of_every_kind_of_command_all_end_once(system: Stack, far: Far, harm: Harm) -> None:
    tags = {kind: f"{kind}-{uuid4().hex}" for kind in KINDS}
    key = uuid4().hex
    lines = [str(number) for number in range(30)]
    async with system.client() as client:
        ids = {kind: await begin(client, far, kind, tag) for kind, tag in tags.items()}
        await client.object_send(far.ledger, key).add_held(key).invocation_id()
        for line in lines:
            await client.object_send(far.ledger, key).note_down(line).invocation_id()
        reaching = [key, *tags.values()]
        await until(lambda: all(map(system.reached, reaching)))
        await asyncio.to_thread(harm, system, far)
        held = [tag for tag in reaching if tag != tags["sleep"]]
        await until(lambda: all(len(system.reached(tag)) > 1 for tag in held))
        system.release()
        assert {kind: await client.attach(id, str) for kind, id in ids.items()} == tags
        await all_is_done(system, far)
        assert await totals(client, far, reaching) == [1] * len(reaching)
        assert await client.object(far.ledger, key).lines() == lines
    assert len(system.reached(f"{tags['steps']}-first")) == 1, "a step that was done is done again"


@pytest.mark.parametrize("harm", [restart_service, kill_engines])
async def test_a_storm_of_kills_loses_and_doubles_nothing(system: Stack, far: Far, harm: Harm) -> None:
    system.release()
    tags = [uuid4().hex for _ in range(30)]
    async with system.client() as client:
        ids = []
        for number, tag in enumerate(tags):
            ids.append(await begin(client, far, "everything", tag))
            if number % 10 == 9:
                await asyncio.to_thread(harm, system, far)
        assert [await client.attach(id, str) for id in ids] == tags
        await all_is_done(system, far)
        assert await totals(client, far, tags) == [3] * len(tags)


async def test_a_service_that_is_down_for_a_while_finds_its_calls_when_it_is_back(system: Stack, far: Far) -> None:
    system.release()
    tags = [uuid4().hex for _ in range(20)]
    far.kill()
    async with system.client() as client:
        ids = [await begin(client, far, "everything", tag) for tag in tags]
        failed = f"SELECT FROM invocation WHERE service = '{far.work}' AND failure IS NOT NULL"
        await until(lambda: len(system.query(failed)) == len(tags))
        await asyncio.to_thread(far.start)
        assert [await client.attach(id, str) for id in ids] == tags
        await all_is_done(system, far)
        assert await totals(client, far, tags) == [3] * len(tags)


async def test_a_service_that_was_frozen_while_its_engine_died_adds_nothing_when_it_thaws(
    system: Stack, far: Far
) -> None:
    tag = f"thaw-{uuid4().hex}"
    async with system.client() as client:
        id = await begin(client, far, "steps", tag)
        await until(lambda: bool(system.reached(tag)))
        before = system.engines()
        far.freeze()
        await asyncio.to_thread(system.kill_engines)
        await until(lambda: driven_by(system, id) not in {None, *before})  # its attempt waits for the frozen one
        system.release()  # both attempts go on when it thaws; one of them is nobody's
        far.thaw()
        assert await client.attach(id, str) == tag
        await all_is_done(system, far)
        assert await totals(client, far, [tag]) == [1]
    assert len(system.reached(f"{tag}-first")) == 1


@pytest.mark.parametrize("far", ["streams"], indirect=True)
async def test_an_engine_that_thaws_journals_nothing_of_the_attempt_that_another_has_taken_over(
    system: Stack, far: Far
) -> None:
    tag = f"frozen-{uuid4().hex}"
    async with system.client() as client:
        id = await begin(client, far, "steps", tag)
        await until(lambda: bool(system.reached(tag)))
        frozen = driven_by(system, id)
        assert frozen is not None
        os.kill(frozen, signal.SIGSTOP)
        try:
            await until(lambda: len(system.reached(tag)) > 1)  # the service has two attempts at work
            system.release()
            assert await client.attach(id, str) == tag
        finally:
            os.kill(frozen, signal.SIGCONT)
        await until(lambda: frozen in system.engines())  # it lives on, as another one
        await all_is_done(system, far)
        assert await totals(client, far, [tag]) == [1]
    assert len(system.reached(f"{tag}-first")) == 1


def driven_by(system: Stack, id: str) -> int | None:
    """The process of the engine that has it."""
    owner = "SELECT pid FROM engine JOIN invocation ON owner = engine.id WHERE invocation.id = %s"
    return next((pid for (pid,) in system.query(owner, UUID(bytes=parse_id(id)))), None)


async def test_a_connection_cut_in_the_middle_loses_nothing_nor_do_the_late_words_of_the_old_service_count(
    system: Stack, far: Far
) -> None:
    tags = {kind: f"{kind}-{uuid4().hex}" for kind in KINDS}
    here, there = ports.choose(), ports.choose()
    far.kill()
    await asyncio.to_thread(far.start, here)
    async with cable(far.port, here) as way, system.client() as client:
        ids = {kind: await begin(client, far, kind, tag) for kind, tag in tags.items()}
        await until(lambda: all(map(system.reached, tags.values())))
        far.freeze()
        old = far.forget()
        try:
            await asyncio.to_thread(far.start, there)
            way.to = there
            way.cut()
            held = [tag for kind, tag in tags.items() if kind != "sleep"]
            await until(lambda: all(len(system.reached(tag)) > 1 for tag in held))
            old.send_signal(signal.SIGCONT)
            system.release()
            assert {kind: await client.attach(id, str) for kind, id in ids.items()} == tags
            await all_is_done(system, far)
            assert await totals(client, far, list(tags.values())) == [1] * len(tags)
        finally:
            old.kill()
            old.wait()
    assert len(system.reached(f"{tags['steps']}-first")) == 1


async def test_a_connection_that_is_cut_again_and_again_loses_and_doubles_nothing(system: Stack, far: Far) -> None:
    system.release()
    tags = [uuid4().hex for _ in range(30)]
    here = ports.choose()
    far.kill()
    await asyncio.to_thread(far.start, here)
    async with cable(far.port, here) as way, system.client() as client:
        ids = []
        for tag in tags:
            ids.append(await begin(client, far, "everything", tag))
            way.cut()
        assert [await client.attach(id, str) for id in ids] == tags
        await all_is_done(system, far)
        assert await totals(client, far, tags) == [3] * len(tags)
