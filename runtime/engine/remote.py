"""Handlers behind HTTP: one attempt is one request, whose body tells the service what happened and whose answer says
what it wants.

Two ways of driving. On a stream (HTTP/2) the request stays open: what happens meanwhile is told at once, until the
handler has been silent for long and is asked, by the request's end, to suspend. Request-response (HTTP/1.1, or where
the service wants it): the request ends with the journal, so the handler suspends at the first await that the journal
does not answer, and where the answer is there by then, the next attempt follows at once.

What the service sends is not trusted: whatever breaks the protocol fails this one attempt, in words, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from perdure.errors import ProtocolError
from perdure.protocol.codec import Decoder, encode
from perdure.protocol.messages import (
    AwaitingOn,
    Call,
    Command,
    End,
    Entry,
    Error,
    Input,
    Message,
    Notification,
    OneWayCall,
    ProposeRunCompletion,
    ProposeRunCompletionAck,
    Run,
    RunCompletion,
    Start,
    Suspension,
    Wait,
)
from perdure.protocol.target import Target
from runtime.core import slots
from runtime.errors import RuntimeFault

HAS_ACKS = 7
"""The first version in which the result of a step is confirmed, and not sent back."""
LINGER = 10.0  # seconds that a service has to end its answer after its last word
MOST_BACKLOG = 4 << 20
"""Bytes of a journal that are not durable yet, above which its service is not read on."""


class Exchange(Protocol):
    """One request under way."""

    def send(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    def reset(self) -> None: ...
    def acknowledge(self, size: int) -> None: ...


class Listener(Protocol):
    """Who hears the answer."""

    def head(self, status: int, headers: Mapping[str, str]) -> None: ...
    def data(self, chunk: bytes) -> None: ...
    def ended(self) -> None: ...
    def lost(self, error: Exception) -> None: ...


class Peer(Protocol):
    """The server of a deployment."""

    def open(self, method: str, path: str, headers: Sequence[tuple[str, str]], listener: Listener) -> Exchange: ...


class RemoteHost:
    """Makes attempts of the handlers of one deployment."""

    def __init__(self, peer: Peer, *, version: int, is_streaming: bool) -> None:
        self.peer = peer
        self.version = version
        """Of the protocol, as the deployment was registered."""
        self.is_streaming = is_streaming
        self.content_type = f"application/vnd.restate.invocation.v{version}"


class RemoteAttempt:
    """See the module. It is the listener of its own request."""

    __slots__ = (
        "_backlog",
        "_decoder",
        "_emit",
        "_exchange",
        "_executing",
        "_frames",
        "_held",
        "_host",
        "_ids",
        "_is_finished",
        "_is_over",
        "_linger",
        "_missed",
        "_runs",
        "_start",
        "_target",
        "_told",
        "_touch",
        "waiting",
    )

    has_waited = True

    def __init__(
        self,
        host: RemoteHost,
        target: Target,
        start: Start,
        entries: Sequence[Entry],
        frames: bytes,
        emit: Callable[[Message], None],
        touch: Callable[[], None],
        backlog: Callable[[], int],
    ) -> None:
        self._host = host
        self._target = target
        self._start = start
        self._frames = frames
        self._emit = emit
        self._touch = touch
        self._backlog = backlog
        self._decoder = Decoder()
        self._exchange: Exchange | None = None
        self._ids = {id for entry in entries for id in _completion_ids(entry)}
        self._runs = {entry.result_completion_id for entry in entries if isinstance(entry, Run)}
        """Steps whose results are still to come."""
        self._runs.difference_update(entry.completion_id for entry in entries if isinstance(entry, RunCompletion))
        self._executing: set[int] = set()
        """Those of them that it began."""
        self._is_finished = False
        """Whether the request has ended: nothing more can be told."""
        self._is_over = False
        self._held = 0
        """Bytes that were read and not acknowledged, so that the service waits."""
        self._told: set[int] = set()
        """Slots of what came while it was under way."""
        self._missed: set[int] = set()
        """Slots of what is in the journal and came too late for it."""
        self._linger: asyncio.TimerHandle | None = None
        """Breaks it off if it does not end its answer."""
        self.waiting: Wait | None = None
        """What it has said that it waits for; None since it was told something."""

    # The drive's side

    @property
    def executing(self) -> int:
        """Steps that may be under way."""
        return 0 if self._is_over else len(self._executing)

    def begin(self) -> None:
        host = self._host
        headers = [
            ("content-type", host.content_type),
            ("accept", host.content_type),
            ("x-restate-invocation-id", self._start.debug_id),
        ]
        path = f"/invoke/{self._target.service}/{self._target.handler}"
        self._exchange = exchange = host.peer.open("POST", path, headers, self)
        exchange.send(encode(self._start) + self._frames)
        self._frames = b""
        if not host.is_streaming:
            self._finish()

    def notify(self, notification: Notification) -> None:
        """Tell it, if it can still be told; if not, it reads it in the journal of its next attempt."""
        slot = slots.awaited(notification)
        if self._exchange is None or self._is_finished:
            self._missed.add(slot)
            return
        self._told.add(slot)
        self.waiting = None
        message: Message = notification
        if isinstance(notification, RunCompletion) and self._host.version >= HAS_ACKS:
            message = ProposeRunCompletionAck(notification.completion_id)
        self._exchange.send(encode(message))

    def open(self) -> None:
        """It is never gated: its invocations do not start on what is not durable."""

    def suspend(self) -> bool:
        """Ask it to suspend: it answers with what it waits for, when it does nothing but wait."""
        if self._exchange is not None:
            self._finish()
        return False

    def has_missed(self, awaited: Collection[int]) -> bool:
        """Whether it may not have heard of something that it waits for when it suspends."""
        return not self._missed.isdisjoint(awaited)

    def abort(self) -> None:
        self._is_over = True
        if self._exchange is not None:
            self._exchange.reset()

    def stored(self) -> None:
        """What it has sent is durable: it may send on."""
        if self._held and self._exchange is not None:
            held, self._held = self._held, 0
            self._exchange.acknowledge(held)

    # The service's side

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        if self._is_over:
            return
        if status != 200:
            self._fail(*_refusal(status, headers, self._target, self._host.version))
        elif headers.get("content-type", "").partition(";")[0].strip() != self._host.content_type:
            self._fail(
                500,
                f"Something else than the service answered {self._target.service}/{self._target.handler} with status "
                "200: is there a proxy in between, or another application at this address?",
            )

    def data(self, chunk: bytes) -> None:
        if self._is_over or self._exchange is None:
            return
        self._touch()
        try:
            for message in self._decoder.feed(chunk):
                self._take(message)
                if self._is_over:
                    return
        except ProtocolError as error:
            self._fail(500, f"The service does not keep to the protocol: {error}")
            return
        if self._backlog() > MOST_BACKLOG:
            self._held += len(chunk)
        else:
            self._exchange.acknowledge(len(chunk))

    def ended(self) -> None:
        self._stop_lingering()
        cut = "" if self._decoder.drained else ", in the middle of a message"
        self._fail(500, f"The service's answer ended before it said how the attempt ended{cut}.")

    def lost(self, error: Exception) -> None:
        self._stop_lingering()
        cure = error.hint if isinstance(error, RuntimeFault) else ""
        self._fail(500, f"{error} {cure}".rstrip())

    def _take(self, message: Message) -> None:
        if isinstance(message, Command):
            if isinstance(message, Input):
                raise ProtocolError("It sent an Input, which is the runtime's.")
            for id in _completion_ids(message):
                if not id or id in self._ids:
                    raise ProtocolError(f"It used the completion id {id} twice, or it is none.")
                self._ids.add(id)
            if isinstance(message, Run):
                self._runs.add(message.result_completion_id)
                self._executing.add(message.result_completion_id)
        elif isinstance(message, ProposeRunCompletion):
            if message.result_completion_id not in self._runs:
                raise ProtocolError(f"It gave a result of the step {message.result_completion_id}, which is not open.")
            self._runs.discard(message.result_completion_id)
            self._executing.discard(message.result_completion_id)
        elif isinstance(message, AwaitingOn):
            if not self._is_finished:  # else nothing that it is told could wake it: it has to suspend
                self.waiting = message.awaiting_on
            return
        elif isinstance(message, End | Suspension | Error):
            if not self._is_finished:  # what we said crossed with this
                self._missed |= self._told
            self._say_goodbye()
        else:
            raise ProtocolError(f"It sent a {type(message).__name__}, which is the runtime's.")
        self.waiting = None
        self._emit(message)

    def _say_goodbye(self) -> None:
        """That was its last word. It waits for the request's end before it ends its answer."""
        self._is_over = True
        self._finish()
        assert self._exchange is not None
        self._linger = asyncio.get_running_loop().call_later(LINGER, self._exchange.reset)

    def _stop_lingering(self) -> None:
        if self._linger is not None:
            self._linger.cancel()

    def _finish(self) -> None:
        if not self._is_finished and self._exchange is not None:
            self._is_finished = True
            self.waiting = None
            self._exchange.finish()

    def _fail(self, code: int, message: str, retry_after: int | None = None) -> None:
        if self._is_over:
            return
        self.abort()
        self._emit(Error(code, message, next_retry_delay=retry_after))


def awaits_open_step(wait: Wait, entries: Sequence[Entry]) -> bool:
    """Whether it waits for a step without a result: nobody but a new attempt can give it."""
    runs = {entry.result_completion_id for entry in entries if isinstance(entry, Run)}
    runs.difference_update(entry.completion_id for entry in entries if isinstance(entry, RunCompletion))
    return _mentions(wait, runs)


def _mentions(wait: Wait, ids: set[int]) -> bool:
    return not ids.isdisjoint(wait.completions) or any(_mentions(part, ids) for part in wait.nested)


def _completion_ids(entry: Message) -> tuple[int, ...]:
    if isinstance(entry, Call):
        return entry.invocation_id_notification_idx, entry.result_completion_id
    if isinstance(entry, OneWayCall):
        return (entry.invocation_id_notification_idx,)
    id = getattr(entry, "result_completion_id", None) if isinstance(entry, Command) else None
    return () if id is None else (id,)


def _refusal(status: int, headers: Mapping[str, str], target: Target, version: int) -> tuple[int, str, int | None]:
    """Code, words and the milliseconds that the service asks to wait."""
    name = f"{target.service}/{target.handler}"
    words = {
        401: f"The service does not accept this runtime's signature for {name}: does it know the public key?",
        404: f"The service does not know {name}: is another version of it being rolled out?",
        413: f"The journal of {name} is larger than the service, or a proxy before it, takes.",
        415: f"The service does not speak version {version} of the protocol any more: register it again.",
        429: f"The service is asked too often for {name}.",
        503: f"The service is not available for {name}.",
    }
    after = headers.get("retry-after", "")
    is_asked = status in (429, 503) and after.isascii() and after.isdigit()
    return (
        status,
        words.get(status, f"The service answered {name} with status {status}."),
        min(int(after), 86_400) * 1000 if is_asked else None,
    )
