"""What is asked once is heard once, however late or often anybody is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta

import pytest

from perdure import Cancelled, Context, Endpoint, Retry, Service, handler
from perdure.protocol.ids import parse_id
from runtime.core import slots
from runtime.engine.engine import Engine
from runtime.store import claim, mail, verbs
from runtime.store.audit import Note
from runtime.store.claim import Loaded
from runtime.store.link import Link
from runtime.store.mail import Letter
from runtime.store.verbs import Told, Verb
from runtime.wakeups import Asker, Kind
from tests.engine.conftest import OpenWorld
from tests.support.world import WITHIN, Gate, World, uuid

LONG = timedelta(hours=1)


class Bookings:
    """A service whose handlers undo what they did when they are cancelled, as far as a gate lets them."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.heard: list[str] = []
        self.undone: list[str] = []
        self.is_failing = False
        bookings = self

        class Booking(Service, retry=Retry(initial=LONG)):
            @handler
            async def book(self, ctx: Context, name: str) -> None:
                await ctx.run("book", asyncio.sleep, 0)
                if bookings.is_failing:
                    raise RuntimeError("not yet")
                try:
                    await ctx.sleep(LONG)
                except Cancelled:
                    await bookings.undo(ctx, name)
                    raise

            @handler
            async def travel(self, ctx: Context, name: str) -> None:
                await ctx.service_client(Booking).book(name)

        self.endpoint = Endpoint(Booking)

    async def undo(self, ctx: Context, name: str) -> None:
        self.heard.append(name)
        try:
            await ctx.run("undo", self.gate.wait)
        except Cancelled:
            self.heard.append(f"{name} again")
            raise
        self.undone.append(name)


@pytest.fixture
def bookings() -> Bookings:
    return Bookings()


async def booked(world: World, name: str) -> str:
    """One that is under way, with something to undo."""
    id = await world.send("Booking/book", name)

    async def has_begun() -> bool:
        return await world.rows("SELECT FROM journal WHERE invocation = %s", uuid(id)) != []

    await world.until(has_begun)
    return id


async def all_is_read(world: World) -> None:
    async def is_read() -> bool:
        return await world.rows("SELECT FROM mail") == []

    await world.until(is_read)


async def a_later_cancel_is_heard(world: World, bookings: Bookings) -> None:
    """Whatever was on its way before this has arrived."""
    id = await booked(world, "later")
    await world.cancel(id)
    await bookings.gate.reached(2)
    await all_is_read(world)


async def test_by_the_callee_that_the_cancel_has_woken(
    open_world: OpenWorld, bookings: Bookings, monkeypatch: pytest.MonkeyPatch, impatience: None
) -> None:
    asked: list[tuple[Engine, bytes, Verb]] = []
    has_acted = asyncio.Event()
    act_on, tell = Engine._act_on, verbs.tell

    async def tell_and_say_so(link: Link, ids: Collection[bytes], verb: Verb, *note: Note) -> Told:
        told = await tell(link, ids, verb, *note)
        if not note:
            has_acted.set()
        return told

    monkeypatch.setattr(Engine, "_act_on", lambda *what: asked.append(what))
    monkeypatch.setattr(verbs, "tell", tell_and_say_so)
    async with open_world(bookings.endpoint) as world:
        caller = await world.send("Booking/travel", "Rome")
        await world.until_status(caller, "suspended")
        callee = await world.newest("Booking")
        await world.until_status(callee, "suspended")
        await world.cancel(caller)
        await bookings.gate.reached()
        await all_is_read(world)
        act_on(*asked[0])  # who cancelled it comes back to it only now
        async with asyncio.timeout(WITHIN):
            await has_acted.wait()
        await a_later_cancel_is_heard(world, bookings)
        bookings.gate.open()
        assert await world.outcome(callee) == "cancelled"
    assert "Rome again" not in bookings.heard
    assert "Rome" in bookings.undone


async def test_when_the_hint_comes_late(open_world: OpenWorld, bookings: Bookings) -> None:
    async with open_world(bookings.endpoint) as world:
        id = await booked(world, "Rome")
        await world.cancel(id)
        await bookings.gate.reached()
        await all_is_read(world)
        world.members[0].engine._ears.received(NOBODY, Kind.MAIL, [(parse_id(id), slots.CANCEL, b"")])
        await a_later_cancel_is_heard(world, bookings)
        bookings.gate.open()
        assert await world.outcome(id) == "cancelled"
    assert "Rome again" not in bookings.heard


async def test_when_the_mail_was_being_read_meanwhile(
    open_world: OpenWorld, bookings: Bookings, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_seen, is_heard = asyncio.Event(), asyncio.Event()
    load, unread = claim.load, mail.unread

    async def load_late(link: Link, engine: bytes, ids: Sequence[bytes]) -> list[Loaded]:
        if not bookings.is_failing and not bookings.heard:
            await is_seen.wait()
        return await load(link, engine, ids)

    async def read_for_long(link: Link, engine: bytes) -> list[Letter]:
        letters = await unread(link, engine)
        if letters and not is_seen.is_set():
            is_seen.set()
            await bookings.gate.reached()
            await all_is_read(world)
            is_heard.set()
        return letters

    monkeypatch.setattr(claim, "load", load_late)
    monkeypatch.setattr(mail, "unread", read_for_long)
    async with open_world(bookings.endpoint) as world:
        bookings.is_failing = True
        id = await world.send("Booking/book", "Rome")
        await world.until_status(id, "backing-off")
        bookings.is_failing = False
        await world.cancel(id)
        async with asyncio.timeout(WITHIN):
            await is_heard.wait()
        await a_later_cancel_is_heard(world, bookings)
        bookings.gate.open()
        assert await world.outcome(id) == "cancelled"
    assert "Rome again" not in bookings.heard


async def test_and_a_second_one_that_is_asked_for_is_heard_too(open_world: OpenWorld, bookings: Bookings) -> None:
    async with open_world(bookings.endpoint) as world:
        id = await booked(world, "Rome")
        await world.cancel(id)
        await bookings.gate.reached()
        await all_is_read(world)
        await world.cancel(id)
        assert await world.outcome(id) == "cancelled"
    assert bookings.heard == ["Rome", "Rome again"]


class Nobody(Asker):
    """Asks for no answer."""

    def send(self, kind: int, item: object) -> None: ...


NOBODY = Nobody()
