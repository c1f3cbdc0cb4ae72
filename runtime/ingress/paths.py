"""The paths of the ingress, and what each leads to under one registry.

A name may hold any character but NUL, percent-encoded; an object's key, too, may hold `/` as `%2F`. So a path is cut
first and decoded after, and must be the raw one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from perdure.errors import InvalidAwakeableId, InvalidInvocationId
from perdure.protocol.ids import idempotent_id, parse_awakeable, parse_id, workflow_id
from runtime.core.registry import Registry, ServiceInfo
from runtime.ingress.doors import Door
from runtime.ingress.locks import Lock
from runtime.ingress.refused import Refused

RESERVED = "restate"
"""The first part of every path that is not a call in its short form."""

KEYED = {"VIRTUAL_OBJECT": "an object", "WORKFLOW": "a workflow"}

GET, POST = ("GET", "HEAD"), ("POST",)


class Verb(StrEnum):
    """What may be asked about an invocation that is there."""

    ATTACH = "attach"  # wait for its result
    OUTPUT = "output"  # its result, if there is one
    LOOKUP = "lookup"  # its id


class Destination(Struct):
    methods: ClassVar[tuple[str, ...]] = GET


class Call(Destination):
    """A handler, and the key of its object. Whoever only looks at a path, with HEAD, invokes nothing."""

    methods: ClassVar[tuple[str, ...]] = ("POST", "GET")
    door: Door
    key: str | None = None


class Send(Call):
    methods: ClassVar[tuple[str, ...]] = POST


class Find(Destination):
    """An invocation; the door is known when it was named by its idempotency key, or as a workflow's run."""

    verb: Verb
    id: bytes
    door: Door | None = None


class FindByBody(Destination):
    """An invocation that the body names."""

    methods: ClassVar[tuple[str, ...]] = POST
    verb: Verb


class Resolve(Destination):
    """An awakeable, which is a signal of its invocation: the body is its value."""

    methods: ClassVar[tuple[str, ...]] = POST
    id: bytes
    number: int


class Reject(Resolve):
    """An awakeable that will have no value: the body says why."""


class Describe(Destination):
    """The OpenAPI document of a service."""

    service: ServiceInfo


class Health(Destination):
    """Whether this process answers."""


class Paths:
    """Finds what a raw path leads to. Made once per registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._doors: dict[tuple[str, str], Door] = {}  # by service and handler
        self._runs: dict[str, Door] = {}  # by workflow
        self._ready: dict[bytes, Destination] = {b"/restate/health": Health()}  # paths with nothing in them to read
        self._objects: dict[bytes, dict[bytes, Door]] = {}
        self.locks = {service: Lock(service, digests) for service, digests in registry.keys.items()}
        """By the names of the services that have keys, also of those that are not served any more."""
        for service in registry.services.values():
            self._add(service)

    def _add(self, service: ServiceInfo) -> None:
        open_doors = {}
        lock = self.locks.get(service.name)
        for handler in service.handlers.values():
            door = self._doors[service.name, handler.name] = Door(handler, lock)
            if handler.runs_once:
                self._runs[service.name] = door
            if handler.is_public:
                open_doors[handler.name.encode()] = door
        name = service.name.encode()
        if service.is_keyed:
            self._objects[name] = open_doors
            return
        for handler_name, door in open_doors.items():
            call, send = Call(door), Send(door)
            self._ready[b"/%b/%b" % (name, handler_name)] = call
            self._ready[b"/%b/%b/send" % (name, handler_name)] = send
            self._ready[b"/restate/call/%b/%b" % (name, handler_name)] = call
            self._ready[b"/restate/send/%b/%b" % (name, handler_name)] = send

    def door(self, service: str, handler: str) -> Door | None:
        return self._doors.get((service, handler))

    def find_run(self, verb: Verb, workflow: str, key: str) -> Find:
        """The one run of a workflow under this key, whether it was submitted or not."""
        return Find(verb, workflow_id(workflow, key), self._runs.get(workflow))

    def find_once(self, verb: Verb, service: str, key: str | None, handler: str, idempotency_key: str) -> Find:
        """The one invocation of this idempotency key, whether it was submitted or not."""
        return Find(verb, idempotent_id(service, key, handler, idempotency_key), self.door(service, handler))

    def find(self, raw: bytes) -> Destination:
        """What this path leads to; raises Refused, UnknownService, UnknownHandler."""
        ready = self._ready.get(raw)
        if ready is not None:
            return ready
        parts = raw.split(b"/")
        if parts[0] or len(parts) == 1:
            raise _misshapen()
        if len(parts) == 4 and (doors := self._objects.get(parts[1])) and (door := doors.get(parts[3])) and parts[2]:
            return Call(door, decode_part(parts[2]))  # the other common shape
        names = [decode_part(part) for part in parts[1:]]
        if "" in names:
            raise _misshapen("A part of the path is empty.")
        return self._reserved(names[1:]) if names[0] == RESERVED else self._submission(names)

    def _reserved(self, names: list[str]) -> Destination:
        match names:
            case ["call", *target]:
                return self._call(target)
            case ["send", *target]:
                return self._send(target)
            case ["attach" | "output" | "lookup" as verb]:
                return FindByBody(Verb(verb))
            case ["attach" | "output" as verb, id] | ["invocation", id, "attach" | "output" as verb]:
                return Find(Verb(verb), read_id(id))
            case ["invocation", service, handler, once, "attach" | "output" as verb]:
                return self.find_once(Verb(verb), service, None, handler, once)
            case ["invocation", service, key, handler, once, "attach" | "output" as verb]:
                return self.find_once(Verb(verb), service, key, handler, once)
            case ["workflow", workflow, key, "attach" | "output" as verb]:
                return self.find_run(Verb(verb), workflow, key)
            case ["awakeables" | "a", id, "resolve"]:
                return Resolve(*read_awakeable(id))
            case ["awakeables" | "a", id, "reject"]:
                return Reject(*read_awakeable(id))
            case ["openapi", service]:
                return Describe(self.registry.service(service))
            case ["scope", *_]:
                raise no_scopes()
        raise _misshapen()

    def _submission(self, names: list[str]) -> Call:
        """`service[/key]/handler[/send]`: whether there is a key, only the service can tell."""
        is_send = names[-1] == "send" and len(names) > _length(self.registry.service(names[0]))
        return self._send(names[:-1]) if is_send else self._call(names)

    def _call(self, names: list[str]) -> Call:
        return Call(*self._target(names))

    def _send(self, names: list[str]) -> Send:
        return Send(*self._target(names))

    def _target(self, names: list[str]) -> tuple[Door, str | None]:
        if not names:
            raise _misshapen()
        service = self.registry.service(names[0])
        if service.is_keyed and _lacks_key(names, service):
            message = f"{service.name} is {KEYED[service.type]}: its key is missing."
            raise _misshapen(message, f"/{service.name}/{{key}}/{names[1]}")
        if not service.is_keyed and len(names) == 3:
            raise _misshapen(f"{service.name} is no object: it takes no key.", f"/{service.name}/{names[2]}")
        if len(names) != _length(service):
            raise _misshapen()
        handler = self.registry.resolve(service.name, names[-1])
        if not handler.is_public:
            raise Refused(400, f"{service.name}/{handler.name} is private: only other handlers may call it.")
        return self._doors[service.name, handler.name], names[1] if service.is_keyed else None


def _length(service: ServiceInfo) -> int:
    """The names in the path of a call."""
    return 3 if service.is_keyed else 2


def _lacks_key(names: list[str], service: ServiceInfo) -> bool:
    if names[2:] == ["send"]:
        return names[1] in service.handlers and "send" not in service.handlers
    return len(names) == 2


def decode_part(part: bytes) -> str:
    """One part of a path as text; raises Refused."""
    try:
        text = (unquote_to_bytes(part) if b"%" in part else part).decode()
    except UnicodeDecodeError:
        raise Refused(400, "The path is not valid UTF-8.", "Percent-encode UTF-8 bytes.") from None
    if "\0" in text:
        raise Refused(400, "The path holds a NUL character (%00), which cannot be stored.")
    return text


def read_id(text: str) -> bytes:
    """The invocation of this id; raises Refused."""
    try:
        return parse_id(text)
    except InvalidInvocationId as error:
        raise Refused(400, f"{text[:100]!r} is not the id of an invocation.", error.hint) from None


def read_awakeable(text: str) -> tuple[bytes, int]:
    """The invocation of this awakeable, and the number of the signal that it is; raises Refused."""
    try:
        return parse_awakeable(text)
    except InvalidAwakeableId as error:
        raise Refused(400, f"{text[:100]!r} is not the id of an awakeable.", error.hint) from None


def no_scopes() -> Refused:
    return Refused(501, "Scopes and limit keys are not supported.", "Call without them: a key alone is an identity.")


def _misshapen(
    message: str = "This path leads nowhere.", right: str = "/{service}/{handler} or /{object}/{key}/{handler}"
) -> Refused:
    return Refused(400, message, f"POST to {right}; with /send appended, to go on without waiting.")
