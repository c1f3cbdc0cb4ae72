"""What the client of PyPI's restate-sdk does against the conformance services, told as one line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

import restate
from restate.client_types import HttpError

greeter, failing = restate.Service("Greeter"), restate.Service("Failing")
counter, approval = restate.VirtualObject("Counter"), restate.Workflow("Approval")


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    raise NotImplementedError


@failing.handler()
async def terminal(ctx: restate.Context) -> None:
    raise NotImplementedError


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    raise NotImplementedError


@counter.handler(kind="shared")
async def get(ctx: restate.ObjectSharedContext) -> int:
    raise NotImplementedError


@approval.main()
async def run(ctx: restate.WorkflowContext, what: str) -> str:
    raise NotImplementedError


@approval.handler()
async def decide(ctx: restate.WorkflowSharedContext, decision: str) -> None:
    raise NotImplementedError


async def refusal(call: Any) -> int | None:
    try:
        await call
    except HttpError as error:
        return int(error.status_code)
    return None


async def tell(url: str, key: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    async with restate.create_client(url) as client:
        told["call"] = await client.service_call(greet, "Mary")
        told["object"] = [await client.object_call(add, f"{key} b", amount) for amount in (2, 3)]
        told["refused"] = await refusal(client.service_call(terminal, None))
        once = [await client.service_send(greet, "Ann", idempotency_key=key) for _ in range(2)]
        told["sent"] = once[0].invocation_id == once[1].invocation_id
        told["once"] = await client.service_call(greet, "Ann", idempotency_key=key)
        await client.object_send(add, f"{key} later", 7, send_delay=timedelta(milliseconds=50))
        while (count := await client.object_call(get, f"{key} later", None)) is None:
            pass
        told["later"] = count
        told["raw"] = (await client.generic_call("Echo", "nothing", b"")).decode()
        await client.workflow_send(run, f"{key} w", "a chair")
        told["again"] = await refusal(client.workflow_call(run, f"{key} w", "a chair"))
        await client.workflow_call(decide, f"{key} w", "no")
        running = asyncio.create_task(client.workflow_call(run, f"{key} v", "a table"))
        await client.workflow_call(decide, f"{key} v", "yes")
        told["run"] = await running
    return told


print(json.dumps(asyncio.run(tell(*sys.argv[1:]))))
