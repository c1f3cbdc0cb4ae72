"""People: their accounts, and how they sign in and out."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient

from runtime.accounts import people
from runtime.accounts.faults import AccountFault, WrongPassword
from runtime.core.access import Role
from runtime.models import AuditEntry
from tests.support.accounts import FOUNDER, PASSWORD, account, last_entry

pytestmark = pytest.mark.usefixtures("guarded")


async def signed_in(name: str, password: str = PASSWORD) -> tuple[AsyncClient, int]:
    client = AsyncClient()
    answer = await client.post("/ui/sign-in", {"name": name, "password": password})
    return client, answer.status_code


async def test_people_sign_in_and_out_on_a_page() -> None:
    await account("mary", Role.VIEWER)
    stranger = await AsyncClient().get("/ui/")
    assert (stranger.status_code, stranger.headers["location"]) == (302, "/ui/sign-in?next=%2Fui%2F")

    client, status = await signed_in("mary")

    assert status == 302
    assert "mary" in (await client.get("/ui/")).content.decode()
    assert (await client.get("/services")).status_code == 200
    await client.post("/ui/sign-out")
    assert (await client.get("/ui/")).status_code == 302


async def test_a_part_of_a_page_sends_its_page_to_the_sign_in() -> None:
    answer = await AsyncClient().get("/ui/latest", headers={"HX-Request": "true"})

    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/ui/sign-in")


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
async def test_signing_in_leads_nowhere_else(elsewhere: str) -> None:
    await account("mary", Role.VIEWER)

    answer = await AsyncClient().post("/ui/sign-in", {"name": "mary", "password": PASSWORD, "next": elsewhere})

    assert answer.headers["location"] == "/ui/"


async def test_a_wrong_password_an_unknown_name_and_no_role_are_refused_alike() -> None:
    await account("mary", Role.VIEWER)
    await User.objects.acreate_user("roleless", password=PASSWORD)
    wrong = [("mary", "not this"), ("nobody", PASSWORD), ("roleless", PASSWORD)]

    pages = [await AsyncClient().post("/ui/sign-in", {"name": name, "password": word}) for name, word in wrong]

    assert [page.status_code for page in pages] == [403, 403, 403]
    assert all("No account with a role goes by this name and password." in page.content.decode() for page in pages)
    assert (await last_entry(verb="account.sign_in", target="mary")).result == "denied"


async def test_after_some_failures_not_even_the_right_password_is_looked_at() -> None:
    await account("mary", Role.VIEWER)
    for _ in range(people.TRIES["account and address"]):
        assert (await signed_in("mary", "wrong"))[1] == 403

    refused = await AsyncClient().post("/ui/sign-in", {"name": "mary", "password": PASSWORD})

    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 300
    await AuditEntry.objects.all().aupdate(at="2020-01-01T00:00:00Z")
    assert (await signed_in("mary"))[1] == 302


async def test_a_session_needs_a_csrf_token_to_change_something() -> None:
    await account("boss", Role.ADMIN)
    _, status = await signed_in("boss")
    assert status == 302
    client = AsyncClient(enforce_csrf_checks=True)
    page = await client.get("/ui/sign-in")
    token = page.cookies["csrftoken"].value
    form = {"name": "boss", "password": PASSWORD, "csrfmiddlewaretoken": token}
    assert (await client.post("/ui/sign-in", form)).status_code == 302
    wanted = {"name": "ci", "role": "viewer"}

    without = await client.post("/tokens", wanted, content_type="application/json")
    token = client.cookies["csrftoken"].value
    having = await client.post("/tokens", wanted, content_type="application/json", headers={"X-CSRFToken": token})

    assert (without.status_code, having.status_code) == (403, 201)


async def test_a_header_that_is_no_token_does_not_stand_for_the_csrf_token() -> None:
    await account("boss", Role.ADMIN)
    client = AsyncClient(enforce_csrf_checks=True)
    page = await client.get("/ui/sign-in")
    form = {"name": "boss", "password": PASSWORD, "csrfmiddlewaretoken": page.cookies["csrftoken"].value}
    assert (await client.post("/ui/sign-in", form)).status_code == 302

    wanted = {"name": "ci", "role": "viewer"}
    basic = {"Authorization": "Basic eDp5"}
    answer = await client.post("/tokens", wanted, content_type="application/json", headers=basic)

    assert answer.status_code == 403


async def test_tries_at_once_are_looked_at_one_after_another() -> None:
    await account("mary", Role.VIEWER)
    limit = people.TRIES["account and address"]

    answers = await asyncio.gather(*(signed_in("mary", "wrong") for _ in range(3 * limit)))

    assert sorted(status for _, status in answers) == [403] * limit + [429] * 2 * limit


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 10_000, ""])
async def test_a_name_that_nobody_can_have_is_refused_like_any_other(name: str) -> None:
    with pytest.raises(WrongPassword):
        await people.sign_in(name, PASSWORD, "here")


async def test_a_closed_account_is_shut_out_at_once_and_let_in_again() -> None:
    await account("mary", Role.VIEWER)
    client, _ = await signed_in("mary")

    await sync_to_async(people.change_account)(FOUNDER, "mary", is_open=False)
    shut = (await client.get("/ui/")).status_code, (await signed_in("mary"))[1]
    await sync_to_async(people.change_account)(FOUNDER, "mary", is_open=True)

    assert shut == (302, 403)
    assert (await signed_in("mary"))[1] == 302


async def test_a_role_is_changed_and_payloads_are_a_permission() -> None:
    user = await account("mary", Role.VIEWER)
    seen = [await people.person(await User.objects.aget(pk=user.pk), "here")]
    await sync_to_async(people.change_account)(FOUNDER, "mary", sees_payloads=True)
    seen.append(await people.person(await User.objects.aget(pk=user.pk), "here"))
    await sync_to_async(people.change_account)(FOUNDER, "mary", role=Role.OPERATOR, sees_payloads=False)
    seen.append(await people.person(await User.objects.aget(pk=user.pk), "here"))

    assert [(one.role, one.sees_payloads) for one in seen if one] == [
        (Role.VIEWER, False), (Role.VIEWER, True), (Role.OPERATOR, True),
    ]  # fmt: skip


async def test_a_password_that_is_easily_guessed_is_refused() -> None:
    with pytest.raises(AccountFault, match="too common"):
        await sync_to_async(people.make_account)(FOUNDER, "mary", Role.ADMIN, "password1")

    assert not await User.objects.aexists()
