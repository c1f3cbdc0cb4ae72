"""What the store's SQL makes of an invocation's status is what the table allows: read out of its statements."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from msgspec import Struct

import runtime.store
from runtime.core.changes import NOBODY, Creation
from runtime.core.invocation import ALLOWED, Invocation, Mode, Status
from runtime.store.claim import Loaded
from runtime.store.link import Statement
from runtime.store.submit import status_at_birth
from runtime.store.verbs import Standing, Verb, Verdict, judge

RUNNING = {Status.RUNNING}

# What stands in no statement: from where one leads that does not look at the status, and where a parameter leads.
FROM = {
    "journal.BEGIN": {Status.PENDING, Status.READY},  # what its owner has begun in memory
    "park.PARK": RUNNING,  # or begun and parked by one flush
    "owners.TAKE_CLAIMED": RUNNING,  # what a dead engine drives
}
TO = {
    "park.PARK": ALLOWED[Status.RUNNING] - {Status.COMPLETED},
    "timers.START_DUE": {Status.PENDING, Status.READY, Status.RUNNING},
}


STATUS = r"(?<![\w.])(?:invocation\.)?status"
CASE_ARM = rf"WHEN {STATUS} = '([a-z-]+)' THEN '([a-z-]+)'"


class Update(Struct, frozen=True):
    """An UPDATE of the table of invocations in a statement of the store."""

    statement: str
    sets: str
    condition: str

    @property
    def changes(self) -> set[tuple[str, str]]:
        """From where to where; what keeps its status is left out."""
        assigned = re.search(rf"{STATUS} = (CASE .*? END|'[a-z-]+'|\w+\.status)", self.sets, re.DOTALL)
        assert assigned is not None, self
        arms = set(re.findall(CASE_ARM, assigned[1]))
        others = set(re.findall(r"'([a-z-]+)'", re.sub(CASE_ARM, "", assigned[1])))
        return arms | set(product(self._sources(), others or TO[self.statement]))

    def _sources(self) -> set[str]:
        compared = re.findall(rf"{STATUS} (?:= ('[a-z-]+')|IN \(([^)]*)\))", self.condition)
        named = {name for found in compared for name in re.findall(r"'([a-z-]+)'", "".join(found))}
        return named or {*FROM[self.statement]}


def texts() -> Iterator[tuple[str, str]]:
    """All SQL that may change a status, by name."""
    for module in pkgutil.iter_modules(runtime.store.__path__):
        for name, statement in vars(importlib.import_module(f"runtime.store.{module.name}")).items():
            if isinstance(statement, Statement):
                yield f"{module.name}.{name}", statement.sql.decode()
    migrations = Path(runtime.__file__).parent / "migrations"
    yield "answer_waiters", (migrations / "0020_waiters.sql").read_text()
    yield "answer_promises", (migrations / "0021_promises.sql").read_text()


def updates() -> list[Update]:
    found = [
        Update(name, sets, condition)
        for name, sql in texts()
        for sets, condition in re.findall(
            r"UPDATE invocation SET\b(.*?)\b(?:FROM|WHERE)\b(.*?)(?:\bRETURNING\b|\Z)", sql, re.DOTALL
        )
    ]
    return [update for update in found if re.search(r"\bstatus\s*=", update.sets)]


UPDATES = updates()


def test_every_statement_that_changes_a_status_is_looked_at() -> None:
    known = {update.statement for update in UPDATES}
    assert known >= {"claim.CLAIM", "mail.TELL", "answer_waiters", "timers.START_DUE", "timers.RETRY_DUE"}
    assert known >= {*FROM, *TO}, "a statement is gone whose statuses are still said here"


def test_the_statements_are_understood() -> None:
    changes = {update.statement: update.changes for update in UPDATES}
    assert changes["claim.CLAIM"] == {("ready", "running")}
    assert changes["mail.TELL"] == {("suspended", "ready"), ("backing-off", "ready"), ("paused", "ready")}
    assert changes["owners.TAKE_KEYS"] == {
        ("running", "ready"),
        *((head, "paused") for head in ("pending", "ready", "running")),
    }


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: update.statement)
def test_an_update_changes_a_status_as_the_table_allows(update: Update) -> None:
    assert update.changes
    for before, after in update.changes:
        assert after in ALLOWED[Status(before)], f"{update.statement}: {before} -> {after}"
        assert after != Status.COMPLETED, "what has ended has a row in another table"


# Birth and death


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("owner", [None, b"e" * 16])
@pytest.mark.parametrize("due", [0, 5])
def test_one_is_born_where_its_creation_says(mode: Mode, owner: bytes | None, due: int) -> None:
    invocation = Invocation(NOBODY.id, "Mailbox", "put", None, mode, "default", b"")
    status = status_at_birth(Creation(invocation, owner=owner, due=due))
    if due:
        assert status is Status.SCHEDULED
    elif mode is Mode.EXCLUSIVE:
        assert status is Status.PENDING
    else:
        assert status is (Status.READY if owner is None else Status.RUNNING)
    assert status is Status.SCHEDULED or status in ALLOWED[Status.SCHEDULED], "a delayed one comes there, too"


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.COMPLETED], ids=str)
@pytest.mark.parametrize("has_journal", [False, True], ids=["new", "begun"])
def test_who_ends_without_its_handler_may_end(status: Status, has_journal: bool) -> None:
    standing = Standing(Loaded(NOBODY, status), owner=None, has_journal=has_journal)
    assert judge(Verb.KILL, standing) is Verdict.DONE
    untouched = not has_journal and status in {Status.SCHEDULED, Status.PENDING, Status.READY}
    assert (judge(Verb.CANCEL, standing) is Verdict.DONE) == untouched, "one that has begun may compensate"
    assert Status.COMPLETED in ALLOWED[status]


# Statuses, and what comes of pausing one: of nobody's, and of one whose key an engine leases or that it drives.
PAUSING = {
    Status.SCHEDULED: (Verdict.NOT_STARTED, Verdict.NOT_STARTED),
    Status.PENDING: (Verdict.NOT_STARTED, Verdict.ASKED),
    Status.READY: (Verdict.PAUSED, Verdict.ASKED),
    Status.RUNNING: (Verdict.PAUSED, Verdict.ASKED),
    Status.SUSPENDED: (Verdict.PAUSED, Verdict.PAUSED),
    Status.BACKING_OFF: (Verdict.PAUSED, Verdict.PAUSED),
    Status.PAUSED: (Verdict.ALREADY_PAUSED, Verdict.ALREADY_PAUSED),
}


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.COMPLETED], ids=str)
def test_who_has_started_is_paused_or_asked_to_be(status: Status) -> None:
    unowned, owned = (
        judge(Verb.PAUSE, Standing(Loaded(NOBODY, status), owner=owner, is_head=True)) for owner in (None, b"e" * 16)
    )
    assert (unowned, owned) == PAUSING[status]
    assert Status.PAUSED in ALLOWED[status] or unowned in (Verdict.NOT_STARTED, Verdict.ALREADY_PAUSED)


def test_one_that_waits_behind_others_has_not_started() -> None:
    behind = Standing(Loaded(NOBODY, Status.PENDING), owner=b"e" * 16)
    assert judge(Verb.PAUSE, behind) is Verdict.NOT_STARTED
    assert judge(Verb.CANCEL, behind) is judge(Verb.KILL, behind) is Verdict.ASKED
