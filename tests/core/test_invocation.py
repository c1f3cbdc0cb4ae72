"""The table of statuses: closed, with one end, and the same in the database."""

from __future__ import annotations

import re
from pathlib import Path

import runtime
from runtime.core.invocation import ALLOWED, Outcome, Status

SCHEMA = (Path(runtime.__file__).parent / "migrations" / "0001_initial.sql").read_text()


def checked(table: str, column: str) -> set[str]:
    """The values that a CHECK of the schema allows a column of a table."""
    definition = re.search(rf"CREATE TABLE {table} \((.*?)^\)", SCHEMA, re.DOTALL | re.MULTILINE)
    assert definition is not None
    values = re.search(rf"CHECK \({column} IN \((.*?)\)\)", definition[1], re.DOTALL)
    assert values is not None
    return set(re.findall(r"'([^']+)'", values[1]))


def test_every_status_has_its_line() -> None:
    assert set(ALLOWED) == set(Status)
    assert set().union(*ALLOWED.values()) <= set(Status)


def test_the_database_knows_the_statuses_of_what_has_not_ended() -> None:
    assert checked("invocation", "status") == {*Status} - {Status.COMPLETED}


def test_the_database_knows_the_outcomes() -> None:
    assert checked("done", "outcome") == {*Outcome}


def test_every_status_leads_to_the_end_and_nothing_leads_out_of_it() -> None:
    assert ALLOWED[Status.COMPLETED] == frozenset()
    for status in Status:
        reached, before = {status}, set[Status]()
        while reached != before:
            before = set(reached)
            reached.update(*(ALLOWED[one] for one in before))
        assert Status.COMPLETED in reached, status


def test_every_status_but_the_first_ones_is_led_to() -> None:
    led_to = set().union(*ALLOWED.values())
    assert {*Status} - led_to == {Status.SCHEDULED}
