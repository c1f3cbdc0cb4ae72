"""What every answer of the web process tells browsers: nothing is to be loaded with it, framed or guessed about.

Pages say for themselves what they may load.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[dict[str, Any], Any, Send], Awaitable[None]]


def guarded(application: Application) -> Application:
    """The application, whose answers all have these headers, files and refusals too."""

    async def answer(scope: dict[str, Any], receive: Any, send: Send) -> None:
        async def sending(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                said = list(message.get("headers", ()))
                names = {bytes(name).lower() for name, _ in said}
                said += [header for header in HEADERS.items() if header[0] not in names]
                message = {**message, "headers": said}
            await send(message)

        await application(scope, receive, sending)

    return answer
