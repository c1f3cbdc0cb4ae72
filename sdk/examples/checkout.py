"""A saga: what was done is undone, in reverse, when a later step fails for good or somebody cancels."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perdure import Context, Endpoint, ObjectContext, Retry, Service, TerminalError, VirtualObject, handler

Undo = Callable[[], Coroutine[Any, Any, None]]


@dataclass
class Order:
    id: str
    item: str
    price: int


class Stock(VirtualObject):
    """How many of an item there are."""

    @handler
    async def fill(self, ctx: ObjectContext, count: int) -> None:
        ctx.set("left", count)

    @handler
    async def reserve(self, ctx: ObjectContext) -> int:
        """Take one, and give how many are left."""
        left = await ctx.get("left", int) or 0
        if not left:
            raise TerminalError(f"{ctx.key} is sold out", code=410)
        ctx.set("left", left - 1)
        return left - 1

    @handler
    async def release(self, ctx: ObjectContext) -> None:
        """Put one back."""
        ctx.set("left", (await ctx.get("left", int) or 0) + 1)


class Checkout(Service):
    @handler
    async def buy(self, ctx: Context, order: Order) -> str:
        """Reserve, charge, and wait for the parcel to be handed over."""
        undo: list[Undo] = []
        try:
            await ctx.object_client(Stock, order.item).reserve()
            undo.append(lambda: self.release(ctx, order))

            payment = await ctx.run("charge", charge, order, retry=Retry(max_attempts=5))
            undo.append(lambda: self.refund(ctx, payment))

            await ctx.sleep(timedelta(seconds=30))
            return payment
        except TerminalError:  # a step that failed for good, or a cancellation
            for step in reversed(undo):
                await step()
            raise

    async def release(self, ctx: Context, order: Order) -> None:
        await ctx.object_client(Stock, order.item).release()

    async def refund(self, ctx: Context, payment: str) -> None:
        await ctx.run("refund", refund, payment)


async def charge(order: Order) -> str:
    """Stands for a call to a payment provider, which takes the order's id as its idempotency key."""
    if order.price < 0:
        raise TerminalError("a price cannot be negative", code=400)
    return f"payment-{order.id}"


async def refund(payment: str) -> None:
    print(f"refunded {payment}")


app = Endpoint(Checkout, Stock)
