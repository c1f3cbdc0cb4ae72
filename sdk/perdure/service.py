"""What an author writes: services and virtual objects, and their handlers."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar, Concatenate, Generic, Never, ParamSpec, Protocol, TypeVar, overload

from msgspec import Struct

from perdure.durations import want_duration
from perdure.errors import DefinitionError, UsageError
from perdure.futures import CallFuture, SendHandle
from perdure.protocol.manifest import HANDLER_NAME, SERVICE_NAME, ServiceType
from perdure.retry import Retry
from perdure.serde import Serde, serde_for

RUN = "run"
"""The handler of a workflow that runs once per key; all others are shared."""

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Ctx = TypeVar("Ctx", contravariant=True)


class Options(Struct, frozen=True, kw_only=True):
    """What may be said on a service, and more closely on a handler; None: not said."""

    retry: Retry | None = None
    private: bool | None = None
    """Not to be called from outside, through the ingress."""
    journal_retention: timedelta | None = None
    idempotency_retention: timedelta | None = None
    queue: str | None = None
    """Which workers run it."""
    speculate: bool | None = None
    """False: never start on the uncommitted state of the key's previous invocation."""
    workflow_retention: timedelta | None = None
    """How long a workflow's result, values and promises are kept after the end of its run."""
    lazy_state: bool | None = None
    """Values come when they are asked for, not all of them with the call."""
    eager_keys: Sequence[str] | None = None
    """The names of values that come with the call though state is lazy."""


class Handler(Generic[P, R_co]):
    """One handler of a service, made by the decorator `handler`.

    Its types tell half the truth, on purpose: no type checker can turn a class into the class's client, but all of them
    know descriptors. So a client is typed as an instance of the service, and a sending client as the service's class.
    """

    def __init__(self, function: Callable[..., Coroutine[Any, Any, R_co]], shared: bool, options: Options) -> None:
        self.function = function
        self.name = function.__name__
        self.shared = shared
        self.options = options
        self.documentation = inspect.getdoc(function)
        self.parameter = _parameter(function)
        """What the handler takes besides its context."""
        self.owner: type[Component] = Component
        """The class that it is defined in."""

    def __set_name__(self, owner: type[Component], name: str) -> None:
        self.name = name
        self.owner = owner

    @overload
    def __get__(self, instance: None, owner: type) -> Handler[P, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Callable[P, CallFuture[R_co]]: ...
    def __get__(self, instance: object, owner: type) -> Any:
        return self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> SendHandle:
        raise UsageError(
            f"{self.function.__qualname__} is not called directly, but through a client: "
            "ctx.service_client(Greeter).greet(name)."
        )

    @cached_property
    def input(self) -> Serde:
        return serde_for(None if self.parameter is None else resolve_hint(self.function, self.parameter.name))

    @cached_property
    def output(self) -> Serde:
        return serde_for(resolve_hint(self.function, "return"))

    @property
    def optional(self) -> bool:
        """Whether the handler can do without an argument."""
        return self.parameter is None or self.parameter.default is not inspect.Parameter.empty

    def argument(self, positional: tuple[Any, ...], named: dict[str, Any]) -> bytes:
        """The body of a call with these arguments."""
        if not named and len(positional) == 1 and self.parameter is not None:
            return self.input.encode(positional[0])
        if not named and not positional and self.optional:
            return b""
        if self.parameter is not None and not positional and named.keys() == {self.parameter.name}:
            return self.input.encode(named[self.parameter.name])
        expected = "nothing" if self.parameter is None else f"one argument, {self.parameter}"
        raise UsageError(f"{self.function.__qualname__} takes {expected}.")


class _Decorator(Protocol):
    def __call__(self, function: Callable[Concatenate[Any, Ctx, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...


@overload
def handler(function: Callable[Concatenate[Any, Ctx, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def handler(
    *,
    shared: bool = False,
    retry: Retry | None = None,
    private: bool | None = None,
    journal_retention: timedelta | None = None,
    idempotency_retention: timedelta | None = None,
    queue: str | None = None,
    speculate: bool | None = None,
    lazy_state: bool | None = None,
    eager_keys: Sequence[str] | None = None,
) -> _Decorator: ...
def handler(function: Callable[..., Any] | None = None, /, *, shared: bool = False, **options: Any) -> Any:
    """Make a method a handler: `async def name(self, ctx, argument)`, or without the argument.

    In a virtual object a handler has its key to itself, unless it is `shared`: then it only reads, beside the others.
    What is said here (`retry`, `private`, `queue`, ...) goes before what the service's class says.

    >>> class Greeter(Service):
    ...     @handler
    ...     async def greet(self, ctx: Context, name: str) -> str:
    ...         return f"Hello {name}"
    """
    _check_names("@handler", options, ("shared", *Options.__struct_fields__))
    said = Options(**options)
    _check_options(said)
    if said.workflow_retention is not None:
        raise DefinitionError("@handler does not take workflow_retention: say it on the workflow's class.")

    def decorate(function: Callable[..., Any]) -> Handler[..., Any]:
        return Handler(function, shared, said)

    return decorate if function is None else decorate(function)


class Definition(Struct, frozen=True):
    """What is known of a service by its class."""

    name: str
    type: ServiceType
    handlers: dict[str, Handler[..., Any]]
    options: Options
    documentation: str | None


class Component:
    """What services and virtual objects have in common; say what you mean and use one of those."""

    __perdure__: ClassVar[Definition]
    _type: ClassVar[ServiceType]

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        private: bool | None = None,
        journal_retention: timedelta | None = None,
        idempotency_retention: timedelta | None = None,
        queue: str | None = None,
        speculate: bool | None = None,
        workflow_retention: timedelta | None = None,
        lazy_state: bool | None = None,
        eager_keys: Sequence[str] | None = None,
        **unknown: Never,
    ) -> None:
        super().__init_subclass__()
        if cls.__module__ == __name__:
            return
        _check_names(f"class {cls.__name__}", unknown, ("name", *Options.__struct_fields__))
        options = Options(
            retry=retry,
            private=private,
            journal_retention=journal_retention,
            idempotency_retention=idempotency_retention,
            queue=queue,
            speculate=speculate,
            workflow_retention=workflow_retention,
            lazy_state=lazy_state,
            eager_keys=eager_keys,
        )
        _check_options(options)
        if workflow_retention is not None and cls._type is not ServiceType.WORKFLOW:
            raise DefinitionError(f"class {cls.__name__}: workflow_retention is for a Workflow.")
        cls.__perdure__ = _define(cls, cls._type, name or cls.__name__, options)


class Service(Component):
    """Handlers that run side by side and keep nothing between them.

    >>> class Greeter(Service, queue="fast"):
    ...     @handler
    ...     async def greet(self, ctx: Context, name: str) -> str:
    ...         return f"Hello {name}"
    """

    _type = ServiceType.SERVICE


class VirtualObject(Component):
    """Handlers of something that has a key and keeps values: one at a time per key, unless they are shared.

    >>> class Counter(VirtualObject):
    ...     @handler
    ...     async def add(self, ctx: ObjectContext, amount: int) -> int:
    ...         count = (await ctx.get("count", int) or 0) + amount
    ...         ctx.set("count", count)
    ...         return count
    """

    _type = ServiceType.VIRTUAL_OBJECT


class Workflow(Component):
    """Something that runs once per key, from its beginning to its end: its handler `run`.

    Its other handlers are shared: they look at it, or tell it something through its promises, as often as wanted.

    >>> class Signup(Workflow):
    ...     @handler
    ...     async def run(self, ctx: WorkflowContext, mail: str) -> bool:
    ...         return await ctx.promise("confirmed", bool)
    ...
    ...     @handler
    ...     async def confirm(self, ctx: WorkflowSharedContext) -> None:
    ...         await ctx.promise("confirmed", bool).resolve(True)
    """

    _type = ServiceType.WORKFLOW


# Checks, so that a mistake is said where it was made -----------------------------------------------------------------


def _parameter(function: Callable[..., Any]) -> inspect.Parameter | None:
    """The third parameter; raises DefinitionError when the function cannot be a handler."""
    name = getattr(function, "__qualname__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{name} is not a coroutine function: a handler is `async def`.")
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) < 2:
        raise DefinitionError(f"{name} has no ctx: a handler is `async def name(self, ctx, argument)`.")
    if len(parameters) > 3:
        extra = ", ".join(parameter.name for parameter in parameters[3:])
        raise DefinitionError(f"{name} takes too much ({extra}): a handler has one argument. Make it a dataclass.")
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for parameter in parameters:
        if parameter.kind not in positional:
            raise DefinitionError(f"{name} cannot have the parameter `{parameter}`: arguments are positional.")
    return parameters[2] if len(parameters) == 3 else None


def _check_names(where: str, said: Mapping[str, object], known: Sequence[str]) -> None:
    if unknown := [name for name in said if name not in known]:
        raise DefinitionError(f"{where} does not take {', '.join(unknown)}, but: {', '.join(known)}.")


def _check_options(options: Options) -> None:
    for name in ("journal_retention", "idempotency_retention", "workflow_retention"):
        if (duration := getattr(options, name)) is not None:
            want_duration(duration, name, DefinitionError)
    if isinstance(options.eager_keys, str):
        raise DefinitionError(
            f"eager_keys={options.eager_keys!r} is one text: write eager_keys=[{options.eager_keys!r}]."
        )
    if options.retry is None:
        return
    if not isinstance(options.retry, Retry):
        raise DefinitionError(f"retry={options.retry!r} is no policy: write retry=Retry(max_attempts=3), for instance.")
    if options.retry.max_duration is not None:
        raise DefinitionError("Retry(max_duration=...) is for ctx.run: handlers have max_attempts.")


def _define(cls: type, type: ServiceType, name: str, options: Options) -> Definition:
    if not re.match(SERVICE_NAME, name):
        raise DefinitionError(f"{name!r} cannot be the name of a service: it has to match {SERVICE_NAME}")
    members = {member: value for base in reversed(cls.__mro__) for member, value in vars(base).items()}
    handlers: dict[str, Handler[..., Any]] = {
        member: value for member, value in members.items() if isinstance(value, Handler)
    }
    for member, handler in handlers.items():
        if not re.match(HANDLER_NAME, member):
            raise DefinitionError(f"{member!r} cannot be the name of a handler: it has to match {HANDLER_NAME}")
        if handler.shared and type is ServiceType.SERVICE:
            raise DefinitionError(f"{cls.__name__}.{member} is shared, but only a virtual object's handlers can be.")
        if type is ServiceType.WORKFLOW and handler.shared and member == RUN:
            raise DefinitionError(f"{cls.__name__}.run is the workflow itself: it cannot be shared.")
        if handler.name != member:
            raise DefinitionError(f"{cls.__name__}.{member} is the handler {handler.name} under a second name.")
    if type is ServiceType.WORKFLOW and handlers and RUN not in handlers:
        raise DefinitionError(f"{cls.__name__} has no `run`: a workflow's main handler has this name.")
    return Definition(name, type, handlers, options, inspect.getdoc(cls) if cls.__doc__ else None)


def resolve_hint(function: Callable[..., Any], name: str) -> Any:
    """The type that is annotated for a parameter, or for "return"; Any when there is none."""
    annotations = getattr(function, "__annotations__", {})
    if name not in annotations:
        return Any
    only = SimpleNamespace(__annotations__={name: annotations[name]})
    try:
        return typing.get_type_hints(only, getattr(function, "__globals__", None), include_extras=True)[name]
    except NameError as error:
        raise DefinitionError(
            f"{function.__qualname__}: the type {annotations[name]!r} is not known in its module ({error}). "
            "Types of arguments and results are imported, and defined at the module's level."
        ) from error
