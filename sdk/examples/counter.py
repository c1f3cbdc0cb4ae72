"""A virtual object: one number per key, however many callers there are."""

from __future__ import annotations

from perdure import Endpoint, ObjectContext, SharedContext, VirtualObject, handler


class Counter(VirtualObject):
    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        """Add to the number, and give the new one. Nobody else changes it meanwhile."""
        count = (await ctx.get("count", int) or 0) + amount
        ctx.set("count", count)
        return count

    @handler(shared=True)
    async def get(self, ctx: SharedContext) -> int:
        """The number. Does not wait for those who add."""
        return await ctx.get("count", int) or 0


app = Endpoint(Counter)
