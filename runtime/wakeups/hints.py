"""Hints: to whoever listens at an address, over a socket where one reaches it, else by NOTIFY.

An address is the path of an engine's socket. Its name, which nobody can guess, is also that of its channel, so one
address serves both and a path that exists here leads to no other engine. Whether it does is simply tried.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime.wakeups.kinds import Item
from runtime.wakeups.notices import Noticed, Notices
from runtime.wakeups.wires import Lines, Received


class Hints:
    """Those of one process, whose own address is given, be there a socket or not.

    `received` is called with what our own say over sockets, `noticed` with what anyone may say by NOTIFY, and `look`
    when a notice may have been missed.
    """

    def __init__(
        self,
        conninfo: str,
        token: bytes,
        address: str,
        *,
        received: Received,
        noticed: Noticed,
        look: Callable[[], None],
    ) -> None:
        self._lines = Lines(received, token, unreached=self._notify)
        self._notices = Notices(conninfo, _name(address), noticed, look)

    def listen(self) -> None:
        """Take notices from now on; without it, from the first one that is sent."""
        self._notices.start()

    def send(self, address: str, kind: int, item: Item) -> None:
        """Leaves at the end of this tick, with everything else for that address."""
        self._lines.send(address, kind, item)

    def is_near(self, address: str) -> bool:
        """Whether a socket reaches it, for all that is known."""
        return not self._lines.is_unreached(address)

    async def flushed(self) -> None:
        """Return when what was sent so far is on its way, or cannot be."""
        await self._lines.flushed()
        await self._notices.flushed()

    def forget(self, addresses: set[str]) -> None:
        """Close what leads to none of `addresses`."""
        self._lines.forget(addresses)

    def close(self) -> None:
        self._lines.close()
        self._notices.close()

    def _notify(self, address: str, kind: int, item: Item) -> None:
        self._notices.send(_name(address), kind, item)


def _name(address: str) -> str:
    return Path(address).stem
