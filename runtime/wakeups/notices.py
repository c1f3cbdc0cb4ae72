"""Notices: hints by NOTIFY, for those whom no socket reaches, on another machine or with another secret key.

Whoever may connect to the database may send one, so a notice says where to look and nothing that is believed: ids and
keys, never a result. One session per process listens and sends. What is to be told while a notice is on its way
leaves with the next one, so there is one per target and round trip, whatever the load: a commit that notifies takes a
lock that all of the server's share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from runtime.errors import DatabaseError, Disconnected
from runtime.store.notify import LONGEST, Channels
from runtime.wakeups.kinds import Asker, Item, Kind

log = logging.getLogger(__name__)

ROOM = LONGEST - 100  # bytes for the items of a notice: its fields and its sender have names
MOST = 10_000  # items that wait for one target; more are not worth their while
RECONNECT = 1.0

Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
Text = Annotated[str, Meta(pattern=r"\A[^\0]*\Z")]
Name = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Brief = Id | tuple[Text, Text] | int | None


class Notice(Struct, omit_defaults=True):
    """Where to look, by kind of hint: at invocations, at keys, or around."""

    sender: Name
    born: list[Id] = []
    keys: list[tuple[Text, Text]] = []
    mail: list[Id] = []
    ready: list[None] = []
    watch: list[Id] = []
    done: list[Id] = []
    look: list[None] = []
    due: list[int] = []


Noticed = Callable[[Asker, Notice], None]


class Notices:
    def __init__(self, conninfo: str, name: str, noticed: Noticed, look: Callable[[], None]) -> None:
        self._conninfo = conninfo
        self._name = name
        self._noticed = noticed
        self._look = look
        self._waiting: dict[str, dict[tuple[int, Brief], None]] = {}
        self._asked = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Notice).decode

    def start(self) -> None:
        """Listen, and send what there is to say."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    def send(self, name: str, kind: int, item: Item) -> None:
        """Tell the listener of that name, with the next notice to it."""
        waiting = self._waiting.setdefault(name, {})
        brief = _brief(kind, item)
        if len(self._encode(brief)) > ROOM:
            waiting[Kind.LOOK, None] = None
        elif len(waiting) < MOST:
            waiting[kind, brief] = None
        else:
            self._waiting[name] = {(Kind.LOOK, None): None}
        self._idle.clear()
        self._asked.set()
        self.start()

    async def flushed(self) -> None:
        """Return when nothing waits to be sent."""
        if self._waiting:
            await self._idle.wait()

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Until cancelled. Who has just begun to listen looks around: nobody says again what was said before."""
        is_told = False
        while True:
            try:
                channels = await Channels.open(self._conninfo, self._name, self._heard, self._asked.set)
                is_told = False
                try:
                    self._look()
                    await self._send(channels)
                finally:
                    channels.close()
            except (Disconnected, DatabaseError) as error:
                log.log(logging.DEBUG if is_told else logging.WARNING, "no notices for a moment: %s", error)
                is_told = True
            self._waiting.clear()  # by now a poll has found it
            self._idle.set()
            await asyncio.sleep(RECONNECT)

    async def _send(self, channels: Channels) -> None:
        """Until the session is lost."""
        while not channels.is_closed:
            await self._asked.wait()
            self._asked.clear()
            while self._waiting:
                await channels.notify(self._take())
            self._idle.set()

    def _take(self) -> dict[str, bytes]:
        """One notice for each target, with as much of what waits for it as fits."""
        notices: dict[str, bytes] = {}
        for name, waiting in list(self._waiting.items()):
            notice, room = Notice(self._name), ROOM
            for kind, brief in list(waiting):
                room -= len(self._encode(brief))
                if room < 0:
                    break
                getattr(notice, Kind(kind).name.lower()).append(brief)
                del waiting[kind, brief]
            if not waiting:
                del self._waiting[name]
            notices[name] = self._encode(notice)
        return notices

    def _heard(self, payload: bytes) -> None:
        try:
            notice = self._decode(payload)
        except msgspec.MsgspecError as error:
            log.warning("a notice that none of us has sent: %s", error)
            return
        self._noticed(_Absent(self, notice.sender), notice)


def _brief(kind: int, item: Item) -> Brief:
    """What a notice says of an item."""
    if kind == Kind.KEYS:
        service, key = item
        return service, key
    return item[0] if item else None


class _Absent:
    """Someone out of a socket's reach who can be told something."""

    def __init__(self, notices: Notices, name: str) -> None:
        self._notices = notices
        self._name = name

    def send(self, kind: int, item: Item) -> None:
        self._notices.send(self._name, kind, item)
