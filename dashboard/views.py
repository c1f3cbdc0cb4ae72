"""The dashboard's views: they ask, and hand the answer to a template."""

from __future__ import annotations

from contextlib import suppress

from django.contrib.auth import alogin, alogout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard import queries
from dashboard.page import API_POLICY, introduce, open_page, page
from runtime.accounts import people
from runtime.accounts.door import NotAllowed, NotSignedIn
from runtime.accounts.faults import TooManyTries, WrongPassword


@require_safe
@page
async def overview(request: HttpRequest) -> HttpResponse:
    """Services and the latest invocations."""
    return render(request, "dashboard/overview.html", {"overview": await queries.overview()})


@require_safe
@page
async def latest(request: HttpRequest) -> HttpResponse:
    """The latest invocations alone: what the overview refreshes itself with."""
    return render(request, "dashboard/latest.html", {"latest": await queries.latest()})


@require_safe
@page
async def invocation(request: HttpRequest, id: str) -> HttpResponse:
    """One invocation: what keeps it, and what it did."""
    detail = await queries.invocation(id, request.actor)  # type: ignore[attr-defined]
    if detail is None:
        return _nothing(request, f"There is no invocation {id}, or none any more.")
    return render(request, "dashboard/invocation.html", {"detail": detail})


@require_safe
@open_page
async def missing(request: HttpRequest, path: str) -> HttpResponse:
    """Where there is no page."""
    with suppress(NotSignedIn, NotAllowed):
        await introduce(request)
    return _nothing(request, f"There is no page at {request.path}.")


@require_safe
@open_page
async def api(request: HttpRequest) -> HttpResponse:
    """The operators' API as a page: for whoever may read its document, which is everybody."""
    with suppress(NotSignedIn, NotAllowed):
        await introduce(request)
    response = render(request, "dashboard/api.html")
    response.headers["Content-Security-Policy"] = API_POLICY
    return response


@require_http_methods(["GET", "HEAD", "POST"])
@open_page
async def sign_in(request: HttpRequest) -> HttpResponse:
    """A form for name and password, and what became of them."""
    asked = request.POST if request.method == "POST" else request.GET
    shown = {"next": asked.get("next", ""), "name": asked.get("name", "")}
    if request.method != "POST":
        return render(request, "dashboard/sign_in.html", shown)
    try:
        user = await people.sign_in(shown["name"], asked.get("password", ""), request.META.get("REMOTE_ADDR", ""))
    except WrongPassword as fault:
        return render(request, "dashboard/sign_in.html", {**shown, "refusal": str(fault)}, status=403)
    except TooManyTries as fault:
        refused = render(request, "dashboard/sign_in.html", {**shown, "refusal": f"{fault} {fault.hint}"}, status=429)
        refused.headers["Retry-After"] = str(fault.seconds)
        return refused
    await alogin(request, user)
    ours = url_has_allowed_host_and_scheme(shown["next"], allowed_hosts={request.get_host()})
    return HttpResponseRedirect(shown["next"] if ours else reverse("dashboard:overview"))


@require_POST
@open_page
async def sign_out(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponseRedirect(reverse("dashboard:sign_in"))


def _nothing(request: HttpRequest, what: str) -> HttpResponse:
    return render(request, "dashboard/missing.html", {"what": what}, status=404)
