"""The registry: which services exist, what their handlers are, and which deployment takes new invocations.

Built from the manifests that deployments were registered with; a value, replaced as a whole when that changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from msgspec import Struct, field

from runtime.core.delays import LONGEST
from runtime.core.invocation import Mode
from runtime.core.options import DEADLOCKS, HISTORY, QUEUE, DeadlockPolicy
from runtime.core.retry import OnMaxAttempts, RetryPolicy
from runtime.errors import RuntimeFault

T = TypeVar("T")
D = TypeVar("D", int, None)

DEFAULT_QUEUE = "default"
DAY = 86_400
NOTHING: Mapping[str, Any] = {}
ANY_INPUT: Mapping[str, Any] = {"contentType": "*/*"}
JSON_OUTPUT: Mapping[str, Any] = {"contentType": "application/json"}
"""What a manifest means that says nothing of a handler's input or output; an empty object says: none at all."""


class UnknownService(RuntimeFault):
    """No deployment with this service is registered."""

    code = "unknown_service"
    hint = "`./dev manage services` lists what is registered, `./dev manage register MODULE:APP` adds to it."


class UnknownHandler(RuntimeFault):
    """The service has no handler of this name."""

    code = "unknown_handler"
    hint = "`./dev manage services` lists the handlers of each service."


class HandlerInfo(Struct, frozen=True):
    """A handler as the runtime knows it: options of the handler win over those of its service."""

    service: str
    name: str
    mode: Mode
    deployment: str
    queue: str = DEFAULT_QUEUE
    is_public: bool = True
    speculate: bool = True
    retry: RetryPolicy = RetryPolicy()
    retention: int = DAY
    """Seconds for which the ended invocation is kept."""
    idempotency_retention: int = DAY
    """Seconds for which its idempotency key, or its workflow's key, answers after the end."""
    input: Mapping[str, Any] = field(default_factory=lambda: ANY_INPUT)
    output: Mapping[str, Any] = field(default_factory=lambda: JSON_OUTPUT)
    inactivity_ms: int | None = None
    """How long a waiting handler stays in memory; None: as long as engines think fit."""
    abort_ms: int | None = None
    """How long after that a handler that neither waits nor gets on is stopped, and tried again; None: never."""
    deadlocks: DeadlockPolicy = DeadlockPolicy.REPORT
    """Kept for when deadlocks are found."""
    keeps_history: bool = False
    """Whether what it does to its object's values is written down."""
    eager_keys: tuple[str, ...] | None = None
    """Which values a handler behind HTTP is told before it asks; None: all."""
    validate: bool = True
    """Whether callers' input is checked against the schema at the door."""
    documentation: str = ""
    is_workflow: bool = False
    """Whether it is a workflow's, which has promises."""

    @property
    def is_keyed(self) -> bool:
        return self.mode is not Mode.SERVICE

    @property
    def runs_once(self) -> bool:
        """Whether it is the handler that a workflow runs, once for each key."""
        return self.is_workflow and self.mode is Mode.EXCLUSIVE


class ServiceInfo(Struct, frozen=True):
    """A service and its newest revision."""

    name: str
    type: str
    deployment: str
    revision: int
    handlers: Mapping[str, HandlerInfo]
    documentation: str = ""
    options: Mapping[str, Any] = NOTHING
    """What operators have set, in the manifest's words: see runtime.core.options."""

    @property
    def is_keyed(self) -> bool:
        return self.type != "SERVICE"


class Registry:
    """All services by name."""

    def __init__(
        self,
        services: Iterable[ServiceInfo] = (),
        version: str = "",
        keys: Mapping[str, frozenset[bytes]] = NOTHING,
    ) -> None:
        self.services = {service.name: service for service in services}
        self.keys = keys
        """Digests of the keys with which callers may call a service, by its name; the others are open."""
        self.version = version
        """Which of its successive states in the database this is."""

    def service(self, name: str) -> ServiceInfo:
        """The service of this name; raises UnknownService."""
        found = self.services.get(name)
        if found is None:
            raise UnknownService(f"There is no service {name!r}.")
        return found

    def resolve(self, service: str, handler: str) -> HandlerInfo:
        """The handler that a new invocation goes to; raises UnknownService, UnknownHandler."""
        info = self.service(service).handlers.get(handler)
        if info is None:
            raise UnknownHandler(f"The service {service!r} has no handler {handler!r}.")
        return info


def read_service(
    manifest: Mapping[str, Any], deployment: str, revision: int, options: Mapping[str, Any] = NOTHING
) -> ServiceInfo:
    """A service as one entry of an endpoint's manifest describes it; what operators have set goes before that."""
    return ServiceInfo(
        name=manifest["name"],
        type=manifest["ty"],
        deployment=deployment,
        revision=revision,
        handlers={
            handler["name"]: _read_handler(manifest, handler, deployment, options) for handler in manifest["handlers"]
        },
        documentation=manifest.get("documentation") or "",
        options=options,
    )


def read_common(manifest: Mapping[str, Any], options: Mapping[str, Any] = NOTHING) -> HandlerInfo:
    """What holds for handlers of a service that say nothing of their own."""
    return _read_handler(manifest, {"name": ""}, "", options)


def _read_handler(
    service: Mapping[str, Any], handler: Mapping[str, Any], deployment: str, set_options: Mapping[str, Any]
) -> HandlerInfo:
    options = {**service, **handler, **set_options}
    # The manifest's schema is closed, so what is ours travels as metadata.
    metadata = {**(service.get("metadata") or {}), **(handler.get("metadata") or {}), **set_options}
    mode, is_workflow = _mode(service["ty"], handler.get("ty")), service["ty"] == "WORKFLOW"
    kept, answers = _seconds(options.get("journalRetention"), DAY), _seconds(options.get("idempotencyRetention"), DAY)
    if is_workflow and mode is Mode.EXCLUSIVE:  # a new run under its key must find nothing of it
        kept = answers = _seconds(options.get("workflowCompletionRetention"), DAY)
    return HandlerInfo(
        service=service["name"],
        name=handler["name"],
        mode=mode,
        deployment=deployment,
        queue=metadata.get(QUEUE, DEFAULT_QUEUE),
        is_public=not options.get("ingressPrivate"),
        speculate=metadata.get("dev.perdure.speculate", "true") == "true",
        retry=_retry(options),
        retention=kept,
        idempotency_retention=answers,
        input=_said(handler.get("input"), ANY_INPUT),
        output=_said(handler.get("output"), JSON_OUTPUT),
        inactivity_ms=_milliseconds(options.get("inactivityTimeout"), None),
        abort_ms=_milliseconds(options.get("abortTimeout"), None),
        deadlocks=_deadlocks(metadata.get(DEADLOCKS)),
        keeps_history=metadata.get(HISTORY) == "true",
        eager_keys=_eager_keys(options),
        validate=metadata.get("dev.perdure.validate", "true") == "true",
        documentation=handler.get("documentation") or "",
        is_workflow=is_workflow,
    )


def _eager_keys(options: Mapping[str, Any]) -> tuple[str, ...] | None:
    if not options.get("enableLazyState"):
        return None
    return tuple(options.get("eagerStateKeysWhitelist") or ())


def _deadlocks(said: str | None) -> DeadlockPolicy:
    return DeadlockPolicy(said) if said in set(DeadlockPolicy) else DeadlockPolicy.REPORT


def _mode(type: str, handler_type: str | None) -> Mode:
    if type == "SERVICE":
        return Mode.SERVICE
    return Mode.SHARED if handler_type == "SHARED" else Mode.EXCLUSIVE


def _retry(options: Mapping[str, Any]) -> RetryPolicy:
    default = RetryPolicy()
    return RetryPolicy(
        initial_ms=_milliseconds(options.get("retryPolicyInitialInterval"), default.initial_ms),
        factor=_said(options.get("retryPolicyExponentiationFactor"), default.factor),
        max_ms=_milliseconds(options.get("retryPolicyMaxInterval"), default.max_ms),
        max_attempts=_said(options.get("retryPolicyMaxAttempts"), default.max_attempts),
        on_max_attempts=OnMaxAttempts(_said(options.get("retryPolicyOnMaxAttempts"), default.on_max_attempts)),
    )


def _said(said: T | None, default: T) -> T:
    return default if said is None else said


def _milliseconds(said: int | None, default: D) -> int | D:
    """Some SDKs write the largest number there is for what shall never end."""
    return default if said is None else min(LONGEST * 1000, said)


def _seconds(milliseconds: int | None, default: int) -> int:
    return default if milliseconds is None else min(LONGEST, milliseconds // 1000)
