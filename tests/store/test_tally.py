"""Tallies in the database: told twice they count once, and the sum over all processes never goes down."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import psycopg
import pytest

from runtime.errors import Disconnected
from runtime.store import retention
from runtime.store.link import Link, Pipeline, Statement, rows
from runtime.store.tally import HASTILY, REMINDER, Teller


class Process:
    """A process that counts."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self.now = 0.0
        self._teller = Teller(lambda: dict(self.counts), lambda: self.now)

    async def count(self, link: Link, name: str = "accepted") -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        await self._teller.tell(link)

    async def remind(self, link: Link) -> None:
        self.now += REMINDER + 1
        await self._teller.tell(link)


def total(database: str) -> dict[str, float]:
    counts: Counter[str] = Counter()
    with psycopg.connect(database) as connection:
        for (told,) in connection.execute("SELECT counts FROM tally"):
            counts.update(told)
    return dict(counts)


def age(database: str) -> None:
    """Let ten minutes pass in which nobody says anything."""
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE tally SET told_at = told_at - interval '11 minutes'")


async def test_what_all_processes_count_is_added_up(database: str) -> None:
    with closing(await Link.connect(database)) as link:
        one, other = Process(), Process()
        for _ in range(3):
            await one.count(link)
        await other.count(link)
        await other.count(link, "fenced")
        assert total(database) == {"accepted": 4, "fenced": 1}


async def test_nothing_new_is_not_told_before_it_is_time_for_a_reminder(database: str) -> None:
    with closing(await Link.connect(database)) as link, psycopg.connect(database, autocommit=True) as sql:
        process = Process()
        await process.count(link)
        sql.execute("UPDATE tally SET told_at = '2000-01-01'")
        await process._teller.tell(link)
        assert sql.execute("SELECT extract(year FROM told_at) FROM tally").fetchone() == (2000,)
        await process.remind(link)
        assert sql.execute("SELECT now() - told_at < interval '1 minute' FROM tally").fetchone() == (True,)


async def test_a_process_that_counts_nothing_leaves_no_row(database: str) -> None:
    with closing(await Link.connect(database)) as link:
        await Process().remind(link)
        assert total(database) == {}


async def test_the_counts_of_the_silent_are_kept_in_one_row(database: str) -> None:
    with closing(await Link.connect(database)) as link:
        for _ in range(3):
            await Process().count(link)
        age(database)
        living = Process()
        await living.count(link)
        for _ in range(2):
            await retention.keep_house(database)
            assert total(database) == {"accepted": 4}
        with psycopg.connect(database) as sql:
            assert sql.execute("SELECT count(*) FROM tally").fetchone() == (2,)
        age(database)
        await retention.keep_house(database)
        assert total(database) == {"accepted": 4}


async def test_who_speaks_again_after_a_long_silence_is_not_counted_twice(database: str) -> None:
    with closing(await Link.connect(database)) as link:
        process = Process()
        for spoken in range(1, 4):
            await process.count(link)
            assert total(database) == {"accepted": spoken}
            age(database)
            await retention.keep_house(database)
            assert total(database) == {"accepted": spoken}


async def test_an_answer_that_was_lost_is_told_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(await Link.connect(database)) as link:
        process = Process()
        run = link.run

        async def lose_the_answer(pipeline: Pipeline) -> None:
            await run(pipeline)
            raise Disconnected("the line is dead")

        for broken in (False, True, False):  # its row is new, changed, changed
            monkeypatch.setattr(link, "run", lose_the_answer if broken else run)
            try:
                await process.count(link)
            except Disconnected:
                assert broken
        assert total(database) == {"accepted": 3}


async def test_a_first_answer_that_was_lost_is_told_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(await Link.connect(database)) as link:
        process = Process()
        run = link.run

        async def lose_the_answer(pipeline: Pipeline) -> None:
            await run(pipeline)
            raise Disconnected("the line is dead")

        monkeypatch.setattr(link, "run", lose_the_answer)
        with pytest.raises(Disconnected):
            await process.count(link)
        monkeypatch.setattr(link, "run", run)
        await process.count(link)
        assert total(database) == {"accepted": 2}


async def test_telling_waits_for_no_disk_and_what_follows_on_the_link_does(database: str) -> None:
    shown: list[bytes] = []
    show = Statement("SELECT current_setting('synchronous_commit')")
    with closing(await Link.connect(database)) as link:
        hastily, later = Pipeline(), Pipeline()
        hastily.call(HASTILY)
        for pipeline in (hastily, later):
            pipeline.call(show, read=lambda result: shown.extend(row[0] for row in rows(result)))
            await link.run(pipeline)
    assert shown == [b"off", b"on"]
