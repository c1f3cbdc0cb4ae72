"""Scheduled sends in the operators' API: listed by due time, begun now, moved, taken back; one, or by filter."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import AsyncClient

from perdure.protocol.ids import format_id
from runtime.api import guard
from runtime.core.access import Actor, Role
from runtime.operations import Operations, Submission

UNKNOWN = format_id(bytes(16))
TOMORROW = int(time.time() * 1000) + 86_400_000
HOUR = 3_600_000


async def scheduled(operations: Operations, target: str = "Mailbox/Mary/put", *, due: int = TOMORROW) -> str:
    service, *key, handler = target.split("/")
    info = operations.registry.resolve(service, handler)
    accepted = await operations.send(Submission(info, key[0] if key else None, b'"Hello"', due=due))
    return format_id(accepted.id)


async def listed(client: AsyncClient, query: str = "") -> list[str]:
    answer = await client.get(f"/scheduled{query}")
    assert answer.status_code == 200, answer.content
    return [one["id"] for one in answer.json()["scheduled"]]


def asking(monkeypatch: pytest.MonkeyPatch, actor: Actor) -> None:
    """Let all requests come from somebody."""

    async def whose(_: HttpRequest) -> Actor:
        return actor

    monkeypatch.setattr(guard, "whose", whose)


async def patch(client: AsyncClient, path: str, body: Any = None) -> Any:
    return await client.patch(path, body or {}, content_type="application/json")


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


async def test_they_are_listed_by_the_time_at_which_they_are_due(client: AsyncClient, operations: Operations) -> None:
    last = await scheduled(operations, due=TOMORROW + 2)
    first = await scheduled(operations, "Greeter/greet", due=TOMORROW)
    middle = await scheduled(operations, "Mailbox/Tom/put", due=TOMORROW + 1)

    assert await listed(client) == [first, middle, last]
    one = (await client.get("/scheduled")).json()["scheduled"][1]
    assert (one["target"], one["key"]) == ("Mailbox/Tom/put", "Tom")
    assert datetime.fromisoformat(one["due_at"]).timestamp() * 1000 == pytest.approx(TOMORROW + 1)


async def test_pages_follow_one_another_also_where_all_are_due_at_once(
    client: AsyncClient, operations: Operations
) -> None:
    ids = sorted([await scheduled(operations) for _ in range(5)])
    found, cursor = list[str](), ""
    for size in (2, 2, 1):
        page = (await client.get(f"/scheduled?limit=2{cursor}")).json()
        assert len(page["scheduled"]) == size
        found += [one["id"] for one in page["scheduled"]]
        cursor = f"&cursor={page['next']}"

    assert page["next"] is None
    assert found == ids


async def test_filters_narrow_them(client: AsyncClient, operations: Operations) -> None:
    mary = await scheduled(operations, "Mailbox/Mary/put", due=TOMORROW)
    tom = await scheduled(operations, "Mailbox/Tom/put", due=TOMORROW + HOUR)
    greeting = await scheduled(operations, "Greeter/greet", due=TOMORROW + 2 * HOUR)

    assert await listed(client, "?service=Mailbox") == [mary, tom]
    assert await listed(client, "?service=Mailbox&key=Tom") == [tom]
    assert await listed(client, "?handler=greet") == [greeting]
    after = iso(TOMORROW + HOUR).replace("+", "%2B")
    assert await listed(client, f"?due_after={after}") == [tom, greeting]
    assert await listed(client, f"?due_before={after}") == [mary]
    assert await listed(client, "?key=nobody") == []


@pytest.mark.parametrize(
    "query",
    [
        "cursor=nonsense", "cursor=W10", "cursor=%00", "limit=0", "due_after=tomorrow", "due_after=2030-01-01T00:00:00",
        "key=%00", "kee=Mary", "due_before=1e400", "cursor=WyIwMDAxLTAxLTAxIiwgIngiXQ",
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_a_400_in_words(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"/scheduled?{query}")

    assert answer.status_code == 400
    assert answer.json()["message"]


async def test_one_begins_now_when_it_is_told_to(client: AsyncClient, operations: Operations) -> None:
    id = await scheduled(operations)

    answer = await patch(client, f"/scheduled/{id}/run-now")

    assert answer.status_code == 200
    assert datetime.fromisoformat(answer.json()["due_at"]).timestamp() == pytest.approx(time.time(), abs=60)
    assert answer.json()["note"] is None


async def test_a_move_says_that_it_changes_the_order_of_a_keys_sends(
    client: AsyncClient, operations: Operations
) -> None:
    first, second = await scheduled(operations), await scheduled(operations, due=TOMORROW + HOUR)

    answer = await patch(client, f"/scheduled/{second}/move", {"due_at": iso(TOMORROW - HOUR)})

    assert answer.status_code == 200
    assert answer.json()["passes"] == 1
    assert answer.json()["note"] == "The order of the sends to Mailbox/Mary has changed (1 passed)."
    assert await listed(client) == [second, first]
    again = await patch(client, f"/scheduled/{second}/move", {"delay": "2 days"})
    assert again.json()["passes"] == 1
    assert await listed(client) == [first, second]


@pytest.mark.parametrize(
    "when",
    [{}, {"delay": "5m", "due_at": "2100-01-01T00:00:00Z"}, {"delay": "soon"}, {"due_at": "2100-01-01T00:00:00"},
     {"delay": "99999 days"}, {"due_at": "tomorrow"}],
)  # fmt: skip
async def test_a_move_to_no_time_is_refused(client: AsyncClient, operations: Operations, when: dict[str, str]) -> None:
    id = await scheduled(operations)

    answer = await patch(client, f"/scheduled/{id}/move", when)

    assert answer.status_code == 400
    assert await listed(client) == [id]


async def test_a_delay_may_be_a_number_of_milliseconds_as_at_the_ingress(
    client: AsyncClient, operations: Operations
) -> None:
    id = await scheduled(operations)

    moved = await patch(client, f"/scheduled/{id}/move", {"delay": 3_600_000})

    assert moved.status_code == 200
    assert datetime.fromisoformat(moved.json()["due_at"]).timestamp() == pytest.approx(time.time() + 3600, abs=60)


async def test_the_end_of_the_calendar_is_a_time_like_any_other(client: AsyncClient, operations: Operations) -> None:
    id = await scheduled(operations)

    for due in ("9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00"):
        assert (await patch(client, f"/scheduled/{id}/move", {"due_at": due})).status_code == 200
    assert await listed(client) == [id]


async def test_one_that_is_taken_back_is_cancelled(client: AsyncClient, operations: Operations) -> None:
    id = await scheduled(operations)

    assert (await patch(client, f"/scheduled/{id}/cancel")).status_code == 200

    assert await listed(client) == []
    assert (await client.get(f"/invocations/{id}")).json()["outcome"] == "cancelled"


@pytest.mark.parametrize("verb", ["run-now", "move", "cancel"])
async def test_of_what_is_not_scheduled_any_more_or_unknown_one_is_told(
    client: AsyncClient, operations: Operations, verb: str
) -> None:
    body = {"delay": "5m"}
    begun, ended = await scheduled(operations, due=0), await scheduled(operations)
    await patch(client, f"/scheduled/{ended}/cancel")

    codes = [(await patch(client, f"/scheduled/{id}/{verb}", body)).status_code for id in (begun, ended, UNKNOWN, "x")]

    assert codes == [409, 409, 404, 400]


# By filter


async def test_a_dry_run_counts_and_touches_nothing(client: AsyncClient, operations: Operations) -> None:
    mary, tom = await scheduled(operations), await scheduled(operations, "Mailbox/Tom/put")

    answer = await patch(client, "/scheduled/cancel", {"filter": {"key": "Mary"}, "dry_run": True})

    assert answer.json() == {"matched": 1, "done": 0, "begun": 0, "dry_run": True, "reordered": {}, "note": None}
    assert set(await listed(client)) == {mary, tom}


async def test_all_that_a_filter_means_is_moved_and_no_more(client: AsyncClient, operations: Operations) -> None:
    sends = [await scheduled(operations, due=TOMORROW + n) for n in range(600)]
    tom = await scheduled(operations, "Mailbox/Tom/put", due=TOMORROW + HOUR)
    to = {"filter": {"service": "Mailbox", "key": "Mary"}, "due_at": iso(TOMORROW + 2 * HOUR)}

    answer = await patch(client, "/scheduled/move", to)

    assert (answer.json()["matched"], answer.json()["done"], answer.json()["reordered"]) == (600, 600, {})
    assert await listed(client, "?limit=1000") == [tom, *sends]


async def test_one_that_was_moved_is_still_found_by_what_it_is(client: AsyncClient, operations: Operations) -> None:
    send = await scheduled(operations, "Mailbox/Mary/put")
    await patch(client, f"/scheduled/{send}/move", {"due_at": iso(TOMORROW + HOUR)})

    assert await listed(client, "?service=Mailbox&handler=put&key=Mary") == [send]
    assert await listed(client, "?key=Tom") == []


async def test_more_than_were_reckoned_with_are_left_alone(client: AsyncClient, operations: Operations) -> None:
    sends = [await scheduled(operations) for _ in range(3)]

    answer = await patch(client, "/scheduled/cancel", {"filter": {}, "at_most": 2})

    assert answer.status_code == 409
    assert "more than 2" in answer.json()["message"]
    assert set(await listed(client)) == set(sends)


async def test_a_filter_must_be_given_and_a_slip_in_a_name_is_no_leave_to_do_all(
    client: AsyncClient, operations: Operations
) -> None:
    await scheduled(operations)

    for body in ({}, {"filter": {"kee": "Tom"}}, {"filter": {"key": "Mary"}, "dryrun": True}):
        assert (await patch(client, "/scheduled/cancel", body)).status_code == 400
    assert len(await listed(client)) == 1


# Within a token's scope


async def test_who_may_touch_some_services_only_sees_and_moves_theirs(
    client: AsyncClient, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    mary, greeting = await scheduled(operations), await scheduled(operations, "Greeter/greet")
    scoped = Actor("scoped", Role.OPERATOR, "tests", services=frozenset({"Mailbox"}))
    asking(monkeypatch, scoped)

    assert await listed(client) == [mary]
    assert (await patch(client, f"/scheduled/{greeting}/run-now")).status_code == 403
    assert (await patch(client, f"/scheduled/{greeting}/cancel")).status_code == 403
    assert (await patch(client, "/scheduled/cancel", {"filter": {}})).json()["done"] == 1
    monkeypatch.undo()
    assert await listed(client) == [greeting]
