"""Lists of invocations: whom a filter means, pages in order, and how many there are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import AsyncClient

from perdure.protocol.ids import format_id, parse_id
from runtime.core.filters import InvocationFilter, Sort
from runtime.core.invocation import Outcome, Status
from runtime.models import Done, Invocation
from runtime.reading import asking, invocations
from runtime.reading.asking import TookTooLong, ask
from runtime.reading.cursors import BadCursor
from tests.support import history

pytestmark = pytest.mark.usefixtures("client")


def at(seconds: float) -> datetime:
    return history.BEGINNING + timedelta(seconds=seconds)


async def meant(wanted: InvocationFilter) -> set[str]:
    """Whom a filter means, as lists, verbs and counts all say."""
    listed = [one.id for one in (await invocations.page(wanted, limit=100)).invocations]
    assert {format_id(id) for id in await invocations.ids(wanted, limit=100)} == set(listed)
    assert await invocations.count(wanted) == invocations.Count(len(listed), is_exact=True)
    assert len(set(listed)) == len(listed)
    return set(listed)


async def test_a_filter_means_those_for_which_all_of_it_is_so() -> None:
    caller = await history.alive("Checkout/pay", status=Status.SUSPENDED, deployment="dp_1")
    called = await history.alive(
        "Mailbox/Mary/put",
        status=Status.BACKING_OFF,
        caller=_uuid(caller),
        due_at=at(60),
        created_at=at(1),
        failure={"code": 500, "message": "Card DECLINED 100%"},
    )
    later = await history.alive("Mailbox/Tom/put", status=Status.SCHEDULED, due_at=at(120), created_at=at(2))
    failed = await history.ended(
        "Mailbox/Mary/put",
        outcome=Outcome.FAILED,
        created_at=at(3),
        deployment="dp_1",
        failure={"code": 410, "message": "declined for good"},
    )
    done = await history.ended("Mailbox/Mary/letters", created_at=at(4), idempotency_key="once")

    assert await meant(InvocationFilter()) == {caller, called, later, failed, done}
    assert await meant(InvocationFilter(ids=(parse_id(later), parse_id(done)))) == {later, done}
    assert await meant(InvocationFilter(ids=())) == set()
    assert await meant(InvocationFilter(service="Mailbox")) == {called, later, failed, done}
    assert await meant(InvocationFilter(service="Mailbox", handler="put", key="Mary")) == {called, failed}
    assert await meant(InvocationFilter(key="Mary")) == {called, failed, done}
    assert await meant(InvocationFilter(deployment="dp_1")) == {caller, failed}
    assert await meant(InvocationFilter(caller=parse_id(caller))) == {called}
    assert await meant(InvocationFilter(idempotency_key="once")) == {done}
    assert await meant(InvocationFilter(statuses=(Status.SUSPENDED, Status.COMPLETED))) == {caller, failed, done}
    assert await meant(InvocationFilter(outcomes=(Outcome.FAILED, Outcome.KILLED))) == {failed}
    assert await meant(InvocationFilter(outcomes=(Outcome.FAILED,), statuses=(Status.RUNNING,))) == set()
    assert await meant(InvocationFilter(failure="declined")) == {called, failed}
    assert await meant(InvocationFilter(failure="100%")) == {called}
    assert await meant(InvocationFilter(created_after=at(2), created_before=at(4))) == {later, failed}
    assert await meant(InvocationFilter(modified_after=at(2), modified_before=at(4.5))) == {later, failed}
    assert await meant(InvocationFilter(due_after=at(61))) == {later}
    assert await meant(InvocationFilter(due_before=at(61))) == {called}
    assert await meant(InvocationFilter(services=("Checkout",))) == {caller}
    assert await meant(InvocationFilter(services=("Checkout",), service="Mailbox")) == set()


@pytest.mark.parametrize("sort", [Sort.CREATED, Sort.NEWEST, Sort.MODIFIED, Sort.LAST_MODIFIED])
async def test_pages_have_the_living_and_the_ended_in_one_order_also_where_many_came_at_once(sort: Sort) -> None:
    for second in (1, 1, 2, 2):
        await history.alive(created_at=at(second))
        await history.ended(created_at=at(second), took=timedelta(0))

    found = await paged(InvocationFilter(), sort, limit=3)

    times = [(one.modified_at, parse_id(one.id)) for one in found]
    assert len(found) == 8
    assert times == sorted(times, reverse=sort.is_descending)


async def test_what_is_due_is_listed_by_that_time_and_nothing_else_is() -> None:
    second = await history.alive(status=Status.SCHEDULED, due_at=at(2))
    third = await history.alive(status=Status.BACKING_OFF, due_at=at(3))
    first = await history.alive(status=Status.SCHEDULED, due_at=at(1))
    await history.alive(status=Status.READY, due_at=at(1))
    await history.ended()

    assert [one.id for one in await paged(InvocationFilter(), Sort.DUE, limit=1)] == [first, second, third]
    assert [one.id for one in await paged(InvocationFilter(), Sort.LAST_DUE, limit=2)] == [third, second, first]


async def test_a_page_goes_on_where_the_one_before_ended_whatever_came_or_went_since() -> None:
    ids = [await history.alive(created_at=at(second)) for second in range(6)]
    first = await invocations.page(InvocationFilter(), limit=2)
    await history.alive(created_at=at(10))
    await Invocation.objects.filter(id=_uuid(ids[4])).adelete()  # the one at which the page ended

    second = await invocations.page(InvocationFilter(), limit=2, cursor=first.next)

    assert [one.id for one in first.invocations] == [ids[5], ids[4]]
    assert [one.id for one in second.invocations] == [ids[3], ids[2]]


async def test_one_that_ends_between_two_pages_is_neither_missed_nor_shown_twice() -> None:
    ids = [await history.alive(created_at=at(second)) for second in range(4)]
    first = await invocations.page(InvocationFilter(), limit=2)
    for id in (ids[3], ids[0]):
        await _end(id)

    rest = await invocations.page(InvocationFilter(), limit=9, cursor=first.next)

    assert [(one.id, one.status) for one in rest.invocations] == [(ids[1], "running"), (ids[0], "completed")]


async def test_a_cursor_of_another_order_is_refused() -> None:
    for _ in range(2):
        await history.alive()
    page = await invocations.page(InvocationFilter(), limit=1)

    with pytest.raises(BadCursor, match="of the order '-created'"):
        await invocations.page(InvocationFilter(), Sort.MODIFIED, limit=1, cursor=page.next)


async def test_ids_come_in_an_order_that_nothing_changes() -> None:
    ids = sorted([parse_id(await history.alive()) for _ in range(3)] + [parse_id(await history.ended())])

    first = await invocations.ids(InvocationFilter(), limit=2)
    await _end(format_id(ids[2]))

    assert first + await invocations.ids(InvocationFilter(), after=first[-1], limit=9) == ids


async def test_more_than_a_person_counts_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocations, "MOST_COUNTED", 3)
    for _ in range(3):
        await history.ended()
    exact = await invocations.count(InvocationFilter())
    await history.alive()

    many = await invocations.count(InvocationFilter())

    assert exact == invocations.Count(3, is_exact=True)
    assert not many.is_exact
    assert many.value >= 4


async def test_what_the_database_does_not_find_in_its_time_is_given_up_in_words() -> None:
    def sleep() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(60)")

    with pytest.raises(TookTooLong, match=r"longer than 0\.05 s"):
        await ask(sleep, 50)


@pytest.mark.parametrize("slow", ["to walk", "to sort"])
async def test_what_is_not_found_soon_in_one_way_is_looked_for_in_the_other(
    monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    def read(walks: bool) -> bool:
        if walks == (slow == "to walk"):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(60)")
        return walks

    monkeypatch.setattr(asking, "HASTE_MS", 20)
    found_by_walking = await asking.ask_in_order(read, 10_000)

    assert found_by_walking == (slow == "to sort")


@pytest.mark.parametrize("sort", Sort)
async def test_a_list_is_the_same_whether_it_was_walked_or_sorted(monkeypatch: pytest.MonkeyPatch, sort: Sort) -> None:
    for second in range(4):
        await history.alive(created_at=at(second))
        await history.ended(created_at=at(second), took=timedelta(seconds=9 - second))
    walked = await invocations.page(InvocationFilter(), sort, limit=9)

    async def ask_for_sorted(read: Callable[[bool], Any], milliseconds: int) -> Any:
        return await ask(functools.partial(read, False), milliseconds)

    monkeypatch.setattr(invocations, "ask_in_order", ask_for_sorted)

    assert await invocations.page(InvocationFilter(), sort, limit=9) == walked


async def test_what_takes_long_to_count_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    async def takes_too_long(read: Any, milliseconds: int) -> Any:
        raise TookTooLong

    await history.alive()
    monkeypatch.setattr(invocations, "ask", takes_too_long)

    assert not (await invocations.count(InvocationFilter())).is_exact


async def test_the_order_of_changes_has_the_newest_of_the_living_and_says_when_others_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invocations, "WINDOW", 2)
    first, second, third = [await history.alive(created_at=at(second)) for second in range(3)]
    ended = await history.ended(created_at=at(0), took=timedelta(0))

    newest = await invocations.page(InvocationFilter(), Sort.LAST_MODIFIED, limit=9)
    oldest = await invocations.page(InvocationFilter(), Sort.MODIFIED, limit=9)
    few = await invocations.page(InvocationFilter(created_after=at(1)), Sort.LAST_MODIFIED, limit=9)

    assert [one.id for one in newest.invocations] == [third, second, ended]
    assert newest.cut == "Of those that have not ended only the 2 newest are in this order."
    assert {one.id for one in oldest.invocations} == {ended, first, second}
    assert oldest.cut == "Of those that have not ended only the 2 oldest are in this order."
    assert ([one.id for one in few.invocations], few.cut) == ([third, second], None)


async def paged(wanted: InvocationFilter, sort: Sort, limit: int) -> list[invocations.Summary]:
    """The whole list, page by page."""
    page = await invocations.page(wanted, sort, limit=limit)
    found = [*page.invocations]
    while page.next is not None:
        page = await invocations.page(wanted, sort, limit=limit, cursor=page.next)
        found += page.invocations
    return found


async def _end(id: str) -> None:
    """It moves to history, as at its end."""
    row = await Invocation.objects.aget(id=_uuid(id))
    await Invocation.objects.filter(id=row.id).adelete()
    await Done.objects.acreate(
        id=row.id,
        outcome=Outcome.SUCCEEDED,
        created_at=row.created_at,
        completed_at=row.created_at,
        expires_at=row.created_at,
        expires_on=row.created_at.date(),
        service=row.service,
        handler=row.handler,
        mode=row.mode,
        input=row.input,
        entries=2,
        frames=b"",
        result=b"",
    )


def _uuid(id: str) -> UUID:
    return UUID(bytes=parse_id(id))


# Over HTTP


async def test_a_list_is_filtered_sorted_and_paged_over_http(client: AsyncClient) -> None:
    ids = [await history.alive("Mailbox/Mary/put", created_at=at(second)) for second in range(3)]
    ids.append(await history.ended("Mailbox/Tom/put", outcome=Outcome.FAILED, created_at=at(3)))
    await history.ended("Greeter/greet", created_at=at(4))

    first = (
        await client.get("/invocations?service=Mailbox&status=running&status=completed&sort=created&limit=3")
    ).json()
    two = (await client.get(f"/invocations?id={ids[0]}&id={ids[3]}&outcome=failed&outcome=killed")).json()
    second = (await client.get(f"/invocations?service=Mailbox&sort=created&cursor={first['next']}")).json()

    assert [one["id"] for one in first["invocations"] + second["invocations"]] == ids
    assert [one["id"] for one in two["invocations"]] == [ids[3]]
    assert first["count"] == {"value": 4, "exact": True}
    assert second["next"] is None
    assert second["invocations"][0]["outcome"] == "failed"


async def test_times_are_asked_for_with_a_time_zone(client: AsyncClient) -> None:
    await history.alive(created_at=at(0))
    later = await history.alive(created_at=at(1))

    found = await client.get("/invocations", {"created_after": "2026-01-01T13:00:01+01:00", "count": "false"})
    refused = await client.get("/invocations", {"created_after": "2026-01-01T12:00:01"})

    assert [one["id"] for one in found.json()["invocations"]] == [later]
    assert found.json()["count"] is None
    assert refused.status_code == 400
    assert "time zone" in refused.json()["message"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("statsu=paused", "There is no parameter 'statsu' here. Those that there are: caller, count, created_after"),
        ("status=asleep", "`status` in the query must be 'scheduled', 'pending'"),
        ("sort=name", "`sort` in the query must be 'created', '-created'"),
        ("cursor=nonsense", "'nonsense' is no cursor of this list."),
        ("caller=nonsense", "nonsense"),
        ("id=nonsense", "nonsense"),
        ("service=%00", "`service` in the query has a character that is not allowed here"),
        ("failure=" + "x" * 1001, "`failure` in the query must have 1000 characters at most"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_in_words(client: AsyncClient, query: str, words: str) -> None:
    response = await client.get(f"/invocations?{query}")

    assert response.status_code == 400
    assert words in response.json()["message"]


@pytest.mark.parametrize(
    "query",
    [
        "key=%ff%fe",
        "failure=%25_%5C",
        "created_after=0001-01-01T00:00:00%2B14:00",
        "due_before=9999-12-31T23:59:59-14:00",
    ],
)
async def test_what_is_odd_is_answered_all_the_same(client: AsyncClient, query: str) -> None:
    await history.alive()

    assert (await client.get(f"/invocations?{query}")).status_code == 200
