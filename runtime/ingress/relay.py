"""The relay: the third door. What applications have put into the outbox becomes invocations, as a send does.

Every ingress has one, and whichever looks first takes a batch. What can never be what it was meant to be (the payload
does not fit, the handler is gone) becomes an invocation that has failed, for its sender has gone on long ago. Where the
database refuses a batch, batches are halved until the message to blame is alone; a key that somebody holds locked is
put aside, with all that is sent to it, so that it delays only itself.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence

from psycopg.conninfo import make_conninfo

from perdure.protocol.codec import encode
from perdure.protocol.ids import workflow_id
from perdure.protocol.limits import TOO_LARGE, excess
from perdure.protocol.messages import Failure, Input, Output, Value
from runtime.core.changes import Changes, Completed, Creation, Stillborn
from runtime.core.invocation import Invocation, Mode, Outcome
from runtime.core.lifecycle import CommandRefused, bounded, describe, new_invocation
from runtime.core.registry import DAY, UnknownHandler, UnknownService
from runtime.errors import DatabaseError, Disconnected
from runtime.ingress.paths import Paths
from runtime.ingress.refused import Refused
from runtime.operations import Operations
from runtime.store import deployments, outbox
from runtime.store.claim import Key
from runtime.store.link import Link
from runtime.store.outbox import BATCH, Floor, Selection, Sent, Taken

log = logging.getLogger(__name__)

POLL = 0.02
REST = 4
"""A look rests so many times as long as it took: one that has to walk over many dead rows is made less often."""
PATIENCE = 1.0
"""Seconds after which a locked key is tried again."""
RECONNECT = 0.5
FULL_LOOK = 10.0
"""Seconds between two looks from the beginning, whatever is thought to be settled there."""


class Relay:
    def __init__(self, operations: Operations, database_url: str, paths: Callable[[], Paths]) -> None:
        """`paths` gives those of the registry that `operations` has."""
        self._operations = operations
        self._conninfo = make_conninfo(database_url, application_name="perdure relay")
        self._paths = paths
        self._floor = Floor()
        self._batch = BATCH
        self._poison: set[int] = set()
        """Positions of what the database has refused when it was alone."""
        self._aside: dict[Key, float] = {}
        """Keys that were locked, and when each is tried again."""

    async def run(self) -> None:
        """Relay until cancelled, whatever happens to the database."""
        while True:
            try:
                link = await Link.connect(self._conninfo)
                try:
                    await self._relay(link)
                finally:
                    link.close()
            except (Disconnected, DatabaseError) as error:
                log.warning("what applications have sent waits for a moment: %s", error)
            except Exception:
                log.exception("what applications have sent waits for a moment")
            await asyncio.sleep(RECONNECT)

    async def _relay(self, link: Link) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._floor = Floor()
            until = clock() + FULL_LOOK
            while clock() < until:
                began = clock()
                if not await self._look(link):
                    await asyncio.sleep(max(POLL, (clock() - began) * REST))

    async def _look(self, link: Link) -> bool:
        """One look; True: there may be more."""
        for key in [key for key, due in self._aside.items() if due <= time.monotonic()]:
            del self._aside[key]
            await self._take(link, Selection(batch=self._batch, keys=[key], inside=True))
        floor = self._floor
        if not await outbox.is_waiting(link, floor.settled):
            return False
        taken = await self._take(link, Selection(floor.settled, floor.expected, self._batch, list(self._aside)))
        return taken is None or bool(taken.messages)

    async def _take(self, link: Link, selection: Selection) -> Taken | None:
        """One batch; None when it was refused, and the next is chosen so that it may pass."""
        taken = Taken()
        try:
            await outbox.relay(link, selection, taken, lambda messages: self._decide(link, messages))
        except DatabaseError as error:
            self._refused(taken.messages, error)
            return None
        self._floor.learn(taken)
        self._poison.difference_update(message.position for message in taken.messages)
        self._batch = min(BATCH, self._batch * 2)
        for creation in taken.changes.creations:
            new = creation.invocation
            if new.id not in taken.receipt.created:
                continue
            self._operations.tally.handlers[new.service, new.handler].accepted += 1
            self._operations.announce(creation, taken.receipt)
        return taken

    def _refused(self, messages: Sequence[Sent], error: DatabaseError) -> None:
        log.debug("a batch of %d from the outbox was refused: %s", len(messages), error)
        if error.is_vouch:
            self._operations.seats.forget()
        elif error.is_transient:
            pass
        elif not messages or not (error.is_poison or error.is_lock_timeout):
            raise error
        elif error.is_lock_timeout and len(keys := {(message.service, message.key) for message in messages}) == 1:
            ((service, key),) = keys
            if key is None:
                raise error
            log.warning("%s/%s waits for a lock", service, key)
            self._aside[service, key] = time.monotonic() + PATIENCE
        elif len(messages) > 1:
            self._batch = len(messages) // 2
        elif error.is_poison and messages[0].position not in self._poison:
            log.warning("refused by the database, alone: %s", error)
            self._poison.add(messages[0].position)
        else:
            raise error

    # What becomes of a message ----------------------------------------------------------------------------------------

    async def _decide(self, link: Link, messages: Sequence[Sent]) -> Changes:
        """By the registry as it is now: the senders may know it better than this process does."""
        changes = Changes()
        if messages:
            known = self._operations.registry
            self._operations.registry = await deployments.load_registry(link, known)
        for message in messages:
            try:
                changes.creations.append(self._creation(message))
            except (UnknownService, UnknownHandler) as error:
                changes.stillborn.append(_stillborn(message, 404, str(error)))
            except Refused as error:
                changes.stillborn.append(_stillborn(message, error.status, str(error)))
            except CommandRefused as error:
                changes.stillborn.append(_stillborn(message, 400, str(error)))
        return changes

    def _creation(self, message: Sent) -> Creation:
        """Raises UnknownService, UnknownHandler, Refused, CommandRefused."""
        if message.position in self._poison:
            raise Refused(400, "The database has refused it.")
        handler = self._operations.registry.resolve(message.service, message.handler)
        door = self._paths().door(message.service, message.handler)
        assert door is not None
        limits, size = self._operations.limits, len(message.payload)
        if size > limits.payload:
            raise Refused(TOO_LARGE, excess(f"The argument of {door}", size, "payload", limits))
        door.check_as_wanted(message.payload, quoting=False)  # a failure is shown to who may see no payloads
        new = new_invocation(handler, message.key, message.id, _input(message), message.idempotency_key)
        creation = Creation(new, due=bounded(message.due), token=_token(new), is_run=handler.runs_once)
        if not creation.due:
            self._operations.seats.place(creation, handler)
        return creation


def _stillborn(message: Sent, code: int, reason: str) -> Stillborn:
    """It has failed before it began, in a service that may not even be known."""
    log.warning("%s/%s, sent by an application, cannot begin: %s", message.service, message.handler, reason)
    is_run = message.key is not None and message.id == workflow_id(message.service, message.key)
    new = Invocation(
        id=message.id,
        service=message.service,
        handler=message.handler,
        key=message.key,
        mode=Mode.SERVICE if message.key is None else Mode.EXCLUSIVE,
        queue="",
        input=encode(_input(message)),
        idempotency_key=message.key if is_run else message.idempotency_key,
    )
    result = encode(Output(Failure(code, reason)))
    end = Completed(Outcome.FAILED, result, DAY, failure=describe(code, reason))
    return Stillborn(Creation(new, token=_token(new), is_run=is_run), end)


def _input(message: Sent) -> Input:
    return Input(Value(message.payload))


def _token(new: Invocation) -> bytes | None:
    return None if new.idempotency_key is None else secrets.token_bytes(16)
