"""What operators may do, whichever face they come through; each act is noted in the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from uuid import UUID

from perdure.protocol.ids import format_id
from runtime.core.access import Actor
from runtime.core.audit import Act
from runtime.operations import Operations, UnknownInvocation
from runtime.store import drained as store_drained
from runtime.store import purge as store_purge
from runtime.store import resume as store_resume
from runtime.store import verbs
from runtime.store.drained import Drain
from runtime.store.link import Link
from runtime.store.purge import Purged
from runtime.store.resume import Resumed
from runtime.store.verbs import Verb, Verdict

KEEP, LATEST = "keep", "latest"

Purge = Callable[[Link, Collection[bytes], Mapping[bytes, Act]], Awaitable[dict[bytes, Purged]]]


async def cancel(here: Operations, id: bytes, by: Actor) -> Verdict:
    """Ask an invocation to end: it may compensate. Raises UnknownInvocation, Disconnected."""
    return await _tell(here, id, Verb.CANCEL, by)


async def kill(here: Operations, id: bytes, by: Actor) -> Verdict:
    """End an invocation at once, and its unfinished calls with it. Raises UnknownInvocation, Disconnected."""
    return await _tell(here, id, Verb.KILL, by)


async def pause(here: Operations, id: bytes, by: Actor) -> Verdict:
    """Let an invocation go no further until it is resumed or cancelled. Raises UnknownInvocation, Disconnected."""
    return await _tell(here, id, Verb.PAUSE, by)


async def _tell(here: Operations, id: bytes, verb: Verb, by: Actor) -> Verdict:
    act = Act(by, f"invocation.{verb}", format_id(id))
    told = await here.run(lambda link: verbs.tell(link, [id], verb, {id: act}))
    here.pass_on(told.hints, queued=told.queued)
    if told.verdicts[id] is Verdict.UNKNOWN:
        raise UnknownInvocation(id)
    return told.verdicts[id]


async def resume(here: Operations, id: bytes, by: Actor, deployment: str = KEEP) -> Resumed:
    """Try a paused or backing-off invocation again now; raises UnknownInvocation, Disconnected.

    On the code that it had (`keep`), on its service's newest (`latest`), or on that of a deployment's id.
    """
    act = Act(by, "invocation.resume", format_id(id), {"deployment": deployment})
    code = None if deployment in (KEEP, LATEST) else deployment
    came = await here.run(lambda link: store_resume.resume(link, [id], code, {id: act}, keep=deployment == KEEP))
    resumed = came[id]
    if resumed is Resumed.UNKNOWN:
        raise UnknownInvocation(id)
    here.pass_on([], queued=resumed is Resumed.RESUMED)
    return resumed


async def purge(here: Operations, id: bytes, by: Actor) -> Purged:
    """Forget an invocation that has ended. Raises UnknownInvocation, Disconnected."""
    return await _purge(here, id, store_purge.purge, Act(by, "invocation.purge", format_id(id)))


async def purge_journal(here: Operations, id: bytes, by: Actor) -> Purged:
    """Forget what an invocation that has ended did, but for its result. Raises UnknownInvocation, Disconnected."""
    return await _purge(here, id, store_purge.purge_journal, Act(by, "invocation.purge-journal", format_id(id)))


async def _purge(here: Operations, id: bytes, purge: Purge, act: Act) -> Purged:
    came = await here.run(lambda link: purge(link, [id], {id: act}))
    if came[id] is Purged.UNKNOWN:
        raise UnknownInvocation(id)
    return came[id]


# Those who work ---------------------------------------------------------------------------------------------------


async def drain_engine(here: Operations, engine: UUID, by: Actor) -> Drain:
    """Let an engine take nothing new, and hand over what it has. Raises Disconnected."""
    return await _set_engine(here, engine, "engine.drain", by, drained=True)


async def resume_engine(here: Operations, engine: UUID, by: Actor) -> Drain:
    """Let an engine take work again. Raises Disconnected."""
    return await _set_engine(here, engine, "engine.resume", by, drained=False)


async def _set_engine(here: Operations, engine: UUID, verb: str, by: Actor, *, drained: bool) -> Drain:
    act = Act(by, verb, str(engine))
    came = await here.run(lambda link: store_drained.set_engine(link, engine.bytes, drained=drained, act=act))
    here.call_attention()
    return came


async def drain_queue(here: Operations, queue: str, by: Actor) -> Drain:
    """Let nothing new begin of what is in a queue, whoever serves it. Raises Disconnected."""
    return await _set_queue(here, queue, "queue.drain", by, drained=True)


async def resume_queue(here: Operations, queue: str, by: Actor) -> Drain:
    """Let what is in a queue begin again. Raises Disconnected."""
    return await _set_queue(here, queue, "queue.resume", by, drained=False)


async def _set_queue(here: Operations, queue: str, verb: str, by: Actor, *, drained: bool) -> Drain:
    if queue not in await _known_queues(here):  # a name with a slip in it would drain nothing, and be forgotten
        return Drain.UNKNOWN
    act = Act(by, verb, queue)
    came = await here.run(lambda link: store_drained.set_queue(link, queue, drained=drained, act=act))
    here.call_attention()
    return came


async def _known_queues(here: Operations) -> set[str]:
    """Those that an engine serves, that a handler is meant for, or that are drained."""
    registry = await here.refresh_registry()
    meant = {handler.queue for service in registry.services.values() for handler in service.handlers.values()}
    return meant | await here.run(store_drained.known_queues)
