"""What a handler can do that lasts: its `ctx`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import ceil
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from uuid import UUID

from perdure.clients import AnyClient, AnySendClient, JournalRoute, calling, sending
from perdure.closures import Closure, failure, result_serde
from perdure.durations import moment, want_duration
from perdure.errors import TerminalError, UsageError
from perdure.futures import Awakeable, DurableFuture, Reply
from perdure.machine import Machine
from perdure.nodes import Leaf, SignalLeaf
from perdure.promises import DurablePromise
from perdure.protocol import messages as m
from perdure.protocol.ids import format_awakeable
from perdure.protocol.manifest import ServiceType
from perdure.retry import Retry
from perdure.serde import encode_stored, serde_for, stored_serde
from perdure.service import Component, Handler, Service, VirtualObject, Workflow
from perdure.targets import target_of

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=Service)
O = TypeVar("O", bound=VirtualObject)  # noqa: E741
W = TypeVar("W", bound=Workflow)


class Context:
    """One invocation, as its handler sees it. Everything here is journaled: on a replay it gives the same again."""

    def __init__(self, machine: Machine, start: m.Start, input: m.Input, key: str, clock: Callable[[], float]) -> None:
        self.unstarted: list[Closure] = []
        """Functions given to `run` that wait for the handler to wait."""
        self.task: asyncio.Task[Any] | None = None
        """The handler's own: nobody else may use this."""
        self._machine = machine
        self._start = start
        self._input = input
        self._key = key
        self._clock = clock

    @property
    def machine(self) -> Machine:
        """All that lasts goes through here, in the order of the handler's code; what runs beside that code has none."""
        try:
            here = asyncio.current_task()
        except RuntimeError:  # a thread
            here = None
        if here is not self.task:
            raise UsageError(
                "ctx, and what it gives, is for the handler's own code: not for functions given to ctx.run, nor for "
                "other tasks. perdure.gather and perdure.first take the place of asyncio's."
            )
        return self._machine

    @property
    def invocation_id(self) -> str:
        """This invocation's id, as text."""
        return self._start.debug_id

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """What came beside the argument; names are as the caller wrote them."""
        return {header.key: header.value for header in self._input.headers}

    # Others

    @overload
    def service_client(
        self, service: type[S], *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> S: ...
    @overload
    def service_client(
        self, service: str, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AnyClient: ...
    def service_client(
        self, service: Any, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Call a service and wait for the answer: `await ctx.service_client(Greeter).greet("Hi")`.

        A service whose class cannot be imported may be named by a string.
        """
        route = JournalRoute(self, _name(service, ServiceType.SERVICE), "", idempotency_key, headers)
        return (AnyClient if isinstance(service, str) else calling(service))(route)

    @overload
    def object_client(
        self, kind: type[O], key: str, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> O: ...
    @overload
    def object_client(
        self, kind: str, key: str, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AnyClient: ...
    def object_client(
        self, kind: Any, key: str, *, idempotency_key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Call an object and wait for the answer: `await ctx.object_client(Mailbox, "Mary").put("Hi")`."""
        route = JournalRoute(self, _name(kind, ServiceType.VIRTUAL_OBJECT), _key(key), idempotency_key, headers)
        return (AnyClient if isinstance(kind, str) else calling(kind))(route)

    @overload
    def service_send_client(
        self,
        service: type[S],
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> type[S]: ...
    @overload
    def service_send_client(
        self,
        service: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AnySendClient: ...
    def service_send_client(
        self,
        service: Any,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send to a service, now or later: `ctx.service_send_client(Greeter, delay=minutes(5)).greet("Hi")`.

        The send is durable without an await. It gives a handle: `await handle.invocation_id()`.
        """
        due = self._due(delay, at)
        route = JournalRoute(self, _name(service, ServiceType.SERVICE), "", idempotency_key, headers, due)
        return (AnySendClient if isinstance(service, str) else sending(service))(route)

    @overload
    def object_send_client(
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
    def object_send_client(
        self,
        kind: str,
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AnySendClient: ...
    def object_send_client(
        self,
        kind: Any,
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send to an object, now or later: `ctx.object_send_client(Mailbox, "Mary").put("Hi")`.

        Sends and calls of one handler to one object arrive in the order in which they were made.
        """
        due = self._due(delay, at)
        route = JournalRoute(self, _name(kind, ServiceType.VIRTUAL_OBJECT), _key(key), idempotency_key, headers, due)
        return (AnySendClient if isinstance(kind, str) else sending(kind))(route)

    @overload
    def workflow_client(self, kind: type[W], key: str, *, headers: Mapping[str, str] | None = None) -> W: ...
    @overload
    def workflow_client(self, kind: str, key: str, *, headers: Mapping[str, str] | None = None) -> AnyClient: ...
    def workflow_client(self, kind: Any, key: str, *, headers: Mapping[str, str] | None = None) -> Any:
        """Call a workflow and wait for the answer: `await ctx.workflow_client(Signup, "Mary").run(mail)`.

        Its `run` runs once per key: of a second call of it the answer is a TerminalError (409). The others may be
        called as often as wanted, before, during and after.
        """
        route = JournalRoute(self, _name(kind, ServiceType.WORKFLOW), _key(key), None, headers)
        return (AnyClient if isinstance(kind, str) else calling(kind))(route)

    @overload
    def workflow_send_client(
        self,
        kind: type[W],
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> type[W]: ...
    @overload
    def workflow_send_client(
        self,
        kind: str,
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AnySendClient: ...
    def workflow_send_client(
        self,
        kind: Any,
        key: str,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Start a workflow, or tell it something, now or later: `ctx.workflow_send_client(Signup, key).run(mail)`."""
        route = JournalRoute(self, _name(kind, ServiceType.WORKFLOW), _key(key), None, headers, self._due(delay, at))
        return (AnySendClient if isinstance(kind, str) else sending(kind))(route)

    def cancel(self, invocation_id: str) -> None:
        """Ask another invocation to end: it and all that it waits for can still undo what they did."""
        self.machine.cancel(invocation_id)

    @overload
    def attach(self, invocation: str, /) -> DurableFuture[Any]: ...
    @overload
    def attach(self, invocation: str, hint: type[T], /) -> DurableFuture[T]: ...
    @overload
    def attach(
        self, invocation: Handler[P, T], /, *, key: str | None = None, idempotency_key: str | None = None
    ) -> DurableFuture[T]: ...
    def attach(
        self, invocation: Any, hint: Any = Any, /, *, key: str | None = None, idempotency_key: str | None = None
    ) -> DurableFuture[Any]:
        """Wait for the end of an invocation that somebody else began, named by its id: `await ctx.attach(id, str)`.

        Or by what names it: `ctx.attach(Signup.run, key="Mary")`, `ctx.attach(Greeter.greet, idempotency_key="once")`.
        Raises the TerminalError that it ends with, or one with 404 where nobody knows it.
        """
        target, serde = target_of(invocation, hint, key, idempotency_key)
        return Reply(self, self.machine.attach(target), serde.decode)

    @overload
    def output(self, invocation: str, /) -> DurableFuture[Any]: ...
    @overload
    def output(self, invocation: str, hint: type[T], /) -> DurableFuture[T | None]: ...
    @overload
    def output(
        self, invocation: Handler[P, T], /, *, key: str | None = None, idempotency_key: str | None = None
    ) -> DurableFuture[T | None]: ...
    def output(
        self, invocation: Any, hint: Any = Any, /, *, key: str | None = None, idempotency_key: str | None = None
    ) -> DurableFuture[Any]:
        """What an invocation has ended with, or None: it has not yet. It is named, and raises, as for `attach`."""
        target, serde = target_of(invocation, hint, key, idempotency_key)
        return Reply(self, self.machine.output_of(target), serde.decode)

    @overload
    def awakeable(self, /) -> Awakeable[Any]: ...
    @overload
    def awakeable(self, hint: type[T], /) -> Awakeable[T]: ...
    def awakeable(self, hint: Any = Any, /) -> Awakeable[Any]:
        """Something that the world outside will bring: tell it the `id`, and await it.

        `approved = ctx.awakeable(bool)`, then `await ctx.run("ask", send_mail, approved.id)` and `await approved`. It
        is brought by `ctx.resolve_awakeable`, or by `POST /restate/awakeables/{id}/resolve` at the ingress.
        """
        leaf = self.machine.awakeable()
        return Awakeable(self, leaf, serde_for(hint).decode, format_awakeable(self._start.id, leaf.id))

    def resolve_awakeable(self, id: str, value: Any = None) -> None:
        """Bring what an awakeable waits for, as JSON (bytes as they are). The first counts."""
        _want_id(id, "sign_", "an awakeable")
        self.machine.complete_awakeable(id, m.Value(encode_stored(value)))

    def reject_awakeable(self, id: str, reason: str, *, code: int = 500) -> None:
        """Let who waits for an awakeable fail with a TerminalError."""
        _want_id(id, "sign_", "an awakeable")
        self.machine.complete_awakeable(id, failure(TerminalError(reason, code=code)))

    @overload
    def signal(self, name: str, /) -> DurableFuture[Any]: ...
    @overload
    def signal(self, name: str, hint: type[T], /) -> DurableFuture[T]: ...
    def signal(self, name: str, hint: Any = Any, /) -> DurableFuture[Any]:
        """What others tell this invocation under a name: `await ctx.signal("approved", bool)`.

        Signals of one name come in the order of their sending; each is heard once, whenever it came: by the first that
        is awaited when it is there. What has lost a race to something else takes none from who asks next.
        """
        return Reply(self, SignalLeaf(_signal_name(name)), serde_for(hint).decode)

    def send_signal(self, invocation_id: str, name: str, value: Any = None) -> None:
        """Tell an invocation something, as JSON (bytes as they are), whether it waits for it already or not."""
        _want_id(invocation_id, "inv_", "an invocation")
        self.machine.send_signal(invocation_id, _signal_name(name), m.Value(encode_stored(value)))

    # Time, chance and the world

    @overload
    def run(
        self, name: str, action: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, retry: Retry, **kwargs: Any
    ) -> DurableFuture[T]: ...
    @overload
    def run(
        self, name: str, action: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def run(
        self, name: str, action: Callable[..., T], /, *args: Any, retry: Retry, **kwargs: Any
    ) -> DurableFuture[T]: ...
    @overload
    def run(self, name: str, action: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    def run(self, name: str, action: Callable[..., Any], /, *args: Any, **kwargs: Any) -> DurableFuture[Any]:
        """Do something whose result is to be kept: `receipt = await ctx.run("charge", charge_card, order)`.

        It is executed at least once, and its first result counts for ever. Coroutine functions run on the event loop,
        others in a thread. It starts when the handler next waits for something durable, this or another; what has not
        given its result when the handler returns is dropped. The result is stored as JSON (bytes as they are) and read
        by the function's annotated return type, in the first attempt too. A TerminalError of the function is raised at
        the await; after other exceptions it is tried again as `retry` says, and as the handler is without it.
        """
        retry = kwargs.pop("retry", None)  # not a parameter: type checkers allow none beside a function's own
        serde = result_serde(action)
        leaf = self.machine.run(name)
        index = self.machine.journal.index
        self.unstarted.append(
            Closure(name, action, args, kwargs, leaf=leaf, index=index, encode=serde.encode, retry=retry)
        )
        return Reply(self, leaf, serde.decode)

    def sleep(self, duration: timedelta) -> DurableFuture[None]:
        """Wait, for a moment or for months: a sleeping invocation costs nothing and survives everything."""
        return Reply(self, self.alarm(duration), _nothing)

    def alarm(self, duration: timedelta) -> Leaf:
        """What `sleep` and time-outs wait for."""
        return self.machine.sleep(self._in(duration))

    def now(self) -> DurableFuture[datetime]:
        """The time, in UTC, at the first attempt; the same in every replay."""
        return self.run("now", self._read_clock)

    async def _read_clock(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    @cached_property
    def random(self) -> Random:
        """Random numbers that are the same in every replay. Not for secrets."""
        return Random(self._start.random_seed)  # noqa: S311

    def uuid(self) -> UUID:
        """A fresh uuid that is the same in every replay. Not for secrets."""
        return UUID(int=self.random.getrandbits(128), version=4)

    def _in(self, duration: timedelta) -> int:
        """So much from now, in milliseconds since the epoch, and rather late than early."""
        want_duration(duration, "A sleep, time-out or delay")
        return ceil((self._clock() + max(duration.total_seconds(), 0.0)) * 1000)

    def _due(self, delay: timedelta | None, at: datetime | None) -> Callable[[], int] | None:
        if delay is not None and at is not None:
            raise UsageError("A send is delayed by a duration or to a time, not both.")
        if delay is not None:
            want_duration(delay, "delay=")
            return lambda: self._in(delay)
        if at is None:
            return None
        due = max(ceil(moment(at) * 1000), 0)
        return lambda: due

    if not TYPE_CHECKING:  # which knows better

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(self._missing(name))

    def _missing(self, name: str) -> str:
        """Why there is no such thing here, for who looks for it in the wrong kind of handler."""
        if hasattr(ObjectContext, name):
            return f"ctx.{name} is for a VirtualObject, which has a key and values: a Service keeps nothing."
        if hasattr(WorkflowContext, name):
            return f"ctx.{name} is for a Workflow."
        return f"ctx has no {name!r}."


class SharedContext(Context):
    """An invocation of a virtual object's shared handler: it reads the object's values, as last committed."""

    @property
    def key(self) -> str:
        """Which object this is."""
        return self._key

    @overload
    def get(self, name: str, /) -> DurableFuture[Any]: ...
    @overload
    def get(self, name: str, hint: type[T], /) -> DurableFuture[T | None]: ...
    def get(self, name: str, hint: Any = Any, /) -> DurableFuture[Any]:
        """A value of the object, read as this type, or None: `await ctx.get("letters", list[str]) or []`."""
        return Reply(self, self.machine.get(name), stored_serde(hint).decode)

    def keys(self) -> DurableFuture[list[str]]:
        """The names of all values, sorted."""
        return Reply(self, self.machine.keys(), _nothing)

    def _missing(self, name: str) -> str:
        if hasattr(ObjectContext, name):
            return f"ctx.{name} changes the object, and a shared handler only reads: leave out shared=True."
        return super()._missing(name)


class ObjectContext(SharedContext):
    """An invocation that has a virtual object to itself: nobody else changes the object's values meanwhile."""

    def set(self, name: str, value: Any) -> None:
        """Keep a value, as JSON (bytes as they are). It stays even when the handler fails later."""
        self.machine.set(name, encode_stored(value))

    def clear(self, name: str) -> None:
        """Forget a value."""
        self.machine.clear(name)

    def clear_all(self) -> None:
        """Forget all values of this object."""
        self.machine.clear_all()


class _Promises(Context):
    """What a workflow's handlers share."""

    @overload
    def promise(self, name: str, /) -> DurablePromise[Any]: ...
    @overload
    def promise(self, name: str, hint: type[T], /) -> DurablePromise[T]: ...
    def promise(self, name: str, hint: Any = Any, /) -> DurablePromise[Any]:
        """A promise of this workflow: `await ctx.promise("confirmed", bool)`, given by `.resolve(True)` elsewhere."""
        if not name:
            raise UsageError("A promise's name is a text that is not empty.")
        return DurablePromise(self, name, serde_for(hint))


class WorkflowSharedContext(SharedContext, _Promises):
    """An invocation of a workflow's other handlers: beside its run they read its values, and give its promises."""

    def _missing(self, name: str) -> str:
        if hasattr(ObjectContext, name):
            return f"ctx.{name} is for the workflow's run: tell it what to do by a promise."
        return super()._missing(name)


class WorkflowContext(ObjectContext, _Promises):
    """The run of a workflow: it keeps values and waits for promises."""


def _nothing(content: bytes) -> Any:
    return None


def _want_id(id: object, prefix: str, what: str) -> None:
    """What follows the prefix is the runtime's own business, and not every runtime's is the same."""
    if not isinstance(id, str) or not id.startswith(prefix):
        raise UsageError(f"{id!r} is not the id of {what}: that begins with {prefix}.")


def _signal_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(f"A signal's name is a text that is not empty, not {name!r}.")
    return name


_KINDS = {
    ServiceType.SERVICE: "a Service",
    ServiceType.VIRTUAL_OBJECT: "a VirtualObject",
    ServiceType.WORKFLOW: "a Workflow",
}


def _name(service: type[Component] | str, type: ServiceType) -> str:
    if isinstance(service, str):
        return service
    definition = getattr(service, "__perdure__", None)
    if definition is None or definition.type is not type:
        wanted = _KINDS[type]
        raise UsageError(f"{wanted}, or its name, is wanted here, not {service!r}.")
    name: str = definition.name
    return name


def _key(key: object) -> str:
    if not isinstance(key, str) or not key:
        raise UsageError(f"An object's key is a text that is not empty, not {key!r}.")
    return key
