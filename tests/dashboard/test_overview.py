"""The dashboard's first page: what it shows, how it refreshes itself, and what it lets a browser do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.staticfiles import finders
from django.test import AsyncClient

from dashboard import queries
from dashboard.templatetags.invocations import since
from perdure.protocol.messages import Call, CallInvocationIdCompletion, Entry, InvocationRef
from runtime.core.access import Actor, Role
from runtime.core.invocation import Outcome, Status
from runtime.registering import register_module
from runtime.store.link import Link
from tests.support import history

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def registered(our_database: str) -> None:
    with closing(await Link.connect(our_database)) as link:
        await register_module("tests.support.endpoints:app", link)


async def text(path: str) -> str:
    """What a person reads at a path."""
    response = await AsyncClient().get(path)
    assert response.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


@pytest.mark.parametrize("path", ["/", "/ui"])
async def test_the_root_leads_to_the_first_page(our_database: str, path: str) -> None:
    response = await AsyncClient().get(path)

    assert (response.status_code, response.headers["location"]) == (302, "/ui/")


async def test_services_are_shown_with_the_paths_of_their_handlers(registered: None) -> None:
    page = await text("/ui/")

    assert "Greeter service" in page
    assert "Says hello." in page
    assert "/Greeter/whisper private" in page
    assert "Mailbox virtual object" in page
    assert "/Mailbox/{key}/put" in page
    assert "/Mailbox/{key}/letters shared" in page
    assert "tests.support.endpoints:app · revision 1" in page


async def test_the_latest_invocations_are_shown_with_how_they_stand(our_database: str) -> None:
    await history.ended(outcome=Outcome.FAILED, failure={"code": 410, "message": "sold out"})
    later = history.BEGINNING + timedelta(seconds=1)
    await history.alive("Mailbox/Mary/put", status=Status.BACKING_OFF, created_at=later, failed_attempts=2)

    page = await text("/ui/latest")

    assert re.search(
        r"backing-off Mailbox/Mary/put inv_1.* 2 × .*failed Greeter/greet inv_1.* 1000 ms .*sold out", page
    )


async def test_how_long_it_took_is_said_of_what_has_ended_only(our_database: str) -> None:
    for status in (Status.SCHEDULED, Status.PENDING, Status.RUNNING):
        await history.alive(status=status)
    await history.ended(took=timedelta(minutes=3))

    page = (await AsyncClient().get("/ui/latest")).content.decode()

    assert re.findall(r'<td class="number">(.*?)</td>', page) == ["3 min", "", "", ""]


async def test_where_it_failed_is_folded_out(our_database: str) -> None:
    trace = 'File "shop.py", line 3, in <module>\n    raise SoldOut\n'
    await history.ended(outcome=Outcome.FAILED, failure={"code": 500, "message": "sold out", "stacktrace": trace})
    await history.ended(outcome=Outcome.FAILED, failure={"code": 410, "message": "meant to fail"})

    page = (await AsyncClient().get("/ui/latest")).content.decode()

    (folded,) = re.findall(r"<details>(.*?)</details>", page, re.DOTALL)
    assert folded == (
        "<summary>sold out</summary><pre>File &quot;shop.py&quot;, line 3, in &lt;module&gt;\n    raise SoldOut\n</pre>"
    )
    assert "meant to fail" in page


async def test_what_is_folded_out_stays_so_when_the_page_refreshes_itself(our_database: str) -> None:
    page = (await AsyncClient().get("/ui/")).content.decode()

    (config,) = re.findall(r"<meta name=\"htmx-config\" content='([^']*)'>", page)
    assert "open" in json.loads(config)["morphIgnore"]


async def test_an_empty_page_says_how_to_fill_it(our_database: str) -> None:
    page = await text("/ui/")

    assert "./dev manage register" in page
    assert "./dev manage invoke" in page


async def test_the_page_refreshes_the_latest_invocations_by_itself(our_database: str) -> None:
    page = (await AsyncClient().get("/ui/")).content.decode()

    assert 'hx-get="/ui/latest" hx-trigger="every 2s"' in page
    assert finders.find(re.search(r'src="/static/(django_htmx/htmx-4[^"]*)"', page)[1])  # type: ignore[index]


async def test_what_an_author_or_a_caller_wrote_is_never_markup(our_database: str) -> None:
    await history.alive("Mailbox/<script>alert(1)<script>/put", failure={"message": "<img src=x>"})

    page = (await AsyncClient().get("/ui/latest")).content.decode()

    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


async def test_an_invocation_has_a_page_with_what_keeps_it_and_its_journal(our_database: str) -> None:
    holder = await history.alive("Mailbox/Mary/put", status=Status.PAUSED)
    call: list[Entry] = [
        Call("Mailbox", "put", b'"<b>"', 1, 2, key="Mary"),
        CallInvocationIdCompletion(1, InvocationRef(holder)),
    ]
    id = await history.alive(status=Status.SUSPENDED, waits=[2], entries=call)

    page = await text(f"/ui/invocations/{id}")

    assert "Greeter/greet suspended" in page
    assert f"It awaits the result of Mailbox/Mary/put ({holder})." in page
    assert f"{holder}: It is paused since 2026-01-01 12:00:00 UTC" in page
    assert "1 Command: Call Mailbox/Mary/put awaited" in page
    assert f'href="/ui/invocations/{id}"' in (await AsyncClient().get("/ui/latest")).content.decode()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/ui/nope", "There is no page at /ui/nope."),
        ("/ui/a/b", "There is no page at /ui/a/b."),
        ("/ui/invocations/inv_nonsense", "There is no invocation inv_nonsense"),
    ],
)
async def test_where_nothing_is_a_page_says_so_and_leads_back(our_database: str, path: str, words: str) -> None:
    response = await AsyncClient().get(path)

    page = response.content.decode()
    assert response.status_code == 404
    assert words in page
    assert '<a href="/ui/">The overview</a>' in page
    assert "default-src 'none'" in response.headers["content-security-policy"]


async def test_payloads_are_hidden_from_whoever_may_not_see_them(our_database: str) -> None:
    id = await history.alive("Mailbox/Mary/put")
    seen = await queries.invocation(id, Actor("Ann", Role.VIEWER, ""))
    not_seen = await queries.invocation(id, Actor("Ann", Role.VIEWER, "", sees_payloads=False))

    assert seen is not None
    assert not_seen is not None
    assert seen.journal[0].details == {"value": {"json": "Mary"}}
    assert not_seen.journal[0].details == {"value": {"hidden": "6 bytes"}}


@pytest.mark.parametrize("path", ["/ui/", "/ui/latest"])
async def test_a_page_runs_our_own_files_only(our_database: str, path: str) -> None:
    response = await AsyncClient().get(path)

    policy = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert response.headers["cache-control"] == "no-store"
    page = response.content.decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|<style|hx-on|javascript:", page)
    assert all(url.startswith("/") for url in re.findall(r'(?:src|href|hx-get)="([^"]+)"', page))


async def test_pages_are_read_and_not_written_to(our_database: str) -> None:
    assert (await AsyncClient().post("/ui/")).status_code == 405


async def test_without_a_database_the_page_says_so(use_database: Callable[[str], None]) -> None:
    use_database("postgresql://nobody@127.0.0.1:1/nothing")

    response = await AsyncClient().get("/ui/")

    assert response.status_code == 503
    assert "The database does not answer" in response.content.decode()


def test_every_status_and_outcome_has_a_word_that_the_style_sheet_may_colour() -> None:
    sheet = finders.find("dashboard/dashboard.css")
    assert isinstance(sheet, str)
    with open(sheet) as file:  # noqa: PTH123
        coloured = set(re.findall(r"\.badge\.([a-z-]+)", file.read()))

    assert coloured <= {*Status, *Outcome}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "now"), (1, "1 s ago"), (59, "59 s ago"), (150, "2 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_time_is_as_short_as_it_is_still_useful(seconds: float, words: str) -> None:
    assert since(NOW - timedelta(seconds=seconds), NOW) == words
