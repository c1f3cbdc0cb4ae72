"""Keys with which callers may call a service at the ingress."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status
from pydantic import Field

from runtime import hall
from runtime.api.guard import actor, admin
from runtime.api.names import Name
from runtime.api.problems import Problem
from runtime.core.audit import Act
from runtime.core.registry import UnknownService
from runtime.models import IngressKey
from runtime.reading import services
from runtime.store.ingress_keys import create_key, revoke_key

router = Router(tags=["keys"])


class Key(Schema):
    id: str
    """What the key begins with. The rest of it is kept nowhere."""
    note: str
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, key: IngressKey) -> Key:
        return cls(id=key.id, note=key.note, created_at=key.created_at, created_by=key.created_by)


class Keys(Schema):
    keys: list[Key]
    """None: the service is open to whoever reaches the ingress."""


class Wanted(Schema, extra="forbid"):
    note: str = Field("", max_length=200, pattern=r"^[^\x00]*$")
    """Whose it is, or what for."""


class NewKey(Schema):
    id: str
    key: str
    """Shown now, and never again."""


class Revoked(Schema):
    id: str
    left: int
    """How many keys the service still has; 0: it is open."""


@router.get(
    "/services/{name}/keys",
    response={200: Keys, 400: Problem, 404: Problem, 503: Problem},
    auth=admin,
    summary="The keys of a service",
)
async def list_keys(request: HttpRequest, name: Name) -> Any:
    found = await services.keys(name)
    if not found and await services.service(name) is None:
        raise UnknownService(f"There is no service {name!r}.")
    return {"keys": [Key.of(key) for key in found]}


@router.post(
    "/services/{name}/keys",
    response={201: NewKey, 400: Problem, 404: Problem, 503: Problem},
    auth=admin,
    summary="A further key of a service",
)
async def add_key(request: HttpRequest, name: Name, wanted: Wanted) -> Any:
    """From the first one on, whoever calls the service at the ingress must show one: `Authorization: Bearer …`."""
    act = Act(actor(request), "key.create", name, {"note": wanted.note})
    here = await hall.operations()
    made = await here.run(lambda link: create_key(link, name, wanted.note, act))
    return Status(201, NewKey(id=made.id, key=made.key))


@router.delete(
    "/services/{name}/keys/{id}",
    response={200: Revoked, 400: Problem, 404: Problem, 409: Problem, 503: Problem},
    auth=admin,
    summary="Take a key back",
)
async def remove_key(request: HttpRequest, name: Name, id: Name, open: bool = False) -> Any:
    """Within a second no ingress takes it any more. The last one only with `open=true`: then the service is open."""
    act = Act(actor(request), "key.revoke", name, {"key": id, "open": open})
    here = await hall.operations()
    left = await here.run(lambda link: revoke_key(link, name, id, act, open=open))
    return Revoked(id=id, left=left)
