"""A workflow: somebody signs up, and has three days to follow the link in a mail.

Start Signup/mary/run with an address. The step `send_mail` prints the link's secret; with it call
Signup/mary/confirm, from anywhere and at any time: the workflow waits for it, and costs nothing while it does.
"""

from __future__ import annotations

from datetime import timedelta

from perdure import Endpoint, Workflow, WorkflowContext, WorkflowSharedContext, first, handler

TIME_LIMIT = timedelta(days=3)


def send_mail(address: str, secret: str) -> None:
    """Would send it."""
    print(f"To {address}: follow this link within three days: https://example.com/confirm?secret={secret}")


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, address: str) -> bool:
        """Whether the address was confirmed in time. Runs once per key."""
        secret = str(ctx.uuid())
        ctx.set("secret", secret)
        ctx.set("status", "waiting")
        await ctx.run("mail", send_mail, address, secret)
        try:
            await first(ctx.promise("confirmed").get(), timeout=TIME_LIMIT)
        except TimeoutError:
            ctx.set("status", "too late")
            return False
        ctx.set("status", "confirmed")
        return True

    @handler
    async def confirm(self, ctx: WorkflowSharedContext, secret: str) -> bool:
        """Follow the link: may be called as often as one likes, before and after the workflow's end."""
        if secret != await ctx.get("secret", str):
            return False
        if await ctx.promise("confirmed").peek() is None:
            ctx.promise("confirmed").resolve(secret)
        return True

    @handler
    async def status(self, ctx: WorkflowSharedContext) -> str:
        """Where it stands."""
        return await ctx.get("status", str) or "unknown"


app = Endpoint(Signup)
