"""A typed client of the ingress, for programs that are no handlers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta
from math import ceil
from typing import Any, ParamSpec, TypeVar, overload
from urllib.parse import quote

import msgspec

from perdure.clients import AnyClient, AnySendClient, calling, sending
from perdure.connections import Connections, Response
from perdure.durations import moment, want_duration
from perdure.errors import SdkError, TerminalError, UsageError
from perdure.serde import JSON, OCTETS, encode_stored
from perdure.service import Component, Handler, Service, VirtualObject, Workflow
from perdure.targets import path_of, target_of

T = TypeVar("T")
S = TypeVar("S", bound=Service)
O = TypeVar("O", bound=VirtualObject)  # noqa: E741
W = TypeVar("W", bound=Workflow)
P = ParamSpec("P")

INVOCATION_ID = "x-restate-id"
NOT_READY = 470


class IngressError(SdkError):
    """The ingress refused a request."""

    code = "ingress_error"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NotReady(SdkError):
    """The invocation has not ended yet."""

    code = "not_ready"
    hint = "Client.attach waits for it."


class Client:
    """Calls and sends from outside. A call that is made is on its way, awaited or not.

    Terminal errors of handlers are raised as TerminalError, refusals of the ingress as IngressError, and OSError when
    it cannot be reached. Leaving the block waits for all sends to be accepted.

    >>> async def main() -> None:
    ...     async with Client("http://127.0.0.1:8080") as client:
    ...         print(await client.service(Greeter).greet("Hi"))
    ...         handle = client.service_send(Greeter, delay=timedelta(minutes=5)).greet("Hi")
    ...         print(await handle.invocation_id())
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", *, headers: Mapping[str, str] | None = None) -> None:
        """`headers` go with every request."""
        self._connections = Connections(url)
        self._headers = dict(headers or {})
        self._sends: set[asyncio.Task[Response]] = set()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *failure: Any) -> None:
        try:
            await asyncio.gather(*self._sends, return_exceptions=failure[0] is not None)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connections; what is not answered yet fails."""
        await self._connections.close()

    @overload
    def service(
        self, service: type[S], *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> S: ...
    @overload
    def service(
        self, service: str, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AnyClient: ...
    def service(
        self, service: Any, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Call a service: `await client.service(Greeter).greet("Hi")`."""
        route = _Route(self, f"/{_name(service)}", idempotency_key, headers)
        return (AnyClient if isinstance(service, str) else calling(service))(route)

    @overload
    def object(
        self, kind: type[O], key: str, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> O: ...
    @overload
    def object(
        self, kind: str, key: str, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AnyClient: ...
    def object(
        self, kind: Any, key: str, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Call a virtual object: `await client.object(Mailbox, "Mary").put("Hi")`."""
        route = _Route(self, f"/{_name(kind)}/{quote(key, safe='')}", idempotency_key, headers)
        return (AnyClient if isinstance(kind, str) else calling(kind))(route)

    @overload
    def service_send(
        self,
        service: type[S],
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> type[S]: ...
    @overload
    def service_send(
        self,
        service: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AnySendClient: ...
    def service_send(
        self,
        service: Any,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send to a service: `await client.service_send(Greeter).greet("Hi").invocation_id()`, once it is accepted."""
        route = _Route(self, f"/{_name(service)}", idempotency_key, headers, _delay(delay, at))
        return (AnySendClient if isinstance(service, str) else sending(service))(route)

    @overload
    def object_send(
        self,
        kind: type[O],
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> type[O]: ...
    @overload
    def object_send(
        self,
        kind: str,
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AnySendClient: ...
    def object_send(
        self,
        kind: Any,
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send to a virtual object: `await client.object_send(Mailbox, "Mary").put("Hi").invocation_id()`."""
        route = _Route(self, f"/{_name(kind)}/{quote(key, safe='')}", idempotency_key, headers, _delay(delay, at))
        return (AnySendClient if isinstance(kind, str) else sending(kind))(route)

    @overload
    def workflow(self, kind: type[W], key: str, *, headers: Mapping[str, str] | None = None) -> W: ...
    @overload
    def workflow(self, kind: str, key: str, *, headers: Mapping[str, str] | None = None) -> AnyClient: ...
    def workflow(self, kind: Any, key: str, *, headers: Mapping[str, str] | None = None) -> Any:
        """Call a workflow: `await client.workflow(Signup, "Mary").confirm(secret)`.

        Its `run` runs once per key: calling that again is a TerminalError (409), and `attach` waits for its result.
        """
        route = _Route(self, f"/{_name(kind)}/{quote(key, safe='')}", None, headers)
        return (AnyClient if isinstance(kind, str) else calling(kind))(route)

    @overload
    def workflow_send(
        self,
        kind: type[W],
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> type[W]: ...
    @overload
    def workflow_send(
        self,
        kind: str,
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AnySendClient: ...
    def workflow_send(
        self,
        kind: Any,
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Start a workflow, which changes nothing when it was started before, or tell it something:
        `await client.workflow_send(Signup, "Mary").run(mail).invocation_id()`."""
        route = _Route(self, f"/{_name(kind)}/{quote(key, safe='')}", None, headers, _delay(delay, at))
        return (AnySendClient if isinstance(kind, str) else sending(kind))(route)

    @overload
    async def attach(self, invocation: str) -> Any: ...
    @overload
    async def attach(self, invocation: str, returns: type[T]) -> T: ...
    @overload
    async def attach(
        self, invocation: Handler[P, T], *, key: str | None = None, idempotency_key: str | None = None
    ) -> T: ...
    async def attach(
        self, invocation: Any, returns: Any = Any, *, key: str | None = None, idempotency_key: str | None = None
    ) -> Any:
        """Wait for an invocation that is under way, and give its result. It is named by its id, or by what it is:
        `client.attach(Signup.run, key="Mary")`, `client.attach(Greeter.greet, idempotency_key="once")`."""
        target, serde = target_of(invocation, returns, key, idempotency_key)
        response = await self.request("GET", f"{path_of(target)}/attach", {}, b"")
        return serde.decode(response.body)

    @overload
    async def output(self, invocation: str) -> Any: ...
    @overload
    async def output(self, invocation: str, returns: type[T]) -> T: ...
    @overload
    async def output(
        self, invocation: Handler[P, T], *, key: str | None = None, idempotency_key: str | None = None
    ) -> T: ...
    async def output(
        self, invocation: Any, returns: Any = Any, *, key: str | None = None, idempotency_key: str | None = None
    ) -> Any:
        """The result of an invocation that has ended; raises NotReady when it has not. It is named as for `attach`."""
        target, serde = target_of(invocation, returns, key, idempotency_key)
        response = await self.request("GET", f"{path_of(target)}/output", {}, b"")
        return serde.decode(response.body)

    async def resolve_awakeable(self, id: str, value: Any = None) -> None:
        """Answer who waits for an awakeable, as JSON (bytes as they are). Only the first answer counts."""
        content_type = OCTETS if isinstance(value, bytes) else JSON
        await self.request("POST", f"{_awakeable(id)}/resolve", {"content-type": content_type}, encode_stored(value))

    async def reject_awakeable(self, id: str, reason: str) -> None:
        """Raise a TerminalError where somebody waits for an awakeable."""
        await self.request("POST", f"{_awakeable(id)}/reject", {"content-type": "text/plain"}, reason.encode())

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Any request to the ingress; raises what stands behind a refusal."""
        response = await self._connections.request(method, path, {**self._headers, **headers}, body)
        if response.status >= 400:
            raise _error(response)
        return response

    def start(self, path: str, headers: Mapping[str, str], body: bytes) -> asyncio.Task[Response]:
        return asyncio.create_task(self.request("POST", path, headers, body))

    def start_send(self, path: str, headers: Mapping[str, str], body: bytes) -> asyncio.Task[Response]:
        task = self.start(path, headers, body)
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        return task


class _Route:
    """The way to a service or an object: what `clients.Route` is inside handlers."""

    __slots__ = ("_client", "_delay", "_headers", "_path")

    def __init__(
        self,
        client: Client,
        path: str,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None,
        delay: str = "",
    ) -> None:
        self._client = client
        self._path = path
        self._headers = dict(headers or {})
        if idempotency_key is not None:
            self._headers["idempotency-key"] = idempotency_key
        self._delay = delay

    def call(self, handler: str, body: bytes, content_type: str | None, decode: Callable[[bytes], Any]) -> _Call:
        headers = self._headers | _content_type(body, content_type)
        return _Call(self._client.start(f"{self._path}/{handler}", headers, body), decode)

    def send(self, handler: str, body: bytes, content_type: str | None) -> _Send:
        headers = self._headers | _content_type(body, content_type)
        return _Send(self._client.start_send(f"{self._path}/{handler}/send{self._delay}", headers, body))


class _Call:
    """What a call gives; to type checkers a CallFuture, which cannot be told apart by awaiting it."""

    __slots__ = ("_decode", "_response")

    def __init__(self, response: asyncio.Task[Response], decode: Callable[[bytes], Any]) -> None:
        self._response = response
        self._decode = decode

    def __await__(self) -> Generator[Any, None, Any]:
        response = yield from self._response
        return self._decode(response.body)

    async def invocation_id(self) -> str:
        return (await self._response).headers[INVOCATION_ID]


class _Send:
    """What a send gives; to type checkers a SendHandle."""

    __slots__ = ("_response",)

    def __init__(self, response: asyncio.Task[Response]) -> None:
        self._response = response

    async def invocation_id(self) -> str:
        return (await self._response).headers[INVOCATION_ID]


def _delay(delay: timedelta | None, at: datetime | None) -> str:
    """The query of a send that is due after a while, or at a time by this machine's clock; rather late than early."""
    if delay is not None and at is not None:
        raise UsageError("A send is delayed by a duration or to a time, not both.")
    if delay is not None:
        want_duration(delay, "delay=")
        return _in(delay.total_seconds())
    return "" if at is None else _in(moment(at) - time.time())


def _in(seconds: float) -> str:
    return f"?delay={ceil(max(seconds, 0.0) * 1000)}ms"


def _content_type(body: bytes, content_type: str | None) -> dict[str, str]:
    left_out = content_type == JSON and not body
    return {} if content_type is None or left_out else {"content-type": content_type}


def _name(service: type[Component] | str) -> str:
    if isinstance(service, str):
        return quote(service, safe="")
    return service.__perdure__.name


def _awakeable(id: str) -> str:
    return f"/restate/awakeables/{quote(id, safe='')}"


class _Refusal(msgspec.Struct):
    """The body of an error."""

    message: str
    code: int = 500
    metadata: dict[str, str] = {}
    source: str = "ingress"


def _error(response: Response) -> Exception:
    if response.status == NOT_READY:
        return NotReady()
    try:
        refusal = msgspec.json.decode(response.body, type=_Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return IngressError(f"The server answered {response.status}: {response.body[:200]!r}", response.status)
    if refusal.source == "invocation":
        return TerminalError(refusal.message, code=refusal.code, metadata=refusal.metadata)
    return IngressError(refusal.message, response.status)
