"""Calls, sends, and what else a handler asks of its runtime."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from perdure import Context, Service, handler
from perdure.protocol import messages as m
from tests.sdk.shop import Shelf, Shop, world
from tests.sdk.support import NOW, Stage, output

pytestmark = pytest.mark.usefixtures("own_world")


async def test_the_callees_id_may_arrive_while_the_call_is_emitted() -> None:
    stage = await Stage(Shop, "call").begin()
    headers = (m.Header("a", "b"),)
    assert stage.emitted == [m.Call("Shop", "greet", b'"Ann"', 1, 2, headers=headers, idempotency_key="once")]
    assert world.log == ["inv_1callee1"]
    stage.deliver(m.CallCompletion(2, m.Value(b'"Hi"')))
    assert (await stage.settle()).emitted[1:] == output("Hi")


async def test_an_answer_of_the_wrong_type_fails_the_attempt() -> None:
    stage = await Stage(Shop, "call").begin()
    stage.deliver(m.CallCompletion(2, m.Value(b"3")))
    assert "Expected `str`" in (await stage.settle()).last(m.Error).message


async def test_sends_have_their_time_and_need_no_await() -> None:
    stage = await Stage(Shop, "send").begin()
    now = round(NOW * 1000)
    assert stage.emitted == [
        m.OneWayCall("Shelf", "add", b"3", 1, invoke_time=now + 5000, key="shoes"),
        m.OneWayCall("Shelf", "add", b"4", 2, invoke_time=now + 7000, key="shoes"),
        m.OneWayCall("Elsewhere", "anything", b'{"any":"thing"}', 3, key="key"),
        *output("inv_1callee1"),
    ]


LONG_AGO = [
    datetime(1969, 7, 20, tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),  # in UTC no datetime can say it
]


@pytest.mark.parametrize("at", LONG_AGO)
async def test_a_time_before_all_times_is_due_now(at: datetime) -> None:
    class Late(Service):
        @handler
        async def do(self, ctx: Context) -> None:
            ctx.service_send_client(Shop, at=at).greet("Ann")
            ctx.object_send_client(Shelf, "shoes", at=at).add(3)

    emitted = (await Stage(Late, "do").begin()).emitted
    assert [message.invoke_time for message in emitted if isinstance(message, m.OneWayCall)] == [0, 0]
    assert isinstance(emitted[-1], m.End)


async def test_services_are_called_by_name_too() -> None:
    stage = await Stage(Shop, "by_name").begin()
    for id, content in ((2, b'{"a":1}'), (4, b"bytes"), (6, b"")):
        stage.deliver(m.CallCompletion(id, m.Value(content)))
        await stage.settle()
    assert [call.parameter for call in stage.commands if isinstance(call, m.Call)] == [b"[1]", b"raw", b""]
    assert stage.emitted[-2:] == output([{"a": 1}, "bytes", None])


async def test_chance_is_the_same_in_every_attempt_and_differs_between_invocations() -> None:
    def journal() -> list[m.Entry]:
        return [m.Input(headers=(m.Header("x-who", "Ann"),))]

    once, again, other = [
        (await Stage(Shop, "look_around", journal=journal(), random_seed=seed).begin()).emitted for seed in (7, 7, 8)
    ]
    assert once == again
    assert once != other
    assert b'["inv_1me",{"x-who":"Ann"}' in once[0].result.content  # type: ignore[attr-defined]


async def test_the_time_is_journaled() -> None:
    stage = await Stage(Shop, "clock").begin()
    assert stage.emitted[0] == m.Run(1, "now")
    stage.deliver(m.RunCompletion(1, m.Value(b'"2001-02-03T04:05:06Z"')))
    assert (await stage.settle()).emitted[-2:] == output("2001-02-03T04:05:06+00:00")


# Asked for in a way that cannot be meant -----------------------------------------------------------------------------


MISTAKES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda ctx: ctx.object_client(Shelf, ""), "a text that is not empty"),
    (lambda ctx: ctx.object_client(Shelf, 3), "a text that is not empty"),
    (lambda ctx: ctx.object_client(Shop, "key"), "a VirtualObject, or its name"),
    (lambda ctx: ctx.service_client(Shelf), "a Service, or its name"),
    (lambda ctx: ctx.service_client(Shop, idempotency_key=""), "cannot be empty"),
    (lambda ctx: ctx.service_client(Shop).greet(), "takes one argument, name"),
    (lambda ctx: ctx.service_client(Shop).greet("a", "b"), "takes one argument, name"),
    (lambda ctx: ctx.service_client(Shop).greet(nmae="a"), "takes one argument, name"),
    (lambda ctx: ctx.service_client(Shop).nothing("a"), "takes nothing"),
    (lambda ctx: ctx.service_send_client(Shop, delay=timedelta(1), at=datetime.now(UTC)), "not both"),
    (lambda ctx: ctx.service_send_client(Shop, at=datetime(2030, 1, 1)), "time zone"),  # noqa: DTZ001
    (lambda ctx: ctx.run("charge", "charge"), "takes a function"),
    (lambda ctx: Shop.greet("Ann"), "through a client"),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
async def test_mistakes_are_said_in_words(mistake: Callable[[Any], Any], words: str) -> None:
    class Wrong(Service):
        @handler
        async def do(self, ctx: Context) -> None:
            mistake(ctx)

    [error] = (await Stage(Wrong, "do").begin()).emitted
    assert isinstance(error, m.Error)
    assert error.message.startswith("UsageError")
    assert words in error.message
