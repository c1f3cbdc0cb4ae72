"""Everything around the engines dies: the broker, PostgreSQL, the ingress."""

from __future__ import annotations

import asyncio
import functools
from uuid import uuid4

import pytest

from perdure.client import IngressError
from tests.support.chaos_services import IDLE, Ledger, Work
from tests.support.servers import wait_until
from tests.support.stack import Stack

pytestmark = pytest.mark.servers


async def adding(system: Stack, key: str, accepted: list[str], stop: asyncio.Event) -> None:
    """Send one addition after another, each with a key of its own, until told to stop."""
    number = 0
    while not stop.is_set():
        number += 1
        once = f"{key}-{number}"
        while True:  # an answer that was lost is asked for again: the idempotency key tells
            try:
                async with system.client() as client:
                    await client.object_send(Ledger, key, idempotency_key=once).add(1).invocation_id()
                break
            except (OSError, IngressError):
                await asyncio.sleep(0.05)
        accepted.append(once)


async def five_more(accepted: list[list[str]], callers: list[asyncio.Task[None]]) -> None:
    """Wait until every caller has got further; raises what one of them has died of."""
    before = min(map(len, accepted))

    def have_got_further() -> bool:
        for caller in callers:
            if caller.done():
                caller.result()
        return min(map(len, accepted)) >= before + 5

    await asyncio.to_thread(wait_until, have_got_further)


async def under_load(system: Stack, harm: list[str]) -> None:
    """Do each harm while callers send; then what was accepted is what was counted."""
    keys = [uuid4().hex for _ in range(8)]
    accepted: list[list[str]] = [[] for _ in keys]
    stop = asyncio.Event()
    callers = [asyncio.create_task(adding(system, key, list_, stop)) for key, list_ in zip(keys, accepted, strict=True)]
    for name in harm:
        await five_more(accepted, callers)
        await asyncio.to_thread(system.wipe_broker if name == "wipe" else functools.partial(system.kill, name))
    await five_more(accepted, callers)
    stop.set()
    await asyncio.gather(*callers)
    await asyncio.to_thread(system.wait_until_idle)
    async with system.client() as client:
        counted = [await client.object(Ledger, key).total() for key in keys]
    assert counted == [len(list_) for list_ in accepted]


async def test_a_broker_that_does_not_answer_keeps_nothing_from_going_on(system: Stack) -> None:
    system.release()
    key = uuid4().hex
    async with system.client() as client:
        assert await client.object(Ledger, key).add(1) == 1
        with system.frozen_broker():
            await asyncio.sleep(IDLE + 2)  # by then all drains have gone home, and none comes
            async with asyncio.timeout(30):
                assert await client.object(Ledger, key).add(1) == 2
        assert await client.object(Ledger, key).add(1) == 3


async def test_a_broker_that_loses_everything_loses_nothing_of_ours(system: Stack) -> None:
    await under_load(system, ["wipe", "wipe", "valkey"])


async def test_postgresql_killed_under_load_keeps_what_was_acknowledged_and_doubles_nothing(system: Stack) -> None:
    await under_load(system, ["postgres", "postgres"])


async def test_invocations_end_though_the_ingress_of_their_callers_dies(system: Stack) -> None:
    tag = f"ingress-{uuid4().hex}"
    async with system.client() as client:
        waiting = asyncio.ensure_future(_outcome(system, tag))
        await asyncio.to_thread(wait_until, lambda: bool(system.reached(tag)))
        await asyncio.to_thread(system.kill, "ingress")
        with pytest.raises(OSError):
            await waiting
    system.release()
    await asyncio.to_thread(system.wait_until_idle)
    await asyncio.to_thread(wait_until, system.client_answers)
    async with system.client() as client:
        assert await client.object(Ledger, tag).total() == 1


async def _outcome(system: Stack, tag: str) -> str:
    async with system.client() as client:
        return await client.service(Work).run(tag)


async def test_the_ingress_killed_under_load_loses_no_accepted_send(system: Stack) -> None:
    await under_load(system, ["ingress", "ingress"])


async def test_two_hundred_senders_to_one_key_keep_their_order(system: Stack) -> None:
    key = uuid4().hex

    async def sender(number: int) -> None:
        async with system.client() as client:
            for line in range(5):
                await client.object_send(Ledger, key).note_down(f"{number} {line}").invocation_id()

    await asyncio.gather(*(sender(number) for number in range(200)))
    await asyncio.to_thread(system.wait_until_idle)
    async with system.client() as client:
        lines = [tuple(map(int, line.split())) for line in await client.object(Ledger, key).lines()]
    assert len(lines) == len(set(lines)) == 1000  # none lost to an overlap, none doubled
    for number in range(200):
        assert [line for sender_, line in lines if sender_ == number] == [0, 1, 2, 3, 4]
