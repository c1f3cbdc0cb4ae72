"""The guard: who a request comes from, and whether they may.

Each operation names its role as its `auth`. A token or an account says who asks; with PERDURE_AUTH=off whoever reaches
the web process over loopback is an admin. A token for some services only is refused by every operation that does not
say that it keeps to them (`viewer.scoped`).
"""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest
from ninja.security.base import SecuritySchema
from ninja.utils import check_csrf

from runtime.accounts.door import NotAllowed, NotSignedIn, bears_token, note_denied, whose
from runtime.conf import settings
from runtime.core.access import Actor, Role
from runtime.core.audit import Act
from runtime.operations import UnknownInvocation
from runtime.reading import invocations

SAFE = ("GET", "HEAD", "OPTIONS")


class Needs:
    """A role as ninja takes it: answers with the actor; raises NotSignedIn, NotAllowed."""

    openapi_security_schema = SecuritySchema(type="http", scheme="bearer")

    def __init__(self, role: Role, *, is_scoped: bool = False) -> None:
        self.role = role
        self._is_scoped = is_scoped

    @property
    def scoped(self) -> Needs:
        """For an operation that keeps to the services of whom it is asked by, where they have only some."""
        return Needs(self.role, is_scoped=True)

    async def __call__(self, request: HttpRequest) -> Actor:
        found = await whose(request)
        if found is None:
            raise NotSignedIn("Who asks?")
        by_session = settings().auth and not bears_token(request)
        if by_session and request.method not in SAFE and check_csrf(request) is not None:
            raise NotAllowed("This comes with a session, and without its CSRF token in X-CSRFToken.")
        if found.role < self.role:
            needed = self.role.name.lower()
            raise await _denied(request, found, f"This needs the role {needed}; {found.name} is {_a(found.role)}.")
        if found.services is not None and not self._is_scoped:
            raise await _denied(request, found, f"{found.name} is for some services only, and this is about all.")
        return found


viewer, operator, admin = Needs(Role.VIEWER), Needs(Role.OPERATOR), Needs(Role.ADMIN)


def actor(request: HttpRequest) -> Actor:
    """Whom the guard let in."""
    return cast(Actor, request.auth)  # type: ignore[attr-defined]


async def touch(request: HttpRequest, service: str) -> None:
    """Raise NotAllowed when a service is out of the bounds of whoever asks."""
    if not actor(request).may_touch(service):
        raise await _denied(request, actor(request), f"{actor(request).name} is not for the service {service}.")


async def reach(request: HttpRequest, invocation: bytes) -> None:
    """As `touch`, of an invocation's service. Raises UnknownInvocation too, for who is bounded may not act on what he
    has not been found to reach: it could be born between this look and the act."""
    if actor(request).services is not None:
        service = await invocations.service_of(invocation)
        if service is None:
            raise UnknownInvocation(invocation)
        await touch(request, service)


async def _denied(request: HttpRequest, by: Actor, words: str) -> NotAllowed:
    act = Act(by, "request", f"{request.method} {request.path}"[:1000])
    route = request.resolver_match.route if request.resolver_match else ""
    await note_denied(act, f"{request.method} {route}")
    return NotAllowed(words)


def _a(role: Role) -> str:
    return f"{'a' if role is Role.VIEWER else 'an'} {role.name.lower()}"
