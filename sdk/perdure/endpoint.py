"""What a process offers: a set of services, ready to be called, and what is to be known about them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec import UNSET, Struct

from perdure.attempt import Invoke
from perdure.context import Context, ObjectContext, SharedContext, WorkflowContext, WorkflowSharedContext
from perdure.errors import DefinitionError, SerdeError, TerminalError, UnknownHandler
from perdure.protocol.codec import NEWEST_VERSION, OLDEST_VERSION
from perdure.protocol.manifest import (
    HandlerManifest,
    HandlerType,
    InputManifest,
    Manifest,
    OutputManifest,
    ServiceManifest,
    ServiceType,
    options_metadata,
)
from perdure.serde import Serde
from perdure.service import RUN, Component, Definition, Handler, Options, resolve_hint


class Bound(Struct, frozen=True):
    """A handler that can be called: bound to its service, with the context that it gets."""

    invoke: Invoke
    context: type[Context]


class Endpoint:
    """Services, by class, or as instances when they need something to be made with.

    >>> endpoint = Endpoint(Greeter)
    >>> [service.name for service in endpoint.manifest().services]
    ['Greeter']
    """

    def __init__(self, *services: type[Component] | Component) -> None:
        self._classes: dict[str, type[Component]] = {}
        self.handlers: dict[tuple[str, str], Bound] = {}
        """By names of service and handler."""
        for service in services:
            self._add(service)

    def _add(self, service: type[Component] | Component) -> None:
        cls = service if isinstance(service, type) else type(service)
        definition: Definition | None = getattr(cls, "__perdure__", None)
        if definition is None:
            raise DefinitionError(f"{service!r} is neither a Service nor a VirtualObject nor a Workflow.")
        if not definition.handlers:
            raise DefinitionError(f"{cls.__name__} has no handlers: decorate its methods with @handler.")
        if definition.name in self._classes:
            raise DefinitionError(f"Two services have the name {definition.name!r}: give one another, by name=.")
        self._classes[definition.name] = cls
        instance = _made(service) if isinstance(service, type) else service
        for handler in definition.handlers.values():
            context = _context(cls, handler)
            self.handlers[definition.name, handler.name] = Bound(_invoke(instance, handler), context)

    def find(self, service: str, handler: str) -> Bound:
        """The handler of these names; raises UnknownHandler."""
        try:
            return self.handlers[service, handler]
        except KeyError:
            raise UnknownHandler(f"There is no handler {service}/{handler} here.") from None

    def manifest(self, *, is_streaming: bool = True) -> Manifest:
        """What to tell a runtime; `is_streaming`: it may keep a request open while a handler is at work."""
        definitions = [cls.__perdure__ for cls in self._classes.values()]
        return Manifest(
            protocol_mode="BIDI_STREAM" if is_streaming else "REQUEST_RESPONSE",
            min_protocol_version=OLDEST_VERSION,
            max_protocol_version=NEWEST_VERSION,
            services=tuple(map(_service_manifest, definitions)),
        )

    @cached_property
    def code_hash(self) -> str:
        """Names this code: 16 hex digits over the manifest and the source of the modules that define the services."""
        digest = sha256(self.manifest().to_json())
        for module in sorted({base.__module__ for cls in self._classes.values() for base in _own_bases(cls)}):
            digest.update(module.encode() + b"\0" + _source(module))
        return digest.hexdigest()[:16]


# Calling -------------------------------------------------------------------------------------------------------------


def _made(cls: type[Component]) -> Component:
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise DefinitionError(
            f"{cls.__name__} is made with arguments ({error}): give an instance, as in Endpoint({cls.__name__}(...))."
        ) from error
    return cls()


def _invoke(instance: Component, handler: Handler[..., Any]) -> Invoke:
    method = handler.function.__get__(instance)
    decode, encode = handler.input.decode, _encoder(handler)
    if handler.parameter is None:

        async def invoke(ctx: Context, content: bytes) -> bytes:
            return encode(await method(ctx))

        return invoke

    optional = handler.optional

    async def invoke_with_argument(ctx: Context, content: bytes) -> bytes:
        if optional and not content:
            return encode(await method(ctx))
        try:
            argument = decode(content)
        except SerdeError as error:
            raise TerminalError(f"The argument does not fit: {error}", code=400) from error
        return encode(await method(ctx, argument))

    return invoke_with_argument


def _encoder(handler: Handler[..., Any]) -> Callable[[Any], bytes]:
    """Writes results, and reads them again: callers were promised what is annotated."""
    write, read = handler.output.encode, handler.output.decode
    if handler.output.schema is None:  # bytes or nothing, which is checked on writing, or anything
        return write
    hint = resolve_hint(handler.function, "return")
    exact = hint if hint in (str, int, bool) else None

    def encode(result: Any) -> bytes:
        content = write(result)
        if type(result) is not exact:
            try:
                read(content)
            except SerdeError as error:
                name = handler.function.__qualname__
                raise SerdeError(f"The result of {name} is not what is annotated: {error}") from error
        return content

    return encode


def _context(cls: type[Component], handler: Handler[..., Any]) -> type[Context]:
    """The context that a handler gets; raises DefinitionError when it is annotated to be given more."""
    given = _CONTEXTS[handler_type(handler, cls.__perdure__.type), cls.__perdure__.type]
    annotated = _annotated_context(handler)
    if handler.shared and annotated is ObjectContext and given is SharedContext:
        return given  # a shared handler may say so, as long as it sets nothing
    if not issubclass(given, annotated):
        raise DefinitionError(f"{cls.__name__}.{handler.name} gets a {given.__name__}, not {annotated.__name__}.")
    return given


_CONTEXTS: dict[tuple[HandlerType | None, ServiceType], type[Context]] = {
    (None, ServiceType.SERVICE): Context,
    (HandlerType.EXCLUSIVE, ServiceType.VIRTUAL_OBJECT): ObjectContext,
    (HandlerType.SHARED, ServiceType.VIRTUAL_OBJECT): SharedContext,
    (HandlerType.WORKFLOW, ServiceType.WORKFLOW): WorkflowContext,
    (HandlerType.SHARED, ServiceType.WORKFLOW): WorkflowSharedContext,
}


def handler_type(handler: Handler[..., Any], type: ServiceType) -> HandlerType | None:
    """How a handler shares its key; None: a service has none."""
    if type is ServiceType.SERVICE:
        return None
    if type is ServiceType.WORKFLOW:
        return HandlerType.WORKFLOW if handler.name == RUN else HandlerType.SHARED
    return HandlerType.SHARED if handler.shared else HandlerType.EXCLUSIVE


def _annotated_context(handler: Handler[..., Any]) -> type[Context]:
    names = iter(handler.function.__code__.co_varnames)
    next(names)
    try:
        annotated = resolve_hint(handler.function, next(names))
    except DefinitionError:  # imported for the type checker only: then it has the last word
        return Context
    return annotated if isinstance(annotated, type) and issubclass(annotated, Context) else Context


# The manifest --------------------------------------------------------------------------------------------------------


def _service_manifest(definition: Definition) -> ServiceManifest:
    return ServiceManifest(
        name=definition.name,
        ty=definition.type,
        handlers=tuple(_handler_manifest(handler, definition) for handler in definition.handlers.values()),
        documentation=definition.documentation,
        **_options(definition.options),
    )


def _handler_manifest(handler: Handler[..., Any], definition: Definition) -> HandlerManifest:
    kind = handler_type(handler, definition.type)
    kept = definition.options.workflow_retention if kind is HandlerType.WORKFLOW else None
    return HandlerManifest(
        name=handler.name,
        ty=kind,
        workflow_completion_retention=_milliseconds(kept),
        input=InputManifest(
            required=not handler.optional,
            content_type=handler.input.content_type,
            json_schema=_schema(handler.input),
        ),
        output=OutputManifest(content_type=handler.output.content_type, json_schema=_schema(handler.output)),
        documentation=handler.documentation,
        **_options(handler.options),
    )


def _schema(serde: Serde) -> Any:
    return UNSET if serde.schema is None else serde.schema


def _options(options: Options) -> dict[str, Any]:
    said: dict[str, Any] = {
        "metadata": options_metadata(options.queue, options.speculate),
        "ingress_private": options.private,
        "journal_retention": _milliseconds(options.journal_retention),
        "idempotency_retention": _milliseconds(options.idempotency_retention),
        "enable_lazy_state": options.lazy_state,
        "eager_state_keys_whitelist": None if options.eager_keys is None else tuple(options.eager_keys),
    }
    if options.retry is not None:
        retry = options.retry
        said |= {
            "retry_policy_initial_interval": _milliseconds(retry.initial),
            "retry_policy_max_interval": _milliseconds(retry.max_interval),
            "retry_policy_max_attempts": retry.max_attempts,
            "retry_policy_exponentiation_factor": retry.factor,
            "retry_policy_on_max_attempts": None if retry.on_max_attempts is None else retry.on_max_attempts.upper(),
        }
    return said


def _milliseconds(duration: timedelta | None) -> int | None:
    return None if duration is None else round(duration.total_seconds() * 1000)


# The code ------------------------------------------------------------------------------------------------------------


def _own_bases(cls: type) -> Iterator[type]:
    """The classes that an author wrote for a service: itself and its bases, without the SDK's."""
    return (base for base in cls.__mro__ if issubclass(base, Component) and base.__module__ != Component.__module__)


def _source(module: str) -> bytes:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).read_bytes() if file is not None else b""
