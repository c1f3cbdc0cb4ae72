"""What every page has in common: whom it lets in, what it may load, and what it says when the database is away."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode

from runtime.accounts.door import NotAllowed, NotSignedIn, whose
from runtime.core.access import Actor

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], Coroutine[Any, Any, HttpResponse]]

# Our own files, and no script that is written into a page.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
API_POLICY = POLICY.replace("img-src 'self'", "img-src 'self' data:")  # Swagger UI's style sheet has its icons in it


def page(view: View[P]) -> View[P]:
    """A view for whoever may see things (`request.actor`); everybody else is led to the sign-in."""

    @wraps(view)
    async def answer(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            actor = await introduce(request)
        except (NotSignedIn, NotAllowed) as fault:
            return render(request, "dashboard/refused.html", {"reason": str(fault)}, status=403)
        if actor is None:
            return _to_sign_in(request)
        if actor.services is not None:
            reason = f"{actor.name} is for some services only, and these pages show all."
            return render(request, "dashboard/refused.html", {"reason": reason}, status=403)
        return await view(request, *args, **kwargs)

    return open_page(answer)


async def introduce(request: HttpRequest) -> Actor | None:
    """Whom a page is for, told to the page too; None: they do not say. Raises NotSignedIn, NotAllowed."""
    actor = await whose(request)
    request.actor = actor  # type: ignore[attr-defined]
    request.has_session = (await request.auser()).is_authenticated  # type: ignore[attr-defined]
    return actor


def open_page(view: View[P]) -> View[P]:
    """A view for everybody, whose answer carries the policy and is kept by no cache, for it may hold secrets."""

    @wraps(view)
    async def answer(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            response = await view(request, *args, **kwargs)
        except OperationalError:
            response = render(request, "dashboard/unavailable.html", status=503)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers["Cache-Control"] = "no-store"
        return response

    return answer


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    sign_in = reverse("dashboard:sign_in")
    if request.headers.get("HX-Request"):  # a part of a page: the page itself must go there
        return HttpResponse(status=401, headers={"HX-Redirect": sign_in})
    return HttpResponseRedirect(f"{sign_in}?{urlencode({'next': request.get_full_path()})}")
