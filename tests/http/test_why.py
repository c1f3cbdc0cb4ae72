"""What keeps an invocation from going on: as data, and as a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import AsyncClient

from perdure.protocol.ids import format_awakeable, format_id, parse_id
from perdure.protocol.messages import (
    CANCEL_SIGNAL,
    AttachInvocation,
    Call,
    CallCompletion,
    CallInvocationIdCompletion,
    Failure,
    GetPromise,
    InvocationRef,
    InvocationTarget,
    Run,
    Signal,
    Sleep,
)
from runtime.conf import settings
from runtime.core import slots
from runtime.core.invocation import Outcome, Status
from runtime.models import Deployment, DrainedQueue, Engine, Heartbeat, Inbox, ObjectKey, Service
from runtime.reading.why import Reason, Why, why
from runtime.store import owners
from runtime.store.link import Link
from tests.support import history

pytestmark = pytest.mark.usefixtures("client")

NOON = datetime(2099, 1, 1, 12, tzinfo=UTC)
SINCE = "2026-01-01 12:00:00 UTC"


async def of(id: str, services: tuple[str, ...] | None = None) -> Why:
    found = await why(parse_id(id), services)
    assert found is not None
    return found


async def test_a_send_that_is_not_due_waits_for_its_time() -> None:
    found = await of(await history.alive(status=Status.SCHEDULED, due_at=NOON))

    assert (found.reason, found.until) == (Reason.SCHEDULED, NOON)
    assert re.fullmatch(r"It is a send that begins at 2099-01-01 12:00:00 UTC, in \d+ h\.", found.sentence)


async def test_one_that_backs_off_says_what_failed_and_when_it_is_tried_again() -> None:
    failure = {"code": 500, "message": "Card declined\nat the bank"}
    found = await of(await history.alive(status=Status.BACKING_OFF, due_at=NOON, failed_attempts=3, failure=failure))

    assert (found.reason, found.until) == (Reason.BACKING_OFF, NOON)
    assert found.sentence.startswith("It is tried again at 2099-01-01 12:00:00 UTC, in ")
    assert found.sentence.endswith(": 3 attempts failed, the last with: Card declined.")


async def test_one_that_was_asked_to_end_and_fails_before_it_awaits_anything_says_so() -> None:
    heard = await history.alive(status=Status.BACKING_OFF, due_at=NOON, entries=[Signal(CANCEL_SIGNAL)])

    assert (await of(heard)).sentence.endswith("if it fails before, a kill ends it.")


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        (
            {"failure": {"code": 500, "message": "No!"}, "failed_attempts": 3},
            "3 attempts failed, the last with: No!",
        ),
        (
            {"failure": {"code": 570, "message": "a Run"}},
            "its code asks for something else than its journal has: a Run.",
        ),
        ({"crashes": 5}, "5 engines died while driving it, and it may be what kills them."),
        ({}, "somebody has paused it."),
    ],
)
async def test_one_that_is_paused_says_why(fields: dict[str, Any], cause: str) -> None:
    found = await of(await history.alive(status=Status.PAUSED, **fields))

    assert found.reason is Reason.PAUSED
    assert found.sentence == f"It is paused since {SINCE}, until somebody resumes it; {cause}"


async def test_a_sleeper_says_until_when() -> None:
    nap = Sleep(int(NOON.timestamp() * 1000), 1, "nap")
    found = await of(await history.alive(status=Status.SUSPENDED, waits=[1], entries=[nap]))

    assert (found.reason, found.until, found.awaits[0].name) == (Reason.AWAITS, NOON, "nap")
    assert found.sentence.startswith("It sleeps until 2099-01-01 12:00:00 UTC, in ")


async def test_a_caller_says_whose_result_it_awaits_and_what_keeps_that_one() -> None:
    callee = await history.alive("Mailbox/Mary/put", status=Status.PAUSED, failure={"message": "No."})
    caller = await history.alive(status=Status.SUSPENDED, waits=[2], entries=called(callee))

    found = await of(caller)

    assert found.sentence == f"It awaits the result of Mailbox/Mary/put ({callee})."
    assert (found.invocation_id, found.awaits[0].index) == (callee, 1)
    assert found.because is not None
    assert found.because.reason is Reason.PAUSED


async def test_what_is_to_be_told_to_it_is_named() -> None:
    waits = [1, slots.of_signal(CANCEL_SIGNAL), slots.of_signal(18), slots.NAMED]
    entries = [GetPromise("paid", 1, "a name in the code")]
    id = await history.alive(status=Status.SUSPENDED, waits=waits, entries=entries)
    found = await of(id)

    awakeable = format_awakeable(parse_id(id), 18)
    assert found.sentence == f"It awaits the promise 'paid', the awakeable {awakeable} and a signal by name."
    assert [(one.index, one.what) for one in found.awaits] == [(1, "GetPromise"), (None, "Signal"), (None, "Signal")]


async def test_the_end_of_one_that_nobody_can_know_is_named_by_its_entry() -> None:
    entries = [AttachInvocation(InvocationTarget("nonsense"), 1)]
    found = await of(await history.alive(status=Status.SUSPENDED, waits=[1], entries=entries))

    assert found.sentence == "It awaits the AttachInvocation of entry 1."


async def test_one_that_waits_for_anothers_end_says_what_keeps_that_one() -> None:
    other = await history.alive(status=Status.PAUSED, failure={"message": "No."})
    entries = [AttachInvocation(InvocationTarget(other), 1)]
    found = await of(await history.alive(status=Status.SUSPENDED, waits=[1], entries=entries))

    assert found.sentence == f"It awaits the end of {other}."
    assert found.because is not None
    assert found.because.reason is Reason.PAUSED


async def test_only_what_it_waits_for_now_is_named() -> None:
    entries = [Run(1, "done in time"), Sleep(1, 2), Sleep(int(NOON.timestamp() * 1000), 3), *called(history_id(9), 4)]
    found = await of(await history.alive(status=Status.SUSPENDED, waits=[3, 5], entries=entries))

    assert found.sentence == (
        f"It awaits the end of a sleep at 2099-01-01 12:00:00 UTC and the result of Mailbox/Mary/put ({history_id(9)})."
    )
    assert found.invocation_id is None  # it waits for either


async def test_what_has_come_is_not_awaited() -> None:
    entries = [*called(history_id(9)), CallCompletion(2, Failure(500, "no"))]
    found = await of(await history.alive(status=Status.SUSPENDED, waits=[], entries=entries))

    assert (found.sentence, found.awaits) == ("It awaits a signal.", ())


async def test_one_whose_key_another_has_says_who_since_when_and_how_many_come_first() -> None:
    holder = await letter("take", Status.SUSPENDED, begun_at=history.BEGINNING, waits=[])
    await letter("put")
    last = await letter("put")

    found = await of(last)

    assert (found.reason, found.ahead, found.invocation_id) == (Reason.KEY, 2, holder)
    assert found.sentence == (
        f"It waits for the key 'Mary' of Mailbox, which {holder} (take) has since {SINCE}; 1 more comes before it."
    )
    assert found.because is not None
    assert found.because.sentence == "It awaits a signal."


async def test_two_that_wait_for_each_other_are_said_once_and_called_a_circle() -> None:
    first, second = history_id(90), history_id(91)
    await letter("put", Status.SUSPENDED, id=uuid_of(first), waits=[2], entries=called(second))
    await letter("put", id=uuid_of(second))

    found = await of(first)

    assert found.because is not None
    assert (found.because.invocation_id, found.because.because) == (first, None)
    assert (found.is_circle, found.because.is_circle) == (False, True)
    assert "they are a circle, and none goes on until one of them is cancelled" in found.sentences[-1]


async def test_what_other_services_do_is_not_told_to_whoever_may_not_see_them() -> None:
    callee = await history.alive("Mailbox/Mary/put", status=Status.PAUSED)
    caller = await history.alive(status=Status.SUSPENDED, waits=[2], entries=called(callee))

    assert (await of(caller, ("Greeter",))).because is None
    assert (await of(caller, ("Greeter", "Mailbox"))).because is not None


# Those that an engine has, or should have


async def test_one_that_is_executed_says_where() -> None:
    id = await engine()
    found = await of(await history.alive(owner=id, entries=[Run(1, "charge")]))

    assert (found.reason, found.engine) == (Reason.RUNNING, str(id))
    assert found.sentence == (
        f"Nothing keeps it: engine {str(id)[:8]} on here executes it, in ctx.run 'charge', since {SINCE}."
    )


async def test_one_that_waits_in_memory_says_for_what_and_where() -> None:
    id = await engine()
    callee = await history.alive("Mailbox/Mary/put", status=Status.PAUSED)
    found = await of(await history.alive(owner=id, entries=called(callee)))

    assert (found.reason, found.invocation_id) == (Reason.AWAITS, callee)
    assert found.sentence == (
        f"It awaits the result of Mailbox/Mary/put ({callee}), in the memory of engine {str(id)[:8]} on here."
    )


async def test_the_head_of_a_leased_key_is_executed_before_its_row_says_so() -> None:
    id = await engine()
    head = await letter("put")
    await ObjectKey.objects.filter(key="Mary").aupdate(owner=id)

    assert (await of(head)).reason is Reason.RUNNING


async def test_one_whose_engine_is_silent_says_so() -> None:
    id = await engine(beat_at=history.BEGINNING)

    found = await of(await history.alive(owner=id))

    assert found.reason is Reason.SILENT
    assert found.sentence.startswith(f"Engine {str(id)[:8]}, which drives it, gives no sign of life")


async def test_one_whose_code_was_changed_in_place_says_what_to_do() -> None:
    await Deployment.objects.acreate(id="dp_1", kind="module", location="hello:app", manifest={}, created_at=NOON)
    await Service.objects.acreate(name="Greeter", type="SERVICE", deployment_id="dp_1", revision=1, modified_at=NOON)
    id = await history.alive(status=Status.READY)
    assert "register" not in (await of(id)).sentence
    await engine(deployments=["dp_2"])

    found = await of(id)

    assert found.reason is Reason.NOT_SERVED
    assert "`./dev manage register MODULE:APP`" in found.sentence


async def test_one_in_the_queue_says_how_it_stands_with_the_queue() -> None:
    id = await history.alive(status=Status.READY, modified_at=datetime.now(UTC) - timedelta(minutes=7))

    assert await reason(id) == (
        Reason.NOT_SERVED,
        "It waits for 7 min for an engine that has loaded its code, a service 'Greeter' that is registered.",
    )
    await Deployment.objects.acreate(id="dp_1", kind="module", location="hello:app", manifest={}, created_at=NOON)
    await Service.objects.acreate(name="Greeter", type="SERVICE", deployment_id="dp_1", revision=1, modified_at=NOON)
    assert (await of(id)).missing_code == "hello:app (dp_1)"
    elsewhere = await engine(queue="slow", deployments=["dp_1"])
    assert await reason(id) == (
        Reason.NO_ENGINE,
        "It waits for 7 min: no engine that lives serves its queue 'default'.",
    )
    await Engine.objects.filter(id=elsewhere).aupdate(queues=["default"], drained_at=NOON)
    assert await reason(id) == (
        Reason.DRAINED,
        "It waits for 7 min: all engines that serve its queue 'default' are drained.",
    )
    await Engine.objects.filter(id=elsewhere).aupdate(drained_at=None)
    assert await reason(id) == (
        Reason.QUEUE,
        "It waits in the queue 'default' for an engine, for 7 min, as one of 0; all that serve it are full.",
    )
    await DrainedQueue.objects.acreate(queue="default", drained_at=history.BEGINNING)
    assert await reason(id) == (
        Reason.DRAINED,
        f"Its queue 'default' is drained since {SINCE}, until somebody resumes that.",
    )


# The end, and the faces


async def test_one_that_has_ended_says_how() -> None:
    done = await of(await history.ended())
    failed = await of(await history.ended(outcome=Outcome.FAILED, failure={"message": "Sold out"}))
    killed = await of(await history.ended(outcome=Outcome.KILLED))

    assert done.sentence == "It has succeeded, at 2026-01-01 12:00:01 UTC."
    assert failed.sentence == "It has failed, at 2026-01-01 12:00:01 UTC: Sold out."
    assert killed.sentence == "It has been killed, at 2026-01-01 12:00:01 UTC."
    assert await why(bytes(16)) is None


async def test_the_api_says_it_of_each_invocation(client: AsyncClient) -> None:
    callee = await history.alive("Mailbox/Mary/put", status=Status.PAUSED)
    caller = await history.alive(status=Status.SUSPENDED, waits=[2], entries=called(callee))

    shown = (await client.get(f"/invocations/{caller}")).json()["why"]

    assert (shown["reason"], shown["invocation_id"]) == ("awaits", callee)
    assert shown["because"]["reason"] == "paused"


async def reason(id: str) -> tuple[Reason, str]:
    found = await of(id)
    return found.reason, found.sentence


def called(id: str, slot: int = 1) -> list[Any]:
    """A call whose result comes under the next completion id."""
    return [
        Call("Mailbox", "put", b'"Hi"', slot, slot + 1, key="Mary"),
        CallInvocationIdCompletion(slot, InvocationRef(id)),
    ]


def uuid_of(id: str) -> UUID:
    return UUID(bytes=parse_id(id))


def history_id(number: int) -> str:
    return format_id(UUID(int=number << 64).bytes)


async def letter(handler: str, status: Status = Status.PENDING, **fields: Any) -> str:
    """One in the inbox of a key."""
    id = await history.alive(f"Mailbox/Mary/{handler}", status=status, **fields)
    await ObjectKey.objects.aget_or_create(
        service="Mailbox", key="Mary", defaults={"queue": "default", "leased_at": history.BEGINNING}
    )
    place = await Inbox.objects.acount() + 1
    await Inbox.objects.acreate(service="Mailbox", key="Mary", position=place, invocation=uuid_of(id))
    return id


async def engine(*, queue: str = "default", deployments: Sequence[str] = (), beat_at: datetime | None = None) -> UUID:
    """One that takes work and is full."""
    id = uuid4()
    with closing(await Link.connect(settings().database_url)) as link:
        await owners.register(
            link, id=id.bytes, host="here", pid=1, address="", queues=[queue], deployments=deployments,
            lock_key=0, backends=(),
        )  # fmt: skip
    await Heartbeat.objects.aupdate(attached=True, beat_at=beat_at or datetime.now(UTC))
    return id
