"""A service behind HTTP that says what a test wants it to say, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from perdure import Context, Endpoint, ObjectContext, Retry, Service, VirtualObject, handler
from perdure.protocol.codec import Decoder, encode
from perdure.protocol.messages import CANCEL_SIGNAL, Combinator, End, Message, Output, Start, Value, Wait
from runtime.discovery import deployment_id
from runtime.engine.memory import Code
from runtime.engine.remote import Listener, Peer, RemoteHost
from tests.support.world import World

WITHIN = 10.0  # seconds for what takes milliseconds on a quiet machine

M = TypeVar("M", bound=Message)


class Request:
    """One attempt, as the service sees it."""

    def __init__(self, path: str, headers: Mapping[str, str], listener: Listener) -> None:
        self.path = path
        self.headers = headers
        self.told: list[Message] = []
        """What the runtime has said, the Start first."""
        self.is_finished = False
        self.is_reset = False
        self.acknowledged = 0
        self._listener = listener
        self._decoder = Decoder()
        self._news = asyncio.Event()

    # What the service does

    def answer(self, status: int = 200, **headers: str) -> None:
        """Give the answer's head."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._listener.head(status, {"content-type": self.headers["content-type"], **named})

    def say(self, *messages: Message) -> None:
        self._listener.data(b"".join(map(encode, messages)))

    def say_bytes(self, chunk: bytes) -> None:
        self._listener.data(chunk)

    def hang_up(self) -> None:
        """End the answer."""
        self._listener.ended()

    def break_down(self, error: Exception) -> None:
        self._listener.lost(error)

    async def hears(self, kind: type[M]) -> M:
        """The first message of this kind, once it is there."""
        await self.until(lambda: any(isinstance(message, kind) for message in self.told))
        return next(message for message in self.told if isinstance(message, kind))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN):
            while not condition():
                self._news.clear()
                await self._news.wait()

    @property
    def start(self) -> Start:
        start = self.told[0]
        assert isinstance(start, Start)
        return start

    @property
    def replayed(self) -> list[Message]:
        """The journal that came with the Start."""
        return self.told[1 : 1 + self.start.known_entries]

    # What the runtime does

    def send(self, data: bytes) -> None:
        assert not self.is_finished, "nothing may follow the end of a request"
        self.told += self._decoder.feed(data)
        self._news.set()

    def finish(self) -> None:
        self.is_finished = True
        self._news.set()

    def reset(self) -> None:
        self.is_reset = True
        self._news.set()

    def acknowledge(self, size: int) -> None:
        self.acknowledged += size


class ScriptedPeer:
    """Collects the attempts that the runtime makes."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._news: asyncio.Queue[Request] = asyncio.Queue()

    def open(self, method: str, path: str, headers: Sequence[tuple[str, str]], listener: Listener) -> Request:
        request = Request(path, dict(headers), listener)
        self.requests.append(request)
        self._news.put_nowait(request)
        return request

    async def next(self) -> Request:
        """The next attempt, once its Start and the journal are there."""
        async with asyncio.timeout(WITHIN):
            request = await self._news.get()
        await request.until(lambda: bool(request.told) and len(request.told) > request.start.known_entries)
        return request

    async def accepts(self) -> Request:
        """The next attempt, to which the service says yes."""
        request = await self.next()
        request.answer()
        return request


def remote_code(endpoint: Endpoint, peer: Peer, *, version: int = 7, is_streaming: bool = True) -> Code:
    """An endpoint as an engine knows one behind HTTP."""
    manifest: Any = msgspec.json.decode(endpoint.manifest().to_json())
    host = RemoteHost(peer, version=version, is_streaming=is_streaming)
    return Code(deployment_id(endpoint), host, manifest)


class Afar(Service, retry=Retry(initial=timedelta(milliseconds=1))):
    """What it does is written in each test."""

    @handler
    async def work(self, ctx: Context) -> int: ...  # type: ignore[empty-body]


class Box(VirtualObject, retry=Retry(initial=timedelta(milliseconds=1))):
    @handler
    async def put(self, ctx: ObjectContext) -> int: ...  # type: ignore[empty-body]


DONE = (Output(Value(b"1")), End())


def awaiting(*completions: int) -> Wait:
    """As SDKs wait: for this, or for a cancellation."""
    return Wait(completions, signals=(CANCEL_SIGNAL,), combinator=Combinator.FIRST_COMPLETED)


class Play:
    """A world with one engine, which drives APP behind a scripted peer."""

    APP = Endpoint(Afar, Box)

    def __init__(self, open_world: Callable[[], World], peer: ScriptedPeer) -> None:
        self._open_world = open_world
        self._peer = peer

    @asynccontextmanager
    async def __call__(self, *, is_streaming: bool = True, version: int = 7) -> AsyncIterator[World]:
        async with self._open_world() as world:
            await world.register(self.APP)
            await world.start_engine(code=[self.code(version=version, is_streaming=is_streaming)])
            yield world

    def code(self, *, is_streaming: bool = True, version: int = 7) -> Code:
        """The handlers, for a further engine."""
        return remote_code(self.APP, self._peer, version=version, is_streaming=is_streaming)
