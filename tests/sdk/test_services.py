"""Services, endpoints and manifests: what is accepted, what is refused in words, and what a runtime is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Context, DefinitionError, Endpoint, ObjectContext, Retry, Service, SharedContext, VirtualObject
from perdure import handler as durable
from perdure.errors import ProtocolError
from perdure.protocol.manifest import HandlerType, Manifest, ServiceType


@dataclass
class Order:
    item: str
    count: int = 1


class Shop(
    Service,
    name="shop.v1",
    private=True,
    queue="slow",
    journal_retention=timedelta(hours=1),
    retry=Retry(initial=timedelta(milliseconds=100), factor=3, max_attempts=5, on_max_attempts="kill"),
):
    """Sells things."""

    @durable
    async def sell(self, ctx: Context, order: Order) -> int:
        """Sells one thing."""
        return order.count

    @durable(queue="fast", speculate=False, idempotency_retention=timedelta(days=1))
    async def hint(self, ctx: Context, text: str = "") -> None: ...

    @durable
    async def echo(self, ctx: Context, content: bytes) -> bytes:
        return content


class Shelf(VirtualObject):
    @durable
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        return amount

    @durable(shared=True)
    async def look(self, ctx: SharedContext) -> list[str]:
        return []


MANIFEST = {
    "protocolMode": "BIDI_STREAM",
    "minProtocolVersion": 5,
    "maxProtocolVersion": 7,
    "services": [
        {
            "name": "shop.v1",
            "ty": "SERVICE",
            "documentation": "Sells things.",
            "metadata": {"dev.perdure.queue": "slow"},
            "ingressPrivate": True,
            "journalRetention": 3600000,
            "retryPolicyInitialInterval": 100,
            "retryPolicyExponentiationFactor": 3,
            "retryPolicyMaxAttempts": 5,
            "retryPolicyOnMaxAttempts": "KILL",
            "handlers": [
                {
                    "name": "sell",
                    "documentation": "Sells one thing.",
                    "input": {
                        "required": True,
                        "contentType": "application/json",
                        "jsonSchema": {
                            "$ref": "#/$defs/Order",
                            "$defs": {
                                "Order": {
                                    "title": "Order",
                                    "type": "object",
                                    "properties": {
                                        "item": {"type": "string"},
                                        "count": {"type": "integer", "default": 1},
                                    },
                                    "required": ["item"],
                                }
                            },
                        },
                    },
                    "output": {"contentType": "application/json", "jsonSchema": {"type": "integer"}},
                },
                {
                    "name": "hint",
                    "metadata": {"dev.perdure.queue": "fast", "dev.perdure.speculate": "false"},
                    "idempotencyRetention": 86400000,
                    "input": {"contentType": "application/json", "jsonSchema": {"type": "string"}},
                    "output": {},
                },
                {
                    "name": "echo",
                    "input": {"required": True, "contentType": "application/octet-stream"},
                    "output": {"contentType": "application/octet-stream"},
                },
            ],
        },
        {
            "name": "Shelf",
            "ty": "VIRTUAL_OBJECT",
            "handlers": [
                {
                    "name": "add",
                    "ty": "EXCLUSIVE",
                    "input": {
                        "required": True,
                        "contentType": "application/json",
                        "jsonSchema": {"type": "integer"},
                    },
                    "output": {"contentType": "application/json", "jsonSchema": {"type": "integer"}},
                },
                {
                    "name": "look",
                    "ty": "SHARED",
                    "input": {},
                    "output": {
                        "contentType": "application/json",
                        "jsonSchema": {"type": "array", "items": {"type": "string"}},
                    },
                },
            ],
        },
    ],
}


def test_an_endpoint_says_all_that_its_services_say() -> None:
    manifest = Endpoint(Shop, Shelf).manifest()
    assert msgspec.json.decode(manifest.to_json()) == MANIFEST
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_manifest_is_read_with_its_defaults_filled_in() -> None:
    shop, shelf = Manifest.from_json(msgspec.json.encode(MANIFEST)).services
    assert (shop.queue, shop.speculate, shop.handlers[1].queue, shop.handlers[1].speculate) == (
        "slow", None, "fast", False,
    )  # fmt: skip
    assert [handler.kind_in(shelf) for handler in shelf.handlers] == [HandlerType.EXCLUSIVE, HandlerType.SHARED]
    assert shop.handlers[0].kind_in(shop) is None
    untyped = msgspec.structs.replace(shelf.handlers[0], ty=None)
    assert untyped.kind_in(shelf) is HandlerType.EXCLUSIVE
    assert untyped.kind_in(msgspec.structs.replace(shelf, ty=ServiceType.WORKFLOW)) is HandlerType.WORKFLOW


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"protocolMode":"BIDI_STREAM","minProtocolVersion":0,"maxProtocolVersion":7,"services":[]}',
        msgspec.json.encode({**MANIFEST, "services": [{"name": "bad name", "ty": "SERVICE", "handlers": []}]}),
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="no manifest"):
        Manifest.from_json(content)


# Mistakes ----------------------------------------------------------------------------------------------------------


def not_async() -> None:
    class Wrong(Service):
        @durable  # type: ignore[arg-type]
        def greet(self, ctx: Context) -> None: ...


def no_context() -> None:
    class Wrong(Service):
        @durable  # type: ignore[arg-type]
        async def greet(self) -> None: ...


def two_arguments() -> None:
    class Wrong(Service):
        @durable
        async def greet(self, ctx: Context, first: str, last: str) -> None: ...


def keyword_argument() -> None:
    class Wrong(Service):
        @durable
        async def greet(self, ctx: Context, *, name: str) -> None: ...


def shared_in_a_service() -> None:
    class Wrong(Service):
        @durable(shared=True)
        async def greet(self, ctx: Context) -> None: ...


def bad_service_name() -> None:
    class Wrong(Service, name="a b"): ...


def bad_handler_name() -> None:
    class Wrong(Service):
        @durable
        async def grüße(self, ctx: Context) -> None: ...


def one_handler_twice() -> None:
    class Wrong(Service):
        @durable
        async def greet(self, ctx: Context) -> None: ...

        hello = greet


def duration_in_a_handler() -> None:
    class Wrong(Service, retry=Retry(max_duration=timedelta(1))): ...


def no_handlers() -> None:
    class Empty(Service): ...

    Endpoint(Empty)


def no_service() -> None:
    Endpoint(Order)  # type: ignore[arg-type]


def same_name() -> None:
    class Shelf(VirtualObject):
        @durable
        async def add(self, ctx: ObjectContext) -> None: ...

    Endpoint(Shelf, globals()["Shelf"])


def wrong_context() -> None:
    class Greeter(Service):
        @durable
        async def greet(self, ctx: ObjectContext) -> None: ...

    Endpoint(Greeter)


def setting_context_in_a_shared_handler() -> None:
    class Greeter(Service):
        @durable
        async def greet(self, ctx: SharedContext) -> None: ...

    Endpoint(Greeter)


def unknown_type() -> None:
    class Local: ...

    class Greeter(Service):
        @durable
        async def greet(self, ctx: Context, local: Local) -> None: ...

    Endpoint(Greeter).manifest()


def unreadable_type() -> None:
    class Greeter(Service):
        @durable
        async def greet(self, ctx: Context, service: Callable[[int], int]) -> None: ...

    Endpoint(Greeter)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (not_async, "a handler is `async def`"),
        (no_context, "has no ctx"),
        (two_arguments, r"takes too much \(last\)"),
        (keyword_argument, "arguments are positional"),
        (shared_in_a_service, "only a virtual object's handlers"),
        (bad_service_name, "'a b' cannot be the name of a service"),
        (bad_handler_name, "cannot be the name of a handler"),
        (one_handler_twice, "under a second name"),
        (duration_in_a_handler, "is for ctx.run"),
        (no_handlers, "has no handlers"),
        (no_service, "neither a Service nor a VirtualObject"),
        (same_name, "Two services have the name 'Shelf'"),
        (wrong_context, "Greeter.greet gets a Context, not ObjectContext"),
        (setting_context_in_a_shared_handler, "gets a Context, not SharedContext"),
        (unknown_type, "the type 'Local' is not known"),
        (unreadable_type, "cannot be read from JSON"),
    ],
)
def test_mistakes_are_said_where_they_are_made(mistake: Callable[[], Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        mistake()


@pytest.mark.parametrize("fields", [{"factor": 0.5}, {"max_attempts": 0}, {"initial": timedelta(-1)}])
def test_retry_policies_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="retry policy"):
        Retry(**fields)


def test_the_thousandth_retry_waits_no_longer_than_the_longest() -> None:
    assert Retry(initial=timedelta(seconds=1)).delay(1000) == timedelta(minutes=1)
    assert Retry(initial=timedelta(seconds=1), max_interval=timedelta(hours=1)).delay(1000) == timedelta(hours=1)
    assert Retry().delay(3) is None


def test_handlers_are_inherited() -> None:
    class Base(Service):
        @durable
        async def greet(self, ctx: Context) -> str:
            return "base"

    class Derived(Base):
        @durable
        async def part(self, ctx: Context) -> None: ...

    [service] = Endpoint(Derived).manifest().services
    assert [handler.name for handler in service.handlers] == ["greet", "part"]


async def test_a_service_may_be_made_with_what_it_needs() -> None:
    class Till(Service):
        def __init__(self, coins: int) -> None:
            self.coins = coins

        @durable
        async def count(self, ctx: Context) -> int:
            return self.coins

    endpoint = Endpoint(Till(5))
    bound = endpoint.find("Till", "count")
    assert await bound.invoke(None, b"") == b"5"


# Naming the code -----------------------------------------------------------------------------------------------------

MODULE = """
from perdure import Context, Endpoint, Service, handler

class Greeter(Service):
    @handler
    async def greet(self, ctx: Context) -> str:
        return {answer!r}

print(Endpoint(Greeter).code_hash)
"""


def code_hash(directory: Path, answer: str) -> str:
    (directory / "greeter.py").write_text(MODULE.format(answer=answer))
    path = str(Path(perdure.__file__).parents[1])
    code = f"import sys; sys.path[:0] = [{path!r}, {str(directory)!r}]; import greeter"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_code_is_named_by_its_manifest_and_its_source(tmp_path: Path) -> None:
    hello = code_hash(tmp_path, "Hello")
    assert len(hello) == 16
    assert code_hash(tmp_path, "Hi") != hello
    assert code_hash(tmp_path, "Hello") == hello
    assert Endpoint(Shop).code_hash != Endpoint(Shop, Shelf).code_hash
