"""What is left of a body that was refused: read and dropped for a while, so that its client can read the answer.

A connection that is closed while there is something to read from it is reset, and with that its client, who may still
be sending, loses the answer. Nobody is listened to for ever: whoever goes on and on is reset after all.
"""

from __future__ import annotations

import asyncio

from runtime.ingress.departures import Receive

MOST = 64 * 1024 * 1024
"""Bytes."""
LONGEST = 5.0
"""Seconds in all."""
SILENCE = 1.0
"""Seconds without a byte: the client waits for us, and has the answer."""


async def drop(receive: Receive) -> None:
    """Read on until the client has sent all, has left, or has had its time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LONGEST
    dropped = 0
    while dropped < MOST:
        try:
            message = await asyncio.wait_for(receive(), min(SILENCE, deadline - loop.time()))
        except TimeoutError:
            return
        if not message.get("more_body"):
            return
        dropped += len(message["body"])
