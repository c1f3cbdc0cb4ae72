"""What the pages show, read from the runtime."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.core.filters import InvocationFilter
from runtime.core.registry import HandlerInfo
from runtime.reading import invocations, services
from runtime.reading.invocations import Summary
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


def call_path(handler: HandlerInfo) -> str:
    """The path at which callers reach a handler.

    >>> from runtime.core.invocation import Mode
    >>> call_path(HandlerInfo("Mailbox", "put", Mode.EXCLUSIVE, "dp_1"))
    '/Mailbox/{key}/put'
    """
    return f"/{handler.service}/{{key}}/{handler.name}" if handler.is_keyed else f"/{handler.service}/{handler.name}"
