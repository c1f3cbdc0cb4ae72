"""Those who come in at the web process, and what the log tells of them."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from runtime.accounts import people, tokens
from runtime.core.access import Actor, Role
from runtime.models import AuditEntry

FOUNDER = Actor("founder", Role.ADMIN, "tests")
PASSWORD = "an unlikely sentence"


async def bearer(role: Role, **options: Any) -> dict[str, str]:
    _, secret = await sync_to_async(tokens.make_token)(FOUNDER, f"a {role.name.lower()}'s", role, **options)
    return {"Authorization": f"Bearer {secret}"}


async def account(name: str, role: Role, **options: Any) -> User:
    return await sync_to_async(people.make_account)(FOUNDER, name, role, PASSWORD, **options)


async def last_entry(**wanted: str) -> AuditEntry:
    entry = await AuditEntry.objects.filter(**wanted).order_by("-id").afirst()
    assert entry is not None
    return entry
