"""Virtual objects: who has a key, who waits for it, and its values, to be seen and changed."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from django.http import HttpRequest
from ninja import Query, Router, Schema, Status
from pydantic import Field

from perdure.protocol.ids import format_id
from runtime import editing, hall
from runtime.api.filters import Text
from runtime.api.guard import actor, operator, touch, viewer
from runtime.api.names import Name
from runtime.api.parameters import refuse_others
from runtime.api.paths import Key, Service
from runtime.api.problems import Problem
from runtime.conf import settings
from runtime.core import edits
from runtime.core.edits import Edit
from runtime.core.lifecycle import CommandRefused
from runtime.core.registry import UnknownService
from runtime.reading import objects, services
from runtime.reading.journal import payload

router = Router(tags=["virtual objects"])

Bytes = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class KeyListing(Schema):
    """Which keys, and how many of them."""

    service: Text | None = None
    prefix: Text | None = None
    """Those that begin so."""
    busy: bool = False
    """Those that somebody has or waits for."""
    limit: Annotated[int, Field(ge=1, le=objects.MOST)] = 100
    cursor: Text | None = None
    """`next` of the page before."""


class InboxListing(Schema):
    """How much of an inbox."""

    limit: Annotated[int, Field(ge=1, le=objects.MOST)] = 100
    after: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """`next` of the page before."""


class HistoryListing(Schema):
    """How much of the history."""

    name: Text | None = None
    """Of one value."""
    limit: Annotated[int, Field(ge=1, le=objects.MOST)] = 100
    before: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """`next` of the page before."""


class KeyHolder(Schema):
    """The invocation that has a key."""

    id: str
    handler: str
    status: str
    since: datetime
    engine: str | None
    """Which drives it; null: it is suspended, paused or backs off, and keeps its key."""


class ObjectKey(Schema):
    service: str
    key: str
    holder: KeyHolder | None
    inbox_length: int
    """Those who have the key or wait for it, counted up to 1,000."""
    has_state: bool


class ObjectKeys(Schema):
    objects: list[ObjectKey]
    next: str | None
    """The `cursor` of the next page; null: this is the last one."""


class InboxPlace(Schema):
    """A place in the inbox."""

    position: int
    id: str
    handler: str
    status: str
    created_at: datetime


class VirtualObject(Schema):
    service: str
    key: str
    holder: KeyHolder | None
    inbox_length: int
    inbox: list[InboxPlace]
    """In order; the first one has the key, or is the next to have it."""
    next: int | None
    """What `after` says to see more of the inbox; null: this is the end of it."""
    has_state: bool


class ObjectState(Schema):
    """An object's committed values. A running handler may be about to change them."""

    version: str
    """To be given back with a change that is meant for these values."""
    state: dict[str, Any]
    """Those that are JSON, as they are."""
    base64: dict[str, str]
    """The others."""
    hidden: list[str]
    """The names of all, to those who may not see payloads."""


class StateReplacement(Schema, extra="forbid"):
    """What all values are to be."""

    version: str | None = None
    """That of the values that are meant; without one, whatever they are."""
    state: dict[str, Any]
    base64: dict[str, Bytes] = Field(default_factory=dict)


class StatePatch(Schema, extra="forbid"):
    """What single values are to be."""

    version: str | None = None
    """That of the values that are meant; without one, whatever they are."""
    set: dict[str, Any] = Field(default_factory=dict)
    set_base64: dict[str, Bytes] = Field(default_factory=dict)
    clear: list[str] = Field(default_factory=list)


class ModifiedState(Schema, extra="forbid"):
    """What all values are to be, as Restate's tools say it."""

    object_key: Text
    new_state: dict[str, list[Annotated[int, Field(ge=0, le=255)]]]
    """Each value as a list of its bytes."""
    version: str | None = None


class StateEdited(Schema):
    """What has come of it."""

    invocation_id: str
    """The change is an invocation of the key, which waits in the inbox like any other."""
    version: str | None = None
    """Of the values now; null: its turn has not come yet."""
    note: str | None = None


class StateConflict(Problem):
    """The values are not those that were meant."""

    version: str | None = None
    """The one they have; null: it was cancelled."""


class StateChange(Schema):
    """What became of a value."""

    position: int
    at: datetime
    name: str
    before: dict[str, Any] | None
    """As `{"json": …}`, `{"text": …}` or `{"base64": …}`; null: there was none."""
    after: dict[str, Any] | None
    """Null: it was cleared."""
    by: str | None
    """The person who did it; null: a handler."""
    invocation_id: str
    handler: str | None
    """Null: it was a change by a person."""


class StateHistory(Schema):
    changes: list[StateChange]
    """Newest first."""
    hidden: bool
    """Whether the values are left out, for one who may not see payloads."""
    next: int | None
    """What `before` says to see older ones; null: there are none."""


@router.get(
    "/objects",
    response={200: ObjectKeys, 400: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="The keys of virtual objects, in order",
)
async def list_objects(request: HttpRequest, wanted: Query[KeyListing]) -> Any:
    """Those that have values, or that somebody has or waits for. Unknown parameters are refused."""
    refuse_others(request, KeyListing)
    scope = actor(request).services
    page = await objects.page(**wanted.dict(), services=None if scope is None else sorted(scope))
    return ObjectKeys(objects=[ObjectKey.from_orm(one) for one in page.objects], next=page.next)


@router.get(
    "/objects/{service}/{key}",
    response={200: VirtualObject, 400: Problem, 403: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="One key: who has it, and its inbox in order",
)
async def get_object(request: HttpRequest, service: Service, key: Key, wanted: Query[InboxListing]) -> Any:
    """A key that nobody has ever used is there too: it holds nothing."""
    await touch(request, service)
    refuse_others(request, InboxListing)
    found = await objects.find(service, key, **wanted.dict())
    if not (found.inbox_length or found.has_state):
        await _must_be_object(service)
    return VirtualObject.from_orm(found)


@router.get(
    "/objects/{service}/{key}/state",
    response={200: ObjectState, 400: Problem, 403: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="An object's values, and their version",
)
async def get_state(request: HttpRequest, service: Service, key: Key) -> Any:
    await touch(request, service)
    values = await objects.values(service, key)
    if not values:
        await _must_be_object(service)
    version = edits.version(values, settings().version_key(service, key))
    if not actor(request).sees_payloads:
        return ObjectState(version=version, state={}, base64={}, hidden=list(values))
    state, base64 = dict[str, Any](), dict[str, str]()
    for name, value in values.items():
        try:
            state[name] = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            base64[name] = b64encode(value).decode()
    return ObjectState(version=version, state=state, base64=base64, hidden=[])


EDIT: dict[int, Any] = {
    200: StateEdited,
    202: StateEdited,
    400: Problem,
    403: Problem,
    404: Problem,
    409: StateConflict,
    413: Problem,
    422: Problem,
    503: Problem,
}
Wait = Annotated[float, Query(ge=0, le=5)]


@router.put(
    "/objects/{service}/{key}/state", response=EDIT, auth=operator.scoped, summary="Replace all values of an object"
)
async def replace_state(
    request: HttpRequest, service: Service, key: Key, wanted: StateReplacement, wait: Wait = editing.PATIENCE
) -> Any:
    """In its turn, behind a running handler and who waits before it. 202: that has not come within `wait` seconds.

    With the `version` of what was seen, 409 says that the values are others by now, and which version they have.
    """
    values = {**_as_json(wanted.state), **_as_bytes(wanted.base64)}
    edit = Edit(by=actor(request).name, expected=wanted.version, set=values, replaces=True)
    return await _edit(request, service, key, edit, wait)


@router.patch(
    "/objects/{service}/{key}/state", response=EDIT, auth=operator.scoped, summary="Set and clear values of an object"
)
async def patch_state(
    request: HttpRequest, service: Service, key: Key, wanted: StatePatch, wait: Wait = editing.PATIENCE
) -> Any:
    """As a replacement, but for the values that are not named: those stay as they are."""
    values = {**_as_json(wanted.set), **_as_bytes(wanted.set_base64)}
    if both := values.keys() & set(wanted.clear):
        raise CommandRefused(f"{min(both)!r} cannot be set and cleared at once.")
    edit = Edit(by=actor(request).name, expected=wanted.version, set=values, clear=wanted.clear)
    return await _edit(request, service, key, edit, wait)


@router.post(
    "/services/{service}/state",
    response=EDIT,
    auth=operator.scoped,
    summary="Replace all values of an object, Restate's way",
)
async def modify_service_state(request: HttpRequest, service: Name, wanted: ModifiedState) -> Any:
    """202: it waits for its turn. The `version` is one that /objects/{service}/{key}/state has told."""
    values = {name: bytes(value) for name, value in wanted.new_state.items()}
    edit = Edit(by=actor(request).name, expected=wanted.version, set=values, replaces=True)
    return await _edit(request, service, wanted.object_key, edit, wait=0)


@router.get(
    "/objects/{service}/{key}/history",
    response={200: StateHistory, 400: Problem, 403: Problem, 404: Problem, 503: Problem},
    auth=viewer.scoped,
    summary="What became of an object's values, newest first",
)
async def get_history(request: HttpRequest, service: Service, key: Key, wanted: Query[HistoryListing]) -> Any:
    """What people did is always there; what handlers did, where their service says `state_history`."""
    await touch(request, service)
    refuse_others(request, HistoryListing)
    limit = wanted.limit
    found = await objects.history(service, key, name=wanted.name, before=wanted.before, limit=limit + 1)
    if not found:
        await _must_be_object(service)
    sees = actor(request).sees_payloads
    return StateHistory(
        changes=[_change(one, sees=sees) for one in found[:limit]],
        hidden=not sees,
        next=found[limit - 1].position if len(found) > limit else None,
    )


async def _edit(request: HttpRequest, service: str, key: str, edit: Edit, wait: float) -> Any:
    await touch(request, service)
    edited = await editing.edit(await hall.operations(), service, key, edit, actor(request), patience=wait)
    id = format_id(edited.id)
    if edited.is_under_way:
        return Status(
            202, StateEdited(invocation_id=id, note=f"It waits for its turn: /invocations/{id} says whether it came.")
        )
    failure = edited.failure
    if failure is None:
        return StateEdited(invocation_id=id, version=edited.version)
    if failure.code == edits.CONFLICT:
        return Status(409, StateConflict(message=failure.message, version=edited.version))
    return Status(422, Problem(message=f"The values stay as they were: {failure.message}"))


def _as_json(values: Mapping[str, Any]) -> dict[str, bytes]:
    """Values as handlers store them; raises CommandRefused for what JSON does not have."""
    try:
        return {
            name: json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
            for name, value in values.items()
        }
    except (ValueError, RecursionError) as error:
        raise CommandRefused(f"A value cannot be written as JSON: {error}.") from error


def _as_bytes(values: Mapping[str, str]) -> dict[str, bytes]:
    """Raises CommandRefused for what is no base64."""
    try:
        return {name: b64decode(value, validate=True) for name, value in values.items()}
    except ValueError as error:
        raise CommandRefused(f"A value is no base64: {error}.") from error


def _change(change: objects.Change, *, sees: bool) -> StateChange:
    def shown(value: bytes | None) -> dict[str, Any] | None:
        return None if value is None or not sees else payload(value)

    return StateChange(
        position=change.position,
        at=change.at,
        name=change.name,
        before=shown(change.before),
        after=shown(change.after),
        by=change.by,
        invocation_id=change.invocation_id,
        handler=change.handler,
    )


async def _must_be_object(service: str) -> None:
    """Raises UnknownService, CommandRefused."""
    served = await services.service(service)
    if served is None:
        raise UnknownService(f"There is no service {service!r}.")
    if not served.info.is_keyed:
        raise CommandRefused(f"{service!r} is no object: it has no keys.")
