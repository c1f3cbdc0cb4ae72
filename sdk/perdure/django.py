"""Sends from inside a Django application's own transaction: the message exists if and only if that commits.

The one module here that knows Django (`pip install 'perdure[django]'`). It works through the application's connection,
so Perdure's tables must be in that database, and the connection's role must have been granted `perdure_send_bytes`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar, cast, overload

from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connections

from perdure.clients import AnySendClient, sending
from perdure.durations import want_duration
from perdure.errors import SdkError, UsageError
from perdure.futures import SendHandle
from perdure.service import Service, VirtualObject

S = TypeVar("S", bound=Service)
O = TypeVar("O", bound=VirtualObject)  # noqa: E741

SEND = "SELECT perdure_send_bytes(%s::text, %s::text, %s::bytea, %s::text, %s::interval, %s::text)"
CURES = {
    "42883": "There is no Perdure in the database {using!r}: name the one that holds its tables with `using=`.",
    "42501": "Who migrated the database {using!r} must say: GRANT EXECUTE ON FUNCTION perdure_send_bytes TO {role};",
}


class OutboxUnavailable(SdkError):
    """The application's connection cannot send."""

    code = "outbox_unavailable"


@overload
def send(
    service: type[S], /, *, delay: timedelta | None = None, idempotency_key: str | None = None, using: str = ...
) -> type[S]: ...
@overload
def send(
    kind: type[O], key: str, /, *, delay: timedelta | None = None, idempotency_key: str | None = None, using: str = ...
) -> type[O]: ...
@overload
def send(
    name: str,
    key: str | None = None,
    /,
    *,
    delay: timedelta | None = None,
    idempotency_key: str | None = None,
    using: str = ...,
) -> AnySendClient: ...
def send(
    service: Any,
    key: str | None = None,
    /,
    *,
    delay: timedelta | None = None,
    idempotency_key: str | None = None,
    using: str = DEFAULT_DB_ALIAS,
) -> Any:
    """Send to a service or an object as part of the transaction that is open, and without one at once.

    `using` names the connection, as everywhere in Django: it must be the one whose transaction decides. The delay
    counts from here. What the runtime knows to be wrong is raised as Django's DatabaseError, OutboxUnavailable when
    there is no way to send; either way PostgreSQL then undoes the transaction, or its savepoint.

    >>> def place(order):
    ...     with transaction.atomic():
    ...         order.save()
    ...         send(Mailbox, "Mary", delay=timedelta(minutes=5)).put("Your order is on its way")
    """
    if delay is not None:
        want_duration(delay, "delay=")
    name = service if isinstance(service, str) else service.__perdure__.name
    route = _OutboxRoute(name, key, delay, idempotency_key, using)
    return (AnySendClient if isinstance(service, str) else sending(service))(route)


def invocation_id(handle: SendHandle) -> str:
    """The id of the invocation that a message becomes: `invocation_id(send(Mailbox, "Mary").put("Hi"))`."""
    if not isinstance(handle, _Sent):
        raise UsageError("This is for what perdure.django.send gives.")
    return handle.id


class _Sent:
    """What a send gives; to type checkers a SendHandle, as that of every client."""

    __slots__ = ("id",)

    def __init__(self, id: str) -> None:
        self.id = id

    def __repr__(self) -> str:
        return f"<sent as {self.id}>"

    async def invocation_id(self) -> str:
        return self.id


class _OutboxRoute:
    """The way to a service or an object: what `clients.Route` is inside handlers."""

    __slots__ = ("_delay", "_idempotency_key", "_key", "_name", "_using")

    def __init__(
        self, name: str, key: str | None, delay: timedelta | None, idempotency_key: str | None, using: str
    ) -> None:
        self._name = name
        self._key = key
        self._delay = delay
        self._idempotency_key = idempotency_key
        self._using = using

    def call(self, *_: Any) -> Any:
        raise UsageError("A transaction cannot wait for an answer.")

    def send(self, handler: str, body: bytes, content_type: str | None) -> SendHandle:
        connection = connections[self._using]
        if connection.vendor != "postgresql":
            raise OutboxUnavailable(f"The database {self._using!r} is no PostgreSQL, so Perdure cannot be in it.")
        delay = None if self._delay is None else f"{self._delay.total_seconds():f} s"
        try:
            with connection.cursor() as cursor:
                cursor.execute(SEND, [self._name, handler, body, self._key, delay, self._idempotency_key])
                (id,) = cursor.fetchone()
        except ProgrammingError as error:
            cure = CURES.get(getattr(error.__cause__, "sqlstate", ""))
            if cure is None:
                raise
            role = connection.settings_dict["USER"] or "this role"
            raise OutboxUnavailable(cure.format(using=self._using, role=role)) from error
        return cast(SendHandle, _Sent(id))
