"""Endpoints to be registered by tests."""

from __future__ import annotations

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler


class Greeter(Service):
    """Says hello."""

    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        """Greets by name."""
        return f"Hello {name}"

    @handler(private=True)
    async def whisper(self, ctx: Context, name: str) -> None: ...


class Mailbox(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, text: str) -> int:
        return 1

    @handler(shared=True)
    async def letters(self, ctx: ObjectContext) -> list[str]:
        return []


app = Endpoint(Greeter, Mailbox)
greeter = Endpoint(Greeter)
nothing = None
number = 3
