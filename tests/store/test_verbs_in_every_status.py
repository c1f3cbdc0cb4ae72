"""Each verb in every status that an invocation can have: what is answered, and where the invocation stands then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

import pytest

from runtime.core.changes import Changes
from runtime.core.invocation import Invocation, Status
from runtime.core.registry import Registry
from runtime.steering import Verb
from runtime.store import purge, restart, resume, verbs
from runtime.store.audit import unnoted
from runtime.store.commit import commit
from runtime.store.link import Link
from runtime.store.restart import How
from tests.support.servers import ROOT
from tests.support.sessions import Sessions, begun, born, ended, letter, new_id, parked, service

LONG_AFTER = 4_102_444_800_000

# What is answered, and where it stands then; without a second word it stays where it was.
TOLD: Mapping[str, Mapping[Verb, tuple[str, str]]] = {
    "scheduled": {
        Verb.CANCEL: ("done", "completed"),
        Verb.KILL: ("done", "completed"),
        Verb.PAUSE: ("not_started", ""),
        Verb.RESUME: ("not_started", ""),
    },
    "pending": {
        Verb.CANCEL: ("done", "completed"),
        Verb.KILL: ("done", "completed"),
        Verb.PAUSE: ("not_started", ""),
        Verb.RESUME: ("not_started", ""),
    },
    "pending, its key leased": {
        Verb.CANCEL: ("asked", ""),
        Verb.KILL: ("asked", ""),
        Verb.PAUSE: ("asked", ""),  # it may have begun: its engine knows
        Verb.RESUME: ("not_started", ""),
    },
    "ready": {
        Verb.CANCEL: ("done", "completed"),
        Verb.KILL: ("done", "completed"),
        Verb.PAUSE: ("paused", "paused"),
        Verb.RESUME: ("at_work", ""),
    },
    "running": {
        Verb.CANCEL: ("asked", ""),
        Verb.KILL: ("asked", ""),
        Verb.PAUSE: ("asked", ""),
        Verb.RESUME: ("at_work", ""),
    },
    "suspended": {
        Verb.CANCEL: ("asked", "ready"),
        Verb.KILL: ("done", "completed"),
        Verb.PAUSE: ("paused", "paused"),
        Verb.RESUME: ("at_work", ""),
    },
    "backing-off": {
        Verb.CANCEL: ("asked", "ready"),
        Verb.KILL: ("done", "completed"),
        Verb.PAUSE: ("paused", "paused"),
        Verb.RESUME: ("resumed", "ready"),
    },
    "paused": {
        Verb.CANCEL: ("asked", "ready"),
        Verb.KILL: ("done", "completed"),
        Verb.PAUSE: ("already_paused", ""),
        Verb.RESUME: ("resumed", "ready"),
    },
    "completed": {
        Verb.CANCEL: ("already_ended", ""),
        Verb.KILL: ("already_ended", ""),
        Verb.PAUSE: ("already_ended", ""),
        Verb.RESUME: ("already_ended", ""),
        Verb.PURGE: ("purged", "unknown"),
        Verb.PURGE_JOURNAL: ("purged", ""),
        Verb.RESTART: ("no_service", ""),
    },
    "unknown": dict.fromkeys(Verb, ("unknown", "")),
}
NOT_ENDED = ("not_ended", "")  # for what is done to those that have ended
UNREGISTERED = {"restarted": "no_service"}  # nothing is registered here


async def standing(sessions: Sessions, link: Link, where: str) -> Invocation:
    """An invocation that stands there."""
    engine = await sessions.engine()
    one = letter() if where.startswith("pending") else service()
    match where:
        case "unknown":
            pass
        case "scheduled":
            await commit(link, [born(one, due=LONG_AFTER)])
        case "pending" | "ready":
            await commit(link, [born(one)])
        case "pending, its key leased":
            await commit(link, [born(one, owner=engine)], engine=engine)
        case _:
            await commit(link, [born(one, owner=engine), begun(one)], engine=engine)
            await commit(link, _then(one, where), engine=engine)
    return one


def _then(one: Invocation, where: str) -> list[Changes]:
    match where:
        case "running":
            return []
        case "completed":
            return [ended(one)]
        case "suspended":
            return [parked(one, waits=[1])]
    return [parked(one, Status(where), due=LONG_AFTER if where == "backing-off" else 0)]


async def tell(link: Link, id: bytes, verb: Verb) -> str:
    match verb:
        case Verb.CANCEL | Verb.KILL | Verb.PAUSE:
            return (await verbs.tell(link, [id], verbs.Verb(verb), unnoted)).verdicts[id]
        case Verb.RESUME:
            return (await resume.resume(link, [id], None, unnoted, keep=True))[id]
        case Verb.RESTART:
            how = How(0, None, keep=False)
            return (await restart.restart(link, {id: new_id()}, how, Registry(), unnoted)).came[id]
        case Verb.PURGE:
            return (await purge.purge(link, [id]))[id]
        case Verb.PURGE_JOURNAL:
            return (await purge.purge_journal(link, [id]))[id]


@pytest.mark.parametrize(("where", "verb"), [*product(TOLD, Verb)])
async def test_what_a_verb_does(sessions: Sessions, where: str, verb: Verb) -> None:
    link = await sessions.link()
    one = await standing(sessions, link, where)
    before = await sessions.status(one)
    assert where.startswith(before)

    word = await tell(link, one.id, verb)

    wanted, then = TOLD[where].get(verb, NOT_ENDED)
    assert (word, await sessions.status(one)) == (wanted, then or before)


def test_the_page_for_operators_says_the_same() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    heading, _, *lines = re.search(r"\| it is \|.*?\n\n", page, re.DOTALL)[0].strip().splitlines()  # type: ignore[index]
    columns = [re.findall(r"`([\w-]+)`", cell) for cell in heading.split("|")[2:-1]]
    said = {}
    for line in lines:
        where, *cells = (cell.strip(" `") for cell in line.split("|")[1:-1])
        said[where] = {
            Verb(verb): UNREGISTERED.get(word, word)
            for verbs_, word in zip(columns, cells, strict=True)
            for verb in verbs_
        }

    assert said == {
        where: {verb: told.get(verb, NOT_ENDED)[0] for verb in Verb}
        for where, told in TOLD.items()
        if where != "unknown"
    }
