"""How a handler reaches other services: clients whose methods are the handlers of a service.

To type checkers a client is the service itself (see `service.Handler`). In truth it is of a class made here, once per
service and direction, with a method per handler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from perdure.errors import UsageError
from perdure.futures import CallFuture, SendHandle
from perdure.protocol import messages as m
from perdure.serde import Serde, serde_for
from perdure.service import Component, Handler

if TYPE_CHECKING:
    from perdure.context import Context


class Route(Protocol):
    """The way to a service or an object: the names of a client are the authors', so what it does stands here."""

    def call(self, handler: str, body: bytes, content_type: str | None, decode: Callable[[bytes], Any]) -> Any: ...

    def send(self, handler: str, body: bytes, content_type: str | None) -> Any: ...


class JournalRoute:
    """From inside a handler: by commands, which keep no content type, for the callee knows it."""

    __slots__ = ("_context", "_headers", "_idempotency_key", "_invoke_time", "_key", "_service")

    def __init__(
        self,
        context: Context,
        service: str,
        key: str,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None,
        invoke_time: Callable[[], int] | None = None,
    ) -> None:
        if idempotency_key == "":
            raise UsageError("An idempotency key cannot be empty.")
        self._context = context
        self._service = service
        self._key = key
        self._idempotency_key = idempotency_key
        self._headers = tuple(map(m.Header, headers.keys(), headers.values())) if headers else ()
        self._invoke_time = invoke_time

    def call(
        self, handler: str, body: bytes, content_type: str | None, decode: Callable[[bytes], Any]
    ) -> CallFuture[Any]:
        callee, result = self._context.machine.call(
            self._service, handler, self._key, body, self._headers, self._idempotency_key
        )
        return CallFuture(self._context, result, decode, callee)

    def send(self, handler: str, body: bytes, content_type: str | None) -> SendHandle:
        invoke_time = 0 if self._invoke_time is None else self._invoke_time()
        callee = self._context.machine.send(
            self._service, handler, self._key, body, self._headers, self._idempotency_key, invoke_time
        )
        return SendHandle(self._context, callee)


class Client:
    """The base of the classes made for services."""

    __slots__ = ("__route__",)

    def __init__(self, route: Route) -> None:
        self.__route__ = route


@lru_cache(maxsize=1024)
def calling(service: type[Component]) -> type[Client]:
    """The class of a service's clients that wait for an answer."""

    def method(handler: Handler[..., Any]) -> Callable[..., Any]:
        def call(self: Client, *args: Any, **kwargs: Any) -> Any:
            body = handler.argument(args, kwargs)
            return self.__route__.call(handler.name, body, handler.input.content_type, handler.output.decode)

        return call

    return _client_class(service, method)


@lru_cache(maxsize=1024)
def sending(service: type[Component]) -> type[Client]:
    """The class of a service's clients that do not."""

    def method(handler: Handler[..., Any]) -> Callable[..., Any]:
        def send(self: Client, *args: Any, **kwargs: Any) -> Any:
            return self.__route__.send(handler.name, handler.argument(args, kwargs), handler.input.content_type)

        return send

    return _client_class(service, method)


def _client_class(service: type[Component], method: Callable[[Handler[..., Any]], Callable[..., Any]]) -> type[Client]:
    definition = service.__perdure__
    methods = {name: method(handler) for name, handler in definition.handlers.items()}
    return type(f"{definition.name}Client", (Client,), {"__slots__": (), **methods})


# Services whose class is not at hand ---------------------------------------------------------------------------------


class AnyClient(Client):
    """Calls a service by its name: any attribute is taken for a handler, and nothing is checked.

    An argument of bytes travels as it is, others as JSON; `returns=` names the type of the answer, JSON without it.
    """

    __slots__ = ()

    def __getattr__(self, handler: str) -> Callable[..., CallFuture[Any]]:
        def call(argument: Any = None, *, returns: Any = Any) -> Any:
            serde = _serde_of(argument)
            return self.__route__.call(handler, serde.encode(argument), serde.content_type, serde_for(returns).decode)

        return call


class AnySendClient(Client):
    """Sends to a service by its name: any attribute is taken for a handler, and nothing is checked."""

    __slots__ = ()

    def __getattr__(self, handler: str) -> Callable[..., SendHandle]:
        def send(argument: Any = None) -> Any:
            serde = _serde_of(argument)
            return self.__route__.send(handler, serde.encode(argument), serde.content_type)

        return send


def _serde_of(argument: Any) -> Serde:
    return serde_for(bytes if isinstance(argument, bytes) else Any)
