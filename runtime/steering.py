"""What operators may do to invocations, whichever face they come through; each act is noted in the audit log."""

from __future__ import annotations

from perdure.protocol.ids import format_id
from runtime.core.access import Actor
from runtime.core.audit import Act
from runtime.operations import Operations, UnknownInvocation
from runtime.store import resume as store
from runtime.store import verbs
from runtime.store.resume import Resumed
from runtime.store.verbs import Verb, Verdict

KEEP, LATEST = "keep", "latest"


async def cancel(here: Operations, id: bytes, by: Actor) -> Verdict:
    """Ask an invocation to end: it may compensate. Raises UnknownInvocation, Disconnected."""
    return await _tell(here, id, Verb.CANCEL, by)


async def kill(here: Operations, id: bytes, by: Actor) -> Verdict:
    """End an invocation at once, and its unfinished calls with it. Raises UnknownInvocation, Disconnected."""
    return await _tell(here, id, Verb.KILL, by)


async def _tell(here: Operations, id: bytes, verb: Verb, by: Actor) -> Verdict:
    act = Act(by, f"invocation.{verb}", format_id(id))
    told = await here.run(lambda link: verbs.tell(link, id, verb, act))
    here.pass_on(told.hints, queued=told.queued)
    if told.verdict is Verdict.UNKNOWN:
        raise UnknownInvocation(id)
    return told.verdict


async def resume(here: Operations, id: bytes, by: Actor, deployment: str = KEEP) -> Resumed:
    """Try a paused or backing-off invocation again now; raises UnknownInvocation, Disconnected.

    On the code that it had (`keep`), on its service's newest (`latest`), or on that of a deployment's id.
    """
    act = Act(by, "invocation.resume", format_id(id), {"deployment": deployment})
    code = None if deployment in (KEEP, LATEST) else deployment
    resumed = await here.run(lambda link: store.resume(link, id, code, act, keep=deployment == KEEP))
    if resumed is Resumed.UNKNOWN:
        raise UnknownInvocation(id)
    here.pass_on([], queued=resumed is Resumed.RESUMED)
    return resumed
