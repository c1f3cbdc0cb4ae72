"""Engines that are killed, frozen or stopped, in the middle of every kind of command."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from uuid import uuid4

import pytest

from perdure.protocol.ids import parse_id
from tests.support.chaos_services import Deadly, Ledger, Work
from tests.support.servers import wait_until
from tests.support.stack import STUCK_AFTER, Stack

pytestmark = pytest.mark.servers

KINDS = ("run", "sleep", "call", "send", "delayed")
STOP = 12.0  # seconds; about three, and twenty when it has to be killed
TAKEOVER = 3.0  # seconds; about half a second on a quiet machine


async def total(system: Stack, key: str) -> int:
    async with system.client() as client:
        return await client.object(Ledger, key).total()


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_in_the_middle_of_a_command_its_invocation_ends_once_elsewhere(system: Stack, kind: str) -> None:
    tag = f"{kind}-{uuid4().hex}"
    async with system.client() as client:
        handle = getattr(client.service_send(Work), kind)(tag)
        id = await handle.invocation_id()
        await asyncio.to_thread(wait_until, lambda: bool(system.reached(tag)))
        killed_at = time.time()
        os.kill(system.reached(tag)[0][0], signal.SIGKILL)
        if kind != "sleep":  # which has only slept since then, and goes on without a second attempt to see
            await asyncio.to_thread(wait_until, lambda: len(system.reached(tag)) > 1)
            assert system.reached(tag)[1][1] - killed_at < TAKEOVER
        system.release()
        assert await client.attach(id, str) == tag
    await asyncio.to_thread(system.wait_until_idle)
    assert await total(system, tag) == 1


async def test_killed_with_a_queue_behind_the_key_all_of_it_runs_once_and_in_order(system: Stack) -> None:
    key = uuid4().hex
    async with system.client() as client:
        await client.object_send(Ledger, key).add_held(key).invocation_id()
        for number in range(50):
            await client.object_send(Ledger, key).note_down(str(number)).invocation_id()
        await asyncio.to_thread(wait_until, lambda: bool(system.reached(key)))
        await asyncio.to_thread(system.kill_engines)
        system.release()
        await asyncio.to_thread(system.wait_until_idle)
        assert await client.object(Ledger, key).total() == 1
        assert await client.object(Ledger, key).lines() == [str(number) for number in range(50)]


async def test_a_storm_of_kills_loses_and_doubles_nothing(system: Stack) -> None:
    system.release()
    tags = [uuid4().hex for _ in range(60)]
    async with system.client() as client:
        ids = []
        for number, tag in enumerate(tags):
            ids.append(await client.service_send(Work).everything(tag).invocation_id())
            if number % 20 == 19:
                await asyncio.to_thread(system.kill_engines)
        assert [await client.attach(id, str) for id in ids] == tags
        await asyncio.to_thread(system.wait_until_idle)
        assert [await client.object(Ledger, tag).total() for tag in tags] == [3] * len(tags)


async def test_of_all_that_its_engines_drive_only_the_one_that_kills_them_is_paused(system: Stack) -> None:
    async with system.client() as client:
        waiting = [await client.service_send(Deadly).wait().invocation_id() for _ in range(60)]
        deadly = await client.service_send(Deadly).kill().invocation_id()
        paused = "SELECT id FROM invocation WHERE service = 'Deadly' AND status = 'paused'"
        await asyncio.to_thread(wait_until, lambda: bool(system.query(paused)), within=60.0)
        assert [id.bytes for (id,) in system.query(paused)] == [parse_id(deadly)]
    await asyncio.to_thread(system.manage, "kill", deadly, *waiting)
    await asyncio.to_thread(system.wait_until_idle)


async def test_killed_while_it_drains_it_loses_and_doubles_nothing(system: Stack) -> None:
    held = uuid4().hex
    tags = [uuid4().hex for _ in range(40)]
    async with system.client() as client:
        waiting = await client.service_send(Work).run(held).invocation_id()
        await asyncio.to_thread(wait_until, lambda: bool(system.reached(held)))
        ((pid, _),) = system.reached(held)
        ids = [await client.service_send(Work).everything(tag).invocation_id() for tag in tags]
        ((engine,),) = system.query("SELECT id::text FROM engine WHERE alive AND pid = %s", pid)
        await asyncio.to_thread(system.manage, "workers", "drain", engine)
        await asyncio.to_thread(wait_until, lambda: left(system, engine) == 1)  # what it executes it keeps
        os.kill(pid, signal.SIGKILL)
        system.release()
        assert await client.attach(waiting, str) == held
        assert [await client.attach(id, str) for id in ids] == tags
        await asyncio.to_thread(system.wait_until_idle)
        assert [await client.object(Ledger, tag).total() for tag in tags] == [3] * len(tags)
    assert await total(system, held) == 1


def left(system: Stack, engine: str) -> int:
    """What an engine that was drained has in memory; its heart beats."""
    ((is_attached, in_flight),) = system.query("SELECT attached, in_flight FROM heartbeat WHERE engine = %s", engine)
    return int(in_flight) + int(is_attached)


async def test_a_frozen_engine_is_fenced_when_it_thaws(system: Stack) -> None:
    tag = f"frozen-{uuid4().hex}"
    async with system.client() as client:
        id = await client.service_send(Work).run(tag).invocation_id()
        await asyncio.to_thread(wait_until, lambda: bool(system.reached(tag)))
        ((frozen, _),) = system.reached(tag)
        os.kill(frozen, signal.SIGSTOP)
        try:
            await asyncio.to_thread(wait_until, lambda: len(system.reached(tag)) > 1)  # beyond its lease
            assert system.reached(tag)[1][0] != frozen
            (dead,) = system.query("SELECT id FROM engine WHERE pid = %s ORDER BY started_at DESC LIMIT 1", frozen)[0]
        finally:
            os.kill(frozen, signal.SIGCONT)
        system.release()  # both finish their step now; one of them is a zombie
        assert await client.attach(id, str) == tag
        await asyncio.to_thread(system.wait_until_idle)
        assert await client.object(Ledger, tag).total() == 1
    assert system.query("SELECT alive FROM engine WHERE id = %s", dead) == [(False,)]
    await asyncio.to_thread(wait_until, lambda: frozen in system.engines())  # it lives on, as another engine


async def test_a_handler_that_blocks_the_loop_for_long_ends_its_process_and_is_named(system: Stack) -> None:
    tag = f"block-{uuid4().hex}"
    since = len(system.log)
    async with system.client() as client:
        id = await client.service_send(Work).block(tag).invocation_id()
        await asyncio.to_thread(wait_until, lambda: len(system.reached(tag)) > 1, within=STUCK_AFTER + 10)
        (first, _), (second, _) = system.reached(tag)
        assert first != second
        system.release()
        assert await client.attach(id, str) == tag
    said = "".join(system.log[since:])
    assert f"Work/block {id} has blocked the loop" in said
    assert "time.sleep(0.01)" in said  # where it was
    assert await total(system, tag) == 1


async def test_stopped_warmly_running_steps_finish_and_the_rest_goes_on_at_the_next_start(system: Stack) -> None:
    tag = f"warm-{uuid4().hex}"
    async with system.client() as client:
        id = await client.service_send(Work).run(tag).invocation_id()
        await asyncio.to_thread(wait_until, lambda: bool(system.reached(tag)))
    stopping = asyncio.create_task(asyncio.to_thread(system.stop))
    await asyncio.to_thread(wait_until, lambda: not system.client_answers())
    system.release()
    await stopping
    await asyncio.to_thread(system.start)
    async with system.client() as client:
        assert await client.attach(id, str) == tag
        assert await client.object(Ledger, tag).total() == 1
    assert len(system.reached(tag)) == 1  # its step was not run again: the result was kept


async def test_a_worker_stops_as_fast_after_one_of_its_children_was_killed(system: Stack) -> None:
    killed = (await asyncio.to_thread(system.engines))[:1]
    os.kill(killed[0], signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: len(set(system.engines()) - set(killed)) == 2)
    began = time.monotonic()
    await asyncio.to_thread(system.stop)
    assert time.monotonic() - began < STOP
