"""Two philosophers and a deadlock: each takes one thing, then wants what the other has.

Call Anna/table/dine and Bert/table/dine at once. Each holds its own key while it waits for the other's, so nothing
moves until somebody cancels one of them: it gets a 409, and the other goes on.
"""

from __future__ import annotations

from datetime import timedelta

from perdure import Endpoint, ObjectContext, VirtualObject, handler

MOMENT = timedelta(milliseconds=200)


class Anna(VirtualObject):
    @handler
    async def dine(self, ctx: ObjectContext) -> str:
        await ctx.sleep(MOMENT)  # long enough for the other to begin
        return "Anna dined with " + await ctx.object_client(Bert, ctx.key).lend()

    @handler
    async def lend(self, ctx: ObjectContext) -> str:
        return "Anna's fork"


class Bert(VirtualObject):
    @handler
    async def dine(self, ctx: ObjectContext) -> str:
        await ctx.sleep(MOMENT)
        return "Bert dined with " + await ctx.object_client(Anna, ctx.key).lend()

    @handler
    async def lend(self, ctx: ObjectContext) -> str:
        return "Bert's fork"


app = Endpoint(Anna, Bert)
