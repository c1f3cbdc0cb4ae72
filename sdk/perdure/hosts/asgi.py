"""The host behind HTTP: an Endpoint as an ASGI app, for any server, and for every runtime that speaks the protocol.

    app = perdure.hosts.asgi.app(Endpoint(Greeter))        # then: hypercorn module:app

A runtime asks `/discover` what there is, and makes one request to `/invoke/{service}/{handler}` for each attempt. With
a server that speaks HTTP/2 (hypercorn) a request stays open while its handler is at work; with another (uvicorn) the
handler suspends at each await that its journal does not answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import structs

from perdure.attempt import Attempt
from perdure.endpoint import Endpoint
from perdure.errors import ProtocolError, UnknownHandler
from perdure.hosts.identity import Identity, Refused
from perdure.hosts.inprocess import InProcessHost
from perdure.protocol import messages as m
from perdure.protocol.codec import NEWEST_VERSION, OLDEST_VERSION, TREES, Decoder, encode_for
from perdure.protocol.target import Target

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SERVER = "perdure/0.1.0"
SEEDED = 6
"""The version in which the runtime gives the seed of an invocation's random numbers."""
PROTOCOL_VIOLATION = 571
MANIFEST = "application/vnd.restate.endpointmanifest.v"
INVOCATION = "application/vnd.restate.invocation.v"
NEWER = {
    3: (
        "inactivityTimeout",
        "abortTimeout",
        "journalRetention",
        "idempotencyRetention",
        "workflowCompletionRetention",
        "enableLazyState",
        "ingressPrivate",
    ),
    4: (
        "retryPolicyInitialInterval",
        "retryPolicyMaxInterval",
        "retryPolicyMaxAttempts",
        "retryPolicyExponentiationFactor",
        "retryPolicyOnMaxAttempts",
    ),
    5: ("eagerStateKeysWhitelist",),
}
"""What each version of the manifest has brought."""


def app(endpoint: Endpoint, *, identity_keys: Sequence[str] = ()) -> App:
    """An ASGI app that serves the endpoint's services, under whatever path it is mounted.

    With `identity_keys` (`publickeyv1_…`, needs `perdure[identity]`) it answers only requests that one of them signed.

    >>> application = app(Endpoint(Greeter))
    """
    return _App(endpoint, Identity(identity_keys))


class _App:
    def __init__(self, endpoint: Endpoint, identity: Identity) -> None:
        self._endpoint = endpoint
        self._identity = identity
        self._host = InProcessHost(endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"This is no app for {scope['type']}.")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        match scope["path"].rstrip("/").split("/"):
            case [*_, "health"]:
                await _answer(send, 200, b'{"status":"ok"}')
            case [*_, "discover"]:
                if await self._trusts("/discover", headers, send):
                    await self._discover(scope, headers, send)
            case [*_, "invoke", service, handler]:
                if await self._trusts(f"/invoke/{service}/{handler}", headers, send):
                    await self._invoke(Target(service, handler), headers, receive, send)
            case _:
                await _refuse(send, 404, "There is /discover, /health and /invoke/{service}/{handler}.")

    async def _trusts(self, path: str, headers: Mapping[str, str], send: Send) -> bool:
        try:
            self._identity.check(path, headers)
        except Refused as refused:
            log.warning("a request to %s was refused: %s", path, refused)
            await _refuse(send, 401, "The request is not signed with a key that is trusted here.")
            return False
        return True

    async def _discover(self, scope: Scope, headers: Mapping[str, str], send: Send) -> None:
        accepted = headers.get("accept", "*/*")
        version = next((version for version in (5, 4, 3, 2) if f"{MANIFEST}{version}+json" in accepted), None)
        if version is None and "*/*" in accepted:
            version = 5
        if version is None:
            await _refuse(send, 415, f"Ask for one of {MANIFEST}2+json to {MANIFEST}5+json: {accepted!r} is none.")
            return
        manifest = self._endpoint.manifest(is_streaming=scope.get("http_version") == "2").to_json()
        too_new = _too_new(msgspec.json.decode(manifest), version)
        if too_new:
            await _refuse(
                send,
                500,
                f"Version {version} of the manifest, which was asked for, has no {', '.join(sorted(too_new))}.",
            )
            return
        await _answer(send, 200, manifest, f"{MANIFEST}{version}+json")

    async def _invoke(self, target: Target, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        content_type = headers.get("content-type", "")
        said = content_type.removeprefix(INVOCATION)
        if not said.isdecimal() or not OLDEST_VERSION <= int(said) <= NEWEST_VERSION:
            await _refuse(send, 415, f"{content_type!r} is no version from {OLDEST_VERSION} to {NEWEST_VERSION}.")
            return
        try:
            self._endpoint.find(target.service, target.handler)
        except UnknownHandler as unknown:
            await _refuse(send, 404, str(unknown))
            return
        await _Stream(self._host, target, int(said), receive, send).run()


class _Stream:
    """One attempt: messages come in by the request's body, and go out by the answer's."""

    def __init__(self, host: InProcessHost, target: Target, version: int, receive: Receive, send: Send) -> None:
        self._host = host
        self._target = target
        self._version = version
        self._receive = receive
        self._send = send
        self._decoder = Decoder()
        self._start: m.Start | None = None
        self._entries: list[m.Entry] = []
        self._attempt: Attempt | None = None
        self._proposals: dict[int, m.Value | m.Failure] = {}
        """Results of steps that the runtime has not confirmed."""
        self._announced: m.Wait | None = None
        self._frames: list[bytes] = []
        self._news = asyncio.Event()
        self._has_ended = False
        """The last word is said."""
        self._is_drained = False
        """The request has ended: nothing more will be told."""

    async def run(self) -> None:
        writing = asyncio.create_task(self._write())
        try:
            if await self._read():
                await writing
        finally:
            writing.cancel()
            if self._attempt is not None and not self._has_ended:
                self._attempt.abort()

    # In

    async def _read(self) -> bool:
        """Take what comes until the request ends; False: the runtime is gone."""
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                return False
            if not self._has_ended:
                try:
                    for message in self._decoder.feed(event.get("body", b"")):
                        self._take(message)
                except ProtocolError as error:
                    self._violate(str(error))
            if not event.get("more_body", False):
                break
        self._is_drained = True
        self._news.set()
        if self._attempt is None and not self._has_ended:
            self._violate("The request ended before the journal was told.")
        self._look()
        return True

    def _take(self, message: m.Message) -> None:
        if self._has_ended:
            return
        if self._start is None:
            if not isinstance(message, m.Start) or not message.known_entries:
                raise ProtocolError("A request begins with a Start and at least one entry of the journal.")
            self._start = message
        elif self._attempt is None:
            if not isinstance(message, m.Command | m.Notification):
                raise ProtocolError(f"A {type(message).__name__} is no entry of a journal.")
            self._entries.append(message)
            if len(self._entries) == self._start.known_entries:
                self._begin(self._start)
        elif isinstance(message, m.ProposeRunCompletionAck):
            result = self._proposals.pop(message.completion_id, None)
            if result is None:
                raise ProtocolError(f"No result of the step {message.completion_id} was proposed.")
            self._tell(m.RunCompletion(message.completion_id, result))
        elif isinstance(message, m.Notification):
            self._tell(message)
        else:
            raise ProtocolError(f"A {type(message).__name__} cannot follow the journal.")

    def _begin(self, start: m.Start) -> None:
        if self._version < SEEDED:
            start = structs.replace(start, random_seed=int.from_bytes(sha256(start.id).digest()[:8], "big"))
        self._attempt = self._host.attempt(self._target, start, self._entries, self._emit, on_rest=self._look)
        self._attempt.begin()

    def _tell(self, notification: m.Notification) -> None:
        assert self._attempt is not None
        self._announced = None
        self._attempt.notify(notification)

    # Out

    def _emit(self, message: m.Message) -> None:
        if self._has_ended:
            return
        if isinstance(message, m.ProposeRunCompletion):
            self._proposals[message.result_completion_id] = message.result
            asyncio.get_running_loop().call_soon(self._look)
        self._has_ended = isinstance(message, m.End | m.Suspension | m.Error)
        self._frames.append(encode_for(message, self._version))
        self._news.set()

    def _look(self) -> None:
        """Does the handler do nothing but wait? Then it suspends, or says for what it waits."""
        attempt = self._attempt
        wait = None if attempt is None else attempt.waiting
        if wait is None or attempt is None:
            return
        if self._is_drained:
            attempt.suspend()
        elif self._version >= TREES and wait != self._announced:
            self._announced = wait
            self._emit(m.AwaitingOn(wait))

    def _violate(self, words: str) -> None:
        """The runtime does not keep to the protocol."""
        if self._attempt is not None:
            self._attempt.abort()
        self._emit(m.Error(PROTOCOL_VIOLATION, words))

    async def _write(self) -> None:
        """Say what there is to be said. The answer ends after the request has: runtimes wait for that order."""
        content_type = f"{INVOCATION}{self._version}".encode()
        headers = [(b"content-type", content_type), (b"x-restate-server", SERVER.encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await self._news.wait()
            self._news.clear()
            content = b"".join(self._frames)
            self._frames.clear()
            is_last = self._has_ended and self._is_drained
            if content or is_last:
                await self._send({"type": "http.response.body", "body": content, "more_body": not is_last})
            if is_last:
                return


def _too_new(manifest: Mapping[str, Any], version: int) -> set[str]:
    """What is said in a manifest and a version of it does not know yet."""
    unknown = {name for since, names in NEWER.items() if since > version for name in names}
    said = {name for service in manifest["services"] for name in service}
    said |= {name for service in manifest["services"] for handler in service["handlers"] for name in handler}
    return said & unknown


async def _live(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def _refuse(send: Send, status: int, message: str) -> None:
    await _answer(send, status, msgspec.json.encode({"message": message}))


async def _answer(send: Send, status: int, body: bytes, content_type: str = "application/json") -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-restate-server", SERVER.encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
