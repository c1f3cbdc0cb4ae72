"""Faults: the nth statement that any link runs from now on fails in the server, and its transaction with it."""

from __future__ import annotations

import pytest

from runtime.store.link import Link, Pipeline, Statement

SESSION_ENDS = Statement("SELECT pg_terminate_backend(pg_backend_pid())")


def refusal(sqlstate: str) -> Statement:
    """A statement that the server refuses with that code."""
    return Statement(f"DO $$ BEGIN RAISE EXCEPTION 'a fault' USING ERRCODE = '{sqlstate}'; END $$")


class Faults:
    """One fault at a time. A pipeline's end counts as a statement: all answers are in, and nothing is committed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left = 0
        self._fault: Statement | None = None
        self._only: Link | None = None
        run = Link.run

        async def run_and_fail(link: Link, pipeline: Pipeline) -> None:
            await run(link, self._spoilt(pipeline) if self._only in (None, link) else pipeline)

        monkeypatch.setattr(Link, "run", run_and_fail)

    def arm(self, number: int, fault: Statement, only: Link | None = None) -> None:
        """Let the statement of this number, counted from 1, meet the fault; `only` those of one link count."""
        self._left, self._fault, self._only = number, fault, only

    def disarm(self) -> bool:
        """Whether the fault was met."""
        fault, self._fault = self._fault, None
        return fault is None

    def _spoilt(self, pipeline: Pipeline) -> Pipeline:
        if self._fault is None:
            return pipeline
        before = self._left - 1
        self._left -= len(pipeline.calls) + 1
        if self._left > 0:
            return pipeline
        spoilt = Pipeline()
        spoilt.calls += pipeline.calls[:before]
        spoilt.call(self._fault)
        spoilt.calls += pipeline.calls[before:]
        self._fault = None
        return spoilt
