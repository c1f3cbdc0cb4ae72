"""The smallest service there is."""

from __future__ import annotations

from perdure import Context, Endpoint, Service, handler


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        """Say hello."""
        return f"Hello {name}"


app = Endpoint(Greeter)
