"""Trust: the tokens that let programs in, and the log of who did what."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from ninja import Path, Query, Router, Schema, Status
from pydantic import AwareDatetime, Field

from runtime.accounts import audit, tokens
from runtime.api.guard import actor, admin, operator
from runtime.api.parameters import refuse_others
from runtime.api.problems import Problem
from runtime.core.access import Role
from runtime.models import AuditEntry
from runtime.models import Token as TokenRow

router = Router(tags=["trust"])

ROLES = {role.name.lower(): role for role in Role}
RoleName = Literal["viewer", "operator", "admin"]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Number = Annotated[int, Path(ge=1, lt=2**63)]
MOST = 1_000


class NewToken(Schema, extra="forbid"):
    name: Text
    """What uses it."""
    role: RoleName
    services: list[Text] | None = Field(None, min_length=1, max_length=1000)
    """The only services that it is for; null: all."""
    sees_payloads: bool | None = None
    """Null: operators and admins do."""
    days: float | None = Field(None, gt=0, le=36_500)
    """How long it lives; null: until it is revoked."""


class Token(Schema):
    id: int
    name: str
    role: str
    services: list[str] | None
    sees_payloads: bool
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""

    @classmethod
    def of(cls, row: TokenRow, **more: Any) -> Self:
        fields = {name: getattr(row, name) for name in Token.model_fields if name != "role"}
        return cls(role=Role(row.role).name.lower(), **fields, **more)


class MadeToken(Token):
    secret: str
    """Told here and never again."""
    note: str | None = None
    """What may be a slip: services that are not registered."""


class Tokens(Schema):
    tokens: list[Token]


class AuditListing(Schema):
    """What is to be seen of the log."""

    actor: Text | None = None
    verb: Text | None = None
    """As in `invocation.cancel`; one that ends with a dot means all of its kind."""
    target: Text | None = None
    result: Text | None = None
    since: AwareDatetime | None = None
    before: Annotated[int | None, Field(ge=1, lt=2**63)] = None
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=MOST)] = 100


class Entry(Schema):
    id: int
    at: datetime
    actor: str
    role: str
    origin: str
    """An address, or `shell`."""
    verb: str
    target: str
    details: dict[str, Any]
    result: str


class Log(Schema):
    entries: list[Entry]
    next: int | None
    """The `before` of the next page; null: this is the last one."""


@router.get("/tokens", response={200: Tokens, 503: Problem}, auth=admin, summary="The tokens that let programs in")
async def list_tokens(request: HttpRequest) -> Any:
    return {"tokens": [Token.of(row) for row in await sync_to_async(tokens.tokens)()]}


@router.post("/tokens", response={201: MadeToken, 400: Problem, 503: Problem}, auth=admin, summary="Make a token")
async def create_token(request: HttpRequest, wanted: NewToken) -> Any:
    """Its secret is in this answer, and kept nowhere."""
    row, secret = await sync_to_async(tokens.make_token)(
        actor(request),
        wanted.name,
        ROLES[wanted.role],
        services=wanted.services,
        sees_payloads=wanted.sees_payloads,
        lifetime=None if wanted.days is None else timedelta(days=wanted.days),
    )
    return Status(201, MadeToken.of(row, secret=secret, note=await sync_to_async(tokens.unregistered)(row)))


@router.delete(
    "/tokens/{id}",
    response={204: None, 400: Problem, 404: Problem, 503: Problem},
    auth=admin,
    summary="Let nobody in with a token any more",
)
async def revoke_token(request: HttpRequest, id: Number) -> Any:
    """What was let in before may still ask for 5 seconds."""
    if not await sync_to_async(tokens.revoke_token)(actor(request), id):
        return Status(404, Problem(message=f"There is no token {id}."))
    return Status(204, None)


@router.get(
    "/audit",
    response={200: Log, 400: Problem, 503: Problem},
    auth=operator,
    summary="Who did what, the newest first",
)
async def list_audit(request: HttpRequest, wanted: Query[AuditListing]) -> Any:
    """Denied requests too. Unknown parameters are refused."""
    refuse_others(request, AuditListing)
    entries: list[AuditEntry] = await sync_to_async(audit.audit)(**wanted.dict())
    return {"entries": entries, "next": entries[-1].pk if len(entries) == wanted.limit else None}
