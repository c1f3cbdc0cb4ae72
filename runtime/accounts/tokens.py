"""Tokens: whom programs come in as. A secret is told once and kept nowhere."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from runtime.accounts.audit import note
from runtime.accounts.faults import AccountFault
from runtime.core.access import Actor, Role
from runtime.core.audit import Act
from runtime.models import Service, Token

BEGINNING = "perdure_"
"""Of every secret, so that it is recognised where it should not be."""

KEPT = 5.0  # seconds for which a token is not looked up again: for so long one that was revoked may go on
MOST_KEPT = 1_000
USED = timedelta(minutes=1)  # how old the note of a token's last use may become


class Tokens:
    """Tokens by their secrets, each looked up once in a few seconds at most."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[float, Token]] = {}

    async def actor(self, secret: str, origin: str) -> Actor | None:
        """Whom a secret lets in; None when it is none of ours, expired or revoked."""
        token = await self._find(_digest(secret))
        if token is None or (token.expires_at is not None and token.expires_at <= timezone.now()):
            return None
        services = None if token.services is None else frozenset(token.services)
        return Actor(f"token {token.name}", Role(token.role), origin, token.sees_payloads, services)

    async def _find(self, digest: bytes) -> Token | None:
        now = time.monotonic()
        until, token = self._kept.get(digest, (0.0, None))
        if token is not None and now < until:
            return token
        self._kept.pop(digest, None)
        token = await Token.objects.filter(digest=digest, revoked_at=None).afirst()
        if token is not None:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[digest] = (now + KEPT, token)
            lately = Q(last_used_at=None) | Q(last_used_at__lt=timezone.now() - USED)
            await Token.objects.filter(lately, pk=token.pk).aupdate(last_used_at=timezone.now())
        return token


def make_token(by: Actor, name: str, role: Role, *, services: Sequence[str] | None = None,
               sees_payloads: bool | None = None, lifetime: timedelta | None = None) -> tuple[Token, str]:  # fmt: skip
    """A new token and its secret, which is told here and never again; None as lifetime: it does not expire.

    A viewer's sees no payloads unless that is said. Raises AccountFault.
    """
    if not name.strip():
        raise AccountFault("A token needs a name: what uses it.")
    secret = BEGINNING + secrets.token_urlsafe(32)
    try:
        expires_at = None if lifetime is None else timezone.now() + lifetime
    except OverflowError:
        raise AccountFault("So far in the future no token expires: leave that away.") from None
    token = Token(
        name=name,
        digest=_digest(secret),
        role=role,
        services=None if services is None else sorted(set(services)),
        sees_payloads=role >= Role.OPERATOR if sees_payloads is None else sees_payloads,
        created_by=by.name,
        expires_at=expires_at,
    )
    with transaction.atomic():
        token.save()
        said = {"name": name, "role": role.name.lower(), "services": token.services}
        note(Act(by, "token.create", str(token.pk), said), "done")
    token.refresh_from_db()
    return token, secret


def unregistered(token: Token) -> str | None:
    """Which of a token's services are registered nowhere, in words: they may come, or it is a slip; None: all are."""
    known = set(Service.objects.filter(name__in=token.services or ()).values_list("name", flat=True))
    missing = [name for name in token.services or () if name not in known]
    if not missing:
        return None
    listed = ", ".join(missing[:20]) + (f" and {len(missing) - 20} more" if len(missing) > 20 else "")
    return f"No such service is registered yet: {listed}. The token is for what is registered under that name later."


def revoke_token(by: Actor, id: int) -> bool:
    """Let nobody in with it any more, within seconds; False when there is none, or it was revoked before."""
    with transaction.atomic():
        revoked = bool(Token.objects.filter(pk=id, revoked_at=None).update(revoked_at=timezone.now()))
        note(Act(by, "token.revoke", str(id)), "done" if revoked else "unknown")
    return revoked


def tokens() -> list[Token]:
    """All that were not revoked, the newest first."""
    return list(Token.objects.filter(revoked_at=None).order_by("-id"))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()
