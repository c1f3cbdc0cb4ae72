"""At the door: whom a request comes from, by the token that it bears or by its session.

With PERDURE_AUTH=off whoever reaches the web process over loopback, and through no proxy, is an admin.
"""

from __future__ import annotations

import ipaddress
import time

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from runtime.accounts import people
from runtime.accounts.audit import DENIED, note
from runtime.accounts.tokens import Tokens
from runtime.conf import settings
from runtime.core.access import Actor, Role
from runtime.core.audit import Act
from runtime.errors import RuntimeFault

BEARER = "bearer "
QUIET = 10.0  # seconds between two notes of the same denial: nobody floods the log
MOST_NOTED = 10_000  # of these kept in mind
NOBODY, ANYONE = "nobody", "anyone"

tokens = Tokens()


class NotSignedIn(RuntimeFault):
    """Nobody says who asks, or nobody goes by what they say."""

    code = "not_signed_in"
    hint = "Send `Authorization: Bearer TOKEN`; ./dev up keeps one in .perdure/token, `token create` makes others."


class NotAllowed(RuntimeFault):
    """Whoever asks may not do this."""

    code = "not_allowed"


async def whose(request: HttpRequest) -> Actor | None:
    """Whom a request comes from; None: they do not say. Raises NotSignedIn for what lets nobody in, NotAllowed."""
    origin = request.META.get("REMOTE_ADDR", "")
    if bears_token(request):
        found = await tokens.actor(request.headers["Authorization"][len(BEARER) :].strip(), origin)
        if found is None:
            await note_denied(Act(Actor(NOBODY, Role.VIEWER, origin), "token.use", ""))
            raise NotSignedIn("This token lets nobody in: it is none of ours, has expired or was revoked.")
        return found
    found = await people.person(await request.auser(), origin)
    if found is None and not settings().auth:
        if not _is_near(request):
            raise NotAllowed("PERDURE_AUTH=off is for this machine only, and this request comes from elsewhere.")
        return Actor(ANYONE, Role.ADMIN, origin)
    return found


def bears_token(request: HttpRequest) -> bool:
    return request.headers.get("Authorization", "").lower().startswith(BEARER)


_noted: dict[tuple[str, str, str], float] = {}


async def note_denied(act: Act, kind: str = "") -> None:
    """Add a denial to the audit log, unless one of its kind, by the same actor, was just added."""
    now, alike = time.monotonic(), (act.actor.name, act.actor.origin, kind or act.verb)
    if now - _noted.get(alike, -QUIET) >= QUIET:
        if len(_noted) >= MOST_NOTED:
            _noted.clear()
        _noted[alike] = now
        await sync_to_async(note)(act, DENIED)


def _is_near(request: HttpRequest) -> bool:
    """Whether it came over loopback, and no proxy brought it from elsewhere."""
    if "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.META.get("SERVER_NAME", "")).is_loopback
    except ValueError:
        return False
