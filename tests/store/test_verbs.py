"""Verbs of outsiders: rows are locked, then looked at, and no lock is left behind."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from runtime.core import slots
from runtime.core.access import Actor, Role
from runtime.core.audit import Act
from runtime.core.changes import Changes, Mail
from runtime.store.audit import noting, unnoted
from runtime.store.commit import commit
from runtime.store.link import Pipeline
from runtime.store.verbs import Verb, Verdict, tell
from tests.support.sessions import Sessions, born, letter, service


@pytest.mark.parametrize("verb", [Verb.CANCEL, Verb.KILL])
async def test_a_delayed_send_ends_at_once_also_when_its_key_is_at_work(sessions: Sessions, verb: Verb) -> None:
    engine, link = await sessions.engine(), await sessions.link()
    at_work, later = letter("k"), letter("k")
    await commit(link, [born(at_work, owner=engine), born(later, due=4_102_444_800_000)])
    assert (await tell(link, [later.id], verb, unnoted)).verdicts == {later.id: Verdict.DONE}
    assert await sessions.status(later) == "completed"
    assert await sessions.count("timer") == 0
    assert await sessions.inbox(("Counter", "k")) == [at_work.id]


async def test_a_verb_whose_caller_is_cancelled_leaves_no_lock(sessions: Sessions) -> None:
    link, other = await sessions.link(), await sessions.link()
    one = service()
    await commit(link, [born(one)])
    holder = await sessions.connection()
    await holder.execute("SELECT FROM invocation WHERE id = %s FOR UPDATE", [UUID(bytes=one.id)])
    caller = await sessions.blocked(tell(link, [one.id], Verb.KILL, unnoted), link, by=holder)
    caller.cancel()
    await holder.commit()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await link.run(Pipeline())
    assert (await tell(other, [one.id], Verb.KILL, unnoted)).verdicts == {one.id: Verdict.DONE}


async def test_a_verb_that_is_not_in_the_mail_is_not_carried_out(sessions: Sessions) -> None:
    link = await sessions.link()
    callee, other = service(), service()
    await commit(link, [born(callee)])
    await commit(link, [Changes(mails=[Mail(callee.id, slots.CANCEL, caller=other.id)])])
    assert await sessions.count("mail") == 0
    assert (await tell(link, [callee.id], Verb.CANCEL)).verdicts == {callee.id: Verdict.UNKNOWN}
    assert await sessions.status(callee) == "ready"


async def test_what_an_operator_does_and_what_came_of_it_is_in_the_audit_log(sessions: Sessions) -> None:
    link, one = await sessions.link(), service()
    await commit(link, [born(one)])
    act = Act(Actor("mary", Role.OPERATOR, "192.0.2.1"), "invocation.kill", "inv_1", {"why": "a lone \ud800, a \0"})
    for _ in range(2):
        await tell(link, [one.id], Verb.KILL, noting({one.id: act}))
    log = await sessions.rows("SELECT actor, role, origin, verb, target, details, result FROM audit ORDER BY id")
    noted = ("mary", "operator", "192.0.2.1", "invocation.kill", "inv_1", {"why": "a lone ?, a \ufffd"})
    assert log == [(*noted, "done"), (*noted, "already_ended")]
