"""Every way in which services speak to each other, on one page; `main` plays it against a running system.

python -m examples.communication [http://127.0.0.1:8080]
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from uuid import uuid4

from perdure import Context, Endpoint, ObjectContext, Service, SharedContext, VirtualObject, handler
from perdure.client import Client


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello {name}"


class Mailbox(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, text: str) -> int:
        letters = await ctx.get("letters", list[str]) or []
        ctx.set("letters", [*letters, text])
        return len(letters) + 1

    @handler(shared=True)
    async def letters(self, ctx: SharedContext) -> list[str]:
        return await ctx.get("letters", list[str]) or []


class Front(Service):
    @handler
    async def demo(self, ctx: Context, who: str) -> str:
        answer = await ctx.service_client(Greeter).greet("Hi")  # request-response, to a service
        count = await ctx.object_client(Mailbox, who).put("Hi")  # request-response, to an object's key
        ctx.object_send_client(Mailbox, who).put("Hi!")  # one-way: durable without an await
        ctx.object_send_client(Mailbox, who).put("Hi again!")  # and in this order
        ctx.service_send_client(Greeter, delay=timedelta(seconds=5)).greet("Hi")  # delayed
        handle = ctx.object_send_client(Mailbox, who, delay=timedelta(seconds=1)).put("Hi at last!")
        receipt = await ctx.run("charge", charge_card, who)  # a side effect whose result is kept
        await ctx.sleep(timedelta(milliseconds=50))
        return f"{answer}, letter {count}, {receipt}, later: {await handle.invocation_id()}"


def charge_card(who: str) -> str:
    return f"{who} was charged"


app = Endpoint(Greeter, Mailbox, Front)


async def main(url: str = "http://127.0.0.1:8080") -> None:
    """Play the page, and check every answer."""
    mary = f"Mary-{uuid4().hex[:8]}"  # a mailbox of our own, so that the page can be played again
    async with Client(url) as client:
        mailbox = client.object(Mailbox, mary)
        show("a service is called", await client.service(Greeter).greet("Hi"), "Hello Hi")
        show("an object is called", await mailbox.put("Hello from outside"), 1)

        handle = client.object_send(Mailbox, mary).put("Sent from outside")
        show("a send is accepted, and gives an id", (await handle.invocation_id())[:5], "inv_1")
        show("its result can be had later", await client.attach(await handle.invocation_id(), int), 2)

        once = client.object_send(Mailbox, mary, idempotency_key=mary).put("Once")
        twice = client.object_send(Mailbox, mary, idempotency_key=mary).put("Once")
        show("an idempotency key starts one", await twice.invocation_id(), await once.invocation_id())

        answer = await client.service(Front).demo(mary)
        expected = f"Hello Hi, letter 4, {mary} was charged, later: inv_1"
        show("a handler speaks to others", answer[: len(expected)], expected)

        later = answer.rpartition(" ")[2]
        show("a delayed letter arrives", await client.attach(later, int), 7)
        letters = ["Hello from outside", "Sent from outside", "Once", "Hi", "Hi!", "Hi again!", "Hi at last!"]
        show("all letters, in order", await mailbox.letters(), letters)


def show(what: str, answer: object, expected: object) -> None:
    print(f"{what + ' ':.<40} {answer}", flush=True)
    if answer != expected:
        raise SystemExit(f"This was expected: {expected}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
