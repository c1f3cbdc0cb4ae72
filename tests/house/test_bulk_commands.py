"""Verbs by filter in a terminal: what they ask, do and say."""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID, uuid4

import pytest
from django.core.management.base import CommandError

from perdure.protocol.ids import format_id
from runtime import bulk, hall
from runtime.core.filters import InvocationFilter
from runtime.operations import Submission
from runtime.steering import Verb
from tests.house.test_commands import manage, registered
from tests.support.world import TESTER

__all__ = ["registered"]


def send(number: int) -> list[str]:
    """Invocations that no engine has taken."""

    async def send_all() -> list[str]:
        async with hall.visit() as here:
            info = here.registry.resolve("Greeter", "greet")
            accepted = [await here.send(Submission(info, None, b'"Mary"')) for _ in range(number)]
            return [format_id(one.id) for one in accepted]

    return asyncio.run(send_all())


def statuses() -> set[str]:
    found = manage("invocations", "--json").json()
    assert isinstance(found, dict | list)
    listed = found["invocations"] if isinstance(found, dict) else found
    return {one["outcome"] or one["status"] for one in listed}


def test_what_a_filter_means_is_counted_asked_about_and_told(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    send(3)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)

    counted = manage("pause", "--service", "Greeter", "--dry-run")
    with pytest.raises(CommandError, match="pause 3 invocations\\? Say --yes"):
        manage("pause", "--service", "Greeter")
    untouched = statuses()
    done = manage("pause", "--service", "Greeter", "--yes")

    assert counted.out == "3 invocations are meant. Nothing was done.\n"
    assert untouched == {"ready"}
    assert done.out == "pause: 3 of 3 invocations (paused 3).\n"
    assert statuses() == {"paused"}


def test_a_verb_that_takes_a_deployment_has_the_word_for_itself(registered: None) -> None:
    send(2)
    manage("pause", "--all", "--yes")

    resumed = manage("resume", "--deployment", "latest", "--status", "paused", "--yes", "--json").json()

    assert isinstance(resumed, dict)
    assert (resumed["deployment"], resumed["came"]) == ("latest", {"resumed": 2})
    assert resumed["filter"] == {"status": ["paused"]}


def test_without_a_word_about_whom_nothing_is_done(registered: None) -> None:
    send(1)

    with pytest.raises(CommandError, match="Name IDs or filters"):
        manage("kill")

    assert statuses() == {"ready"}
    assert manage("kill", "--all").out == "kill: 1 of 1 invocations (done 1).\n"


def test_what_has_ended_is_restarted_and_purged(registered: None) -> None:
    (id,) = send(1)
    manage("kill", id)

    one = manage("restart", id)
    by_filter = manage("restart", "--outcome", "killed", "--yes")
    with pytest.raises(CommandError, match="--from is for those that are named"):
        manage("restart", "--all", "--from", "2")
    purged = manage("purge", "--journal", "--all", "--yes")

    assert one.out == f"{id}  is done again\n"
    assert "as inv_1" in one.err
    assert by_filter.out == "restart-as-new: 1 of 1 invocations (restarted 1).\n"
    assert purged.out == "purge-journal: 1 of 1 invocations (purged 1).\n"


def test_more_than_were_reckoned_with_are_not_touched(registered: None) -> None:
    send(2)

    with pytest.raises(CommandError, match="more than 1 invocations"):
        manage("kill", "--all", "--at-most", "1", "--yes")

    assert statuses() == {"ready"}


def test_the_latest_are_listed_and_one_that_is_not_finished_is_stopped(registered: None) -> None:
    send(2)
    manage("pause", "--all", "--yes")
    unfinished = asyncio.run(begun())

    listed = manage("bulk").out.splitlines()
    stopped = manage("bulk", unfinished, "--stop").out

    assert [line.split()[0] for line in listed] == ["STATUS", "running", "finished"]
    assert stopped.splitlines()[1].split()[:3] == ["stopped", unfinished, "kill"]
    assert statuses() == {"paused"}
    with pytest.raises(CommandError, match="finished already"):
        manage("bulk", unfinished, "--stop")
    with pytest.raises(CommandError, match="There is no verb by filter"):
        manage("bulk", str(uuid4()))
    with pytest.raises(CommandError, match="Name its ID"):
        manage("bulk", "--stop")


async def begun() -> str:
    """The id of one that nobody carries out."""
    async with hall.visit() as here:
        ids = await bulk.meant(Verb.KILL, InvocationFilter(), 10)
        return str(UUID(bytes=await bulk.begin(here, Verb.KILL, ids, TESTER, {})))
