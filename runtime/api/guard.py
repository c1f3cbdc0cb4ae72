"""The guard: who a request comes from, and whether they may.

Each operation names its role as its `auth`. There are no accounts yet: whoever reaches the web process, which
listens on 127.0.0.1 only, is an admin.
"""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest

from runtime.core.access import Actor, Role


class Needs:
    """A role as ninja takes it: answers with the actor, or with None for one who may not."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: HttpRequest) -> Actor | None:
        return Actor("anyone", Role.ADMIN, request.META.get("REMOTE_ADDR", ""))


viewer, operator, admin = Needs(Role.VIEWER), Needs(Role.OPERATOR), Needs(Role.ADMIN)


def actor(request: HttpRequest) -> Actor:
    """Whom the guard let in."""
    return cast(Actor, request.auth)  # type: ignore[attr-defined]
