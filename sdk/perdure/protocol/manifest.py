"""What an endpoint says it can do: its services, their handlers, and what was said about them."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct

from perdure.errors import ProtocolError

SERVICE_NAME = r"^([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*$"
HANDLER_NAME = r"^([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*$"

Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]

_QUEUE = "dev.perdure.queue"
_SPECULATE = "dev.perdure.speculate"


class ServiceType(Enum):
    SERVICE = "SERVICE"
    VIRTUAL_OBJECT = "VIRTUAL_OBJECT"
    WORKFLOW = "WORKFLOW"


class HandlerType(Enum):
    EXCLUSIVE = "EXCLUSIVE"
    SHARED = "SHARED"
    WORKFLOW = "WORKFLOW"


class InputManifest(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a handler takes. With nothing set: no body at all."""

    required: bool = False
    content_type: str | None = None
    json_schema: Any = UNSET


class OutputManifest(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a handler gives."""

    content_type: str | None = None
    set_content_type_if_empty: bool = False
    json_schema: Any = UNSET


class _Options(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What may be said on a service, and more closely on a handler. Durations are milliseconds."""

    documentation: str | None = None
    metadata: dict[str, str] = {}
    inactivity_timeout: Milliseconds | None = None
    abort_timeout: Milliseconds | None = None
    journal_retention: Milliseconds | None = None
    idempotency_retention: Milliseconds | None = None
    enable_lazy_state: bool | None = None
    eager_state_keys_whitelist: tuple[str, ...] | None = None
    ingress_private: bool | None = None
    retry_policy_initial_interval: Milliseconds | None = None
    retry_policy_max_interval: Milliseconds | None = None
    retry_policy_max_attempts: Count | None = None
    retry_policy_exponentiation_factor: float | None = None
    retry_policy_on_max_attempts: Literal["PAUSE", "KILL"] | None = None

    @property
    def queue(self) -> str | None:
        """Which workers run it. The schema is closed, so what is ours travels as metadata."""
        return self.metadata.get(_QUEUE)

    @property
    def speculate(self) -> bool | None:
        """Whether it may start on the uncommitted state of its key's previous invocation."""
        said = self.metadata.get(_SPECULATE)
        return None if said is None else said == "true"


def options_metadata(queue: str | None, speculate: bool | None) -> dict[str, str]:
    """The metadata in which `queue` and `speculate` travel.

    >>> options_metadata("slow", None)
    {'dev.perdure.queue': 'slow'}
    """
    said = {_QUEUE: queue, _SPECULATE: None if speculate is None else str(speculate).lower()}
    return {name: value for name, value in said.items() if value is not None}


class HandlerManifest(_Options, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One handler. Without `input`, any body will do; without `output`, it gives JSON."""

    name: Annotated[str, Meta(pattern=HANDLER_NAME)]
    ty: HandlerType | None = None
    """None in a service. In an object it means EXCLUSIVE, in a workflow WORKFLOW: see `kind_in`."""
    input: InputManifest | None = None
    output: OutputManifest | None = None
    workflow_completion_retention: Milliseconds | None = None

    def kind_in(self, service: ServiceManifest) -> HandlerType | None:
        """The handler's type with what its absence means filled in."""
        if self.ty is None and service.ty is ServiceType.VIRTUAL_OBJECT:
            return HandlerType.EXCLUSIVE
        if self.ty is None and service.ty is ServiceType.WORKFLOW:
            return HandlerType.WORKFLOW
        return self.ty


class ServiceManifest(_Options, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One service, virtual object or workflow."""

    name: Annotated[str, Meta(pattern=SERVICE_NAME)]
    ty: ServiceType
    handlers: tuple[HandlerManifest, ...]


class Manifest(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """All that an endpoint offers.

    >>> nothing = Manifest(protocol_mode="BIDI_STREAM", min_protocol_version=5, max_protocol_version=7, services=())
    >>> Manifest.from_json(nothing.to_json()) == nothing
    True
    """

    protocol_mode: Literal["BIDI_STREAM", "REQUEST_RESPONSE"]
    min_protocol_version: Version
    max_protocol_version: Version
    services: tuple[ServiceManifest, ...]

    def to_json(self) -> bytes:
        return _ENCODER.encode(self)

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Raises ProtocolError, in words that name the place."""
        try:
            return _DECODER.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"This is no manifest: {error}.") from error


_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Manifest)
