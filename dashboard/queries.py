"""What the pages show, read from the runtime."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.errors import InvalidInvocationId
from perdure.protocol.ids import parse_id
from runtime.core.access import Actor
from runtime.core.filters import InvocationFilter
from runtime.core.registry import HandlerInfo
from runtime.reading import invocations, services
from runtime.reading.detail import Detail, find
from runtime.reading.invocations import Summary
from runtime.reading.journal import hidden, payload
from runtime.reading.services import Served

SHOWN = 50  # as many lines as a glance takes in, and one short answer every two seconds


@dataclass(frozen=True, slots=True)
class Overview:
    services: list[Served]
    latest: list[Summary]


async def overview() -> Overview:
    return Overview(await services.services(), await latest())


async def latest() -> list[Summary]:
    return list((await invocations.page(InvocationFilter(), limit=SHOWN)).invocations)


async def invocation(id: str, actor: Actor) -> Detail | None:
    """As much of it as somebody may see; None: there is none of that id."""
    try:
        key = parse_id(id)
    except InvalidInvocationId:
        return None
    return await find(key, services=actor.services, show=payload if actor.sees_payloads else hidden)


def call_path(handler: HandlerInfo) -> str:
    """The path at which callers reach a handler.

    >>> from runtime.core.invocation import Mode
    >>> call_path(HandlerInfo("Mailbox", "put", Mode.EXCLUSIVE, "dp_1"))
    '/Mailbox/{key}/put'
    """
    return f"/{handler.service}/{{key}}/{handler.name}" if handler.is_keyed else f"/{handler.service}/{handler.name}"
