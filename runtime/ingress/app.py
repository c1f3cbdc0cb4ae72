"""The ingress as an ASGI application: one request in, one response out, whatever happens.

No framework and no middleware: every call passes here. A caller that leaves ends its wait, never its invocation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from perdure.protocol.limits import SETTINGS
from perdure.protocol.messages import Failure, Signal, Value
from runtime.conf import settings
from runtime.core import openapi
from runtime.core.registry import UnknownHandler, UnknownService
from runtime.drains import wake_workers
from runtime.garbage import spare_the_collector
from runtime.ingress import leftovers, responses
from runtime.ingress.departures import Departed, Departures, Receive
from runtime.ingress.parsing import Fault, RawHeaders, Request, Submit, parse, parse_target, read_reason
from runtime.ingress.paths import Describe, Find, FindByBody, Paths, Reject, Resolve, Send, Verb
from runtime.ingress.refused import Refused
from runtime.ingress.relay import Relay
from runtime.ingress.responses import Response
from runtime.operations import Operations, Submission, UnknownInvocation

log = logging.getLogger(__name__)

Scope = dict[str, Any]
SendMessage = Callable[[dict[str, Any]], Awaitable[None]]


OpenRelay = Callable[[Operations, Callable[[], Paths]], Relay]


class Ingress:
    """Answers callers with the Operations that `open` makes when the server starts; relays what the outbox holds."""

    def __init__(self, open: Callable[[], Operations], open_relay: OpenRelay | None = None) -> None:
        self._open = open
        self._open_relay = open_relay
        self._departures = Departures()

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        if scope["type"] != "http":
            await self._live(receive, send)
            return
        unread = False
        try:
            response = await self._answer(scope, receive)
        except Departed:
            return
        except asyncio.CancelledError:  # the server stops, and will not wait for a call that takes long
            response = responses.STOPPING
        except Exception as error:
            response = responses.refused(error)
            unread = isinstance(error, Refused) and error.unread
        headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if unread:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await leftovers.drop(receive)
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: SendMessage) -> None:
        """The server's start and stop."""
        await receive()
        try:
            self._operations = self._open()
            await self._operations.start()
        except Exception as error:
            log.exception("the ingress cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._largest_body = self._operations.limits.payload
        self._paths = Paths(self._operations.registry)
        relay = self._open_relay and self._open_relay(self._operations, self._known_paths)
        relaying = relay and asyncio.create_task(relay.run())
        spare_the_collector()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if relaying:
            relaying.cancel()
            await asyncio.gather(relaying, return_exceptions=True)
        await self._operations.stop()
        await send({"type": "lifespan.shutdown.complete"})

    # Requests ------------------------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        request = self._read(scope)
        if isinstance(request, UnknownService | UnknownHandler):  # registered a moment ago, perhaps
            await self._operations.refresh_registry()
            request = self._read(scope)
        if isinstance(request, Exception):
            raise request
        if isinstance(request, Submit):
            if request.to.door.lock:
                request.to.door.lock.open(scope["headers"])
            return await self._submit(request, receive)
        if isinstance(request, FindByBody):
            body = await self._read_body(receive)
            request = parse_target(request.verb, body, self._paths)
        if isinstance(request, Find):
            if self._paths.locks and request.verb is not Verb.LOOKUP:
                await self._unlock(request, scope["headers"])
            return await self._find(request, receive)
        if isinstance(request, Resolve):
            return await self._signal(request, scope["headers"], receive)
        if isinstance(request, Describe):
            if lock := self._paths.locks.get(request.service.name):
                lock.open(scope["headers"])
            return responses.json(openapi.describe(request.service, has_keys=lock is not None))
        return responses.json({"services": sorted(self._operations.registry.services)})  # Health

    def _read(self, scope: Scope) -> Request | Fault:
        paths = self._paths
        if paths.registry is not self._operations.registry:  # looked at here too: a call of a function per call
            paths = self._known_paths()
        path = scope.get("raw_path") or quote(scope["path"]).encode()  # a server need not tell the raw one
        return parse(scope["method"], path, scope["query_string"], scope["headers"], paths)

    def _known_paths(self) -> Paths:
        registry = self._operations.registry
        if registry is not self._paths.registry:
            self._paths = Paths(registry)
        return self._paths

    async def _submit(self, request: Submit, receive: Receive) -> Response:
        body = await self._read_body(receive, request.length)
        to = request.to
        door = to.door
        door.check(request.content_type, body)
        submission = Submission(door.handler, to.key, body, request.headers, request.idempotency_key)
        if type(to) is not Send:
            return responses.ended(await self._departures.watch(self._operations.call(submission), receive), door)
        if request.delay:
            submission.due = time.time_ns() // 1_000_000 + request.delay
        return responses.accepted(await self._operations.send(submission), submission.due)

    async def _signal(self, request: Resolve, headers: RawHeaders, receive: Receive) -> Response:
        """Whoever has the id of an awakeable may end it; whether it is awaited, or was, is nobody's business."""
        body = await self._read_body(receive)
        if self._paths.locks:
            service = await self._operations.service_of(request.id)
            if service is None:
                return responses.SIGNALLED
            if lock := self._paths.locks.get(service):
                lock.open(headers)
        result = Failure(500, read_reason(body)) if isinstance(request, Reject) else Value(body)
        await self._operations.signal(request.id, Signal(request.number, result))
        return responses.SIGNALLED

    async def _unlock(self, request: Find, headers: RawHeaders) -> None:
        """Results belong to whoever may call; whose an id is, the database knows. Raises Refused, UnknownInvocation."""
        service = request.door and request.door.handler.service
        service = service or await self._operations.service_of(request.id)
        if service is None:  # it could be born between this look and that for its result
            raise UnknownInvocation(request.id)
        if lock := self._paths.locks.get(service):
            lock.open(headers)

    async def _find(self, request: Find, receive: Receive) -> Response:
        if request.verb is Verb.LOOKUP:
            return responses.found(request.id)
        if request.verb is Verb.ATTACH:
            attached = self._operations.attach(request.id)
            return responses.ended(await self._departures.watch(attached, receive), request.door)
        end = await self._operations.output(request.id)
        return responses.not_ready(request.id) if end is None else responses.ended(end, request.door)

    async def _read_body(self, receive: Receive, announced: int = 0) -> bytes:
        """The whole body; raises Refused as soon as it is known to be too large, Departed."""
        if announced > self._largest_body:
            raise self._too_large(unread=True)
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body") or len(body) > self._largest_body or message["type"] == "http.disconnect":
            return await self._read_chunks(message, receive)
        return body

    async def _read_chunks(self, message: dict[str, Any], receive: Receive) -> bytes:
        chunks = []
        size = 0
        while message["type"] != "http.disconnect":
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._largest_body:
                raise self._too_large(unread=message.get("more_body", False))
            if not message.get("more_body"):
                return b"".join(chunks)
            message = await receive()
        raise Departed

    def _too_large(self, *, unread: bool) -> Refused:
        return Refused(413, f"A body may have {self._largest_body} bytes ({SETTINGS['payload']}).", unread=unread)


def _calmly(record: logging.LogRecord) -> bool:
    """Uvicorn's words for what is all right: it stops, and calls were still waiting (see STOPPING)."""
    if str(record.msg).startswith("Cancel %s running task"):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg = "%s callers still waited: they are told that what was accepted goes on at the next start"
    return True


logging.getLogger("uvicorn.error").addFilter(_calmly)


def open_operations() -> Operations:
    """The Operations of this process, as its settings say."""
    now = settings()
    return Operations(now.database_url, now.token, limits=now.limits, wake_workers=wake_workers)


def open_relay(operations: Operations, paths: Callable[[], Paths]) -> Relay:
    return Relay(operations, settings().database_url, paths)


app = Ingress(open_operations, open_relay=open_relay)
