"""What operators may do, whichever face they come through; each act is noted in the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from perdure.protocol.ids import format_id
from runtime.core.access import Actor
from runtime.core.audit import Act
from runtime.operations import Operations, UnknownInvocation
from runtime.store import drained as store_drained
from runtime.store import purge as store_purge
from runtime.store import restart as store_restart
from runtime.store import resume as store_resume
from runtime.store import verbs
from runtime.store.audit import Note, noting
from runtime.store.drained import Drain
from runtime.store.link import Pipeline
from runtime.store.purge import Purged
from runtime.store.restart import How, Once, Open, Restarted, Restarts
from runtime.store.resume import Resumed
from runtime.store.verbs import Verdict

KEEP, LATEST = "keep", "latest"


class Verb(StrEnum):
    """What may be done to invocations."""

    CANCEL = "cancel"  # asked to end: they may compensate
    KILL = "kill"  # ended at once, and their unfinished calls with them
    PAUSE = "pause"  # no further, until they are resumed or cancelled
    RESUME = "resume"  # those that are paused or back off are tried again now
    RESTART = "restart-as-new"  # those that have ended are done again, as new ones
    PURGE = "purge"  # those that have ended are forgotten
    PURGE_JOURNAL = "purge-journal"  # what those did that have ended is forgotten, but for their results


Word = Verdict | Resumed | Restarted | Purged
"""What came of a verb for one invocation."""


async def tell(here: Operations, verb: Verb, id: bytes, by: Actor, deployment: str = KEEP) -> Word:
    """Do it to one invocation. Raises UnknownInvocation, Disconnected, DatabaseError.

    `deployment` is for RESUME: the code that it had (`keep`), its service's newest (`latest`), or that of an id.
    """
    details = {"deployment": deployment} if verb is Verb.RESUME else {}
    act = Act(by, f"invocation.{verb}", format_id(id), details)
    word = (await tell_all(here, verb, [id], noting({id: act}), deployment))[id]
    if word is Verdict.UNKNOWN or word is Resumed.UNKNOWN or word is Purged.UNKNOWN:
        raise UnknownInvocation(id)
    return word


async def tell_all(
    here: Operations, verb: Verb, ids: Sequence[bytes], note: Note, deployment: str = KEEP
) -> Mapping[bytes, Word]:
    """Do it to some hundred invocations in one transaction, with `note` in it. Raises Disconnected, DatabaseError."""
    match verb:
        case Verb.CANCEL | Verb.KILL | Verb.PAUSE:
            told = await here.run(lambda link: verbs.tell(link, ids, verbs.Verb(verb), note))
            here.pass_on(told.hints, queued=told.queued)
            return told.verdicts
        case Verb.RESUME:
            code = None if deployment in (KEEP, LATEST) else deployment
            resumed = await here.run(
                lambda link: store_resume.resume(link, ids, code, note, keep=deployment == KEEP),
            )
            here.pass_on([], queued=Resumed.RESUMED in resumed.values())
            return resumed
        case Verb.RESTART:
            news = {id: here.new_id() for id in ids}
            return (await _restart_all(here, news, 0, deployment, note)).came
        case Verb.PURGE:
            return await here.run(lambda link: store_purge.purge(link, ids, note))
        case Verb.PURGE_JOURNAL:
            return await here.run(lambda link: store_purge.purge_journal(link, ids, note))


class AsNew(Struct, frozen=True):
    """What came of a restart."""

    word: Restarted
    new: bytes | None = None
    """The new one, of RESTARTED and REPEATED."""
    open: Open | None = None
    """Of STILL_OPEN."""


async def restart(
    here: Operations, id: bytes, by: Actor, last: int = 0, deployment: str | None = None, once: str | None = None
) -> AsNew:
    """Do again what has ended, in a new invocation; `once`: with the same key the same actor gets no second one.

    It takes over the journal up to the entry `last`; 0: only the input. Without a word about the `deployment`, what has
    entries goes on with the code that it had, and what begins anew with the newest. Raises UnknownInvocation,
    Disconnected, DatabaseError.
    """
    new = here.new_id()
    if last:  # the random numbers of its handler come from the id's second half, and must be the same
        new = new[:8] + id[8:]
    deployment = deployment or (KEEP if last else LATEST)

    def note(pipeline: Pipeline, came: Mapping[bytes, str]) -> None:
        details = {"from": last, "deployment": deployment}
        if came[id] is Restarted.RESTARTED:
            details["new"] = format_id(new)
        noting({id: Act(by, f"invocation.{Verb.RESTART}", format_id(id), details)})(pipeline, came)

    restarts = await _restart_all(
        here, {id: new}, last, deployment, note, None if once is None else Once(by.name, once)
    )
    word = restarts.came[id]
    if word is Restarted.UNKNOWN:
        raise UnknownInvocation(id)
    return AsNew(word, restarts.made.get(id), restarts.open.get(id))


async def _restart_all(
    here: Operations, news: Mapping[bytes, bytes], last: int, deployment: str, note: Note, once: Once | None = None
) -> Restarts:
    code = None if deployment in (KEEP, LATEST) else deployment
    how = How(last, code, keep=deployment == KEEP, once=once)
    registry = await here.refresh_registry()
    restarts = await here.run(lambda link: store_restart.restart(link, news, how, registry, note))
    for creation in restarts.creations:
        here.announce(creation, restarts.receipt)
    return restarts


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
    if queue not in await known_queues(here):  # a name with a slip in it would drain nothing, and be forgotten
        return Drain.UNKNOWN
    act = Act(by, verb, queue)
    came = await here.run(lambda link: store_drained.set_queue(link, queue, drained=drained, act=act))
    here.call_attention()
    return came


async def known_queues(here: Operations) -> set[str]:
    """Those that an engine serves, that a handler is meant for, or that are drained."""
    registry = await here.refresh_registry()
    meant = {handler.queue for service in registry.services.values() for handler in service.handlers.values()}
    return meant | await here.run(store_drained.known_queues)
