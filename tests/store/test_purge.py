"""Purging: what has ended is forgotten, and what is just about to end is waited for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID, uuid4

import pytest

from runtime.core.access import Actor, Role
from runtime.core.audit import Act
from runtime.store.audit import noting
from runtime.store.commit import commit
from runtime.store.purge import Purged, purge, purge_journal
from tests.support.sessions import Sessions, begun, born, ended, new_id, open_flush, service

MARY = Actor("mary", Role.OPERATOR, "192.0.2.1")

Purge = Callable[..., Coroutine[Any, Any, dict[bytes, Purged]]]


@pytest.mark.parametrize("purging", [purge, purge_journal])
async def test_what_is_about_to_end_is_waited_for_and_purged(sessions: Sessions, purging: Purge) -> None:
    engine, flushing, link = await sessions.engine(), await sessions.link(), await sessions.link()
    one = service()
    await commit(flushing, [born(one, owner=engine), begun(one, b"a step")], engine=engine)
    assert await purging(link, [one.id]) == {one.id: Purged.NOT_ENDED}
    async with open_flush(flushing, ended(one), engine=engine):
        task = await sessions.blocked(purging(link, [one.id]), link, by=flushing)
    assert await task == {one.id: Purged.PURGED}
    assert await sessions.count("journal") == 0


async def test_nothing_is_left_of_one_that_is_purged_and_its_key_begins_anew(sessions: Sessions) -> None:
    engine, link = await sessions.engine(), await sessions.link()
    one, token = service(once="1"), uuid4().bytes
    await commit(link, [born(one, owner=engine, token=token), begun(one, b"a step")], engine=engine)
    await commit(link, [ended(one)], engine=engine)
    again = service(once="1")
    again.id = one.id
    assert (await commit(link, [born(again, token=uuid4().bytes)])).created == set()
    assert await purge(link, [one.id]) == {one.id: Purged.PURGED}
    assert await sessions.status(one) == "unknown"
    assert [await sessions.count(table) for table in ("done", "journal", "idempotency")] == [0, 0, 0]
    assert (await commit(link, [born(again, token=uuid4().bytes)])).created == {one.id}


async def test_a_result_outlives_its_journal(sessions: Sessions) -> None:
    engine, link = await sessions.engine(), await sessions.link()
    one = service()
    await commit(link, [born(one, owner=engine), begun(one, b"a step")], engine=engine)
    await commit(link, [ended(one)], engine=engine)
    for _ in range(2):
        assert await purge_journal(link, [one.id]) == {one.id: Purged.PURGED}
    left = await sessions.rows("SELECT input, frames, result FROM done WHERE id = %s", UUID(bytes=one.id))
    assert left == [(b"", b"", b"result")]


async def test_each_of_many_is_told_apart_and_noted(sessions: Sessions) -> None:
    link = await sessions.link()
    there, living, nobody = service(), service(), new_id()
    engine = await sessions.engine()
    await commit(link, [born(there, living, owner=engine)], engine=engine)
    await commit(link, [ended(there)], engine=engine)
    acts = {id: Act(MARY, "invocation.purge", str(id[-1])) for id in (there.id, living.id, nobody)}
    came = await purge(link, list(acts), noting(acts))
    assert came == {there.id: Purged.PURGED, living.id: Purged.NOT_ENDED, nobody: Purged.UNKNOWN}
    noted = await sessions.rows("SELECT target, result FROM audit ORDER BY id")
    assert noted == [(acts[id].target, came[id]) for id in sorted(acts)]
