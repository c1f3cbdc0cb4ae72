"""Tests of the benchmark's own parts: what is counted, cut out of bytes, and printed. No system is started."""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import load, marks
from tests.benchmarks.__main__ import QUICK, Benchmark
from tests.benchmarks.cases import CASES, Case, Kind, calls
from tests.benchmarks.figures import Figure, Run, percentile
from tests.benchmarks.http11 import Answer, AnswerError, Reader
from tests.benchmarks.machine import Process, tree
from tests.benchmarks.systems.base import ALL_CASES, Call, HttpSystem, Room, as_request
from tests.benchmarks.table import ratio, table

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-id: 1\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
BODILESS = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


# Answers out of bytes.


@given(st.lists(st.sampled_from([PLAIN, CHUNKED, BODILESS])), st.data())
def test_answers_are_the_same_however_their_bytes_are_split(answers: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(answers)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    reader = Reader()
    pieces = [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]
    found = [answer for piece in pieces for answer in reader.feed(piece)]
    assert found == [Answer(202, b"") if answer is BODILESS else Answer(200, b"hello") for answer in answers]


@pytest.mark.parametrize("nonsense", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_not_http_is_refused(nonsense: bytes) -> None:
    with pytest.raises(AnswerError):
        Reader().feed(nonsense)


def test_a_header_is_not_found_in_the_middle_of_another() -> None:
    head = b"HTTP/1.1 200 OK\r\nx-content-length: 99\r\ncontent-length: 2\r\n\r\n"
    assert Reader().feed(head + b"hi") == [Answer(200, b"hi")]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (Call("Greeter", "greet", "w"), b"POST /Greeter/greet HTTP/1.1"),
        (Call("Counter", "add", 1, key="a/b c"), b"POST /Counter/a%2Fb%20c/add HTTP/1.1"),
        (Call("Marker", "mark", 7, send=True), b"POST /Marker/mark/send HTTP/1.1"),
        (Call("Marker", "mark", 7, send=True, delay_ms=1500), b"POST /Marker/mark/send?delay=1500ms HTTP/1.1"),
    ],
)
def test_a_call_becomes_a_request_of_the_ingress(call: Call, line: bytes) -> None:
    head, _, body = as_request(call).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == line
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body) == call.payload


# The closed loop, against a server in a thread.


@contextmanager
def server(answer: bytes) -> Iterator[tuple[int, list[int]]]:
    """Its port, and how many requests were open at each arrival."""
    open_now = 0
    seen: list[int] = []
    port: queue.Queue[int] = queue.Queue()
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n0"):
                open_now += 1
                seen.append(open_now)
                await asyncio.sleep(0)
                open_now -= 1
                writer.write(answer)
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            port.put(listening.sockets[0].getsockname()[1])
            await stop.wait()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=runner.run, args=[run()])
        thread.start()
        try:
            yield port.get(timeout=10), seen
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


def test_each_request_is_sent_once_and_answered_before_its_connection_sends_again() -> None:
    requests = [as_request(Call("Greeter", "greet", 0))] * 100
    with server(PLAIN) as (port, seen):
        outcome = load.drive("127.0.0.1", port, requests, connections=4)
    assert len(seen) == outcome.completed == len(outcome.latencies) == 100
    assert max(seen) <= 4


def test_an_answer_that_is_an_error_fails_the_run_with_its_words() -> None:
    refusal = b"HTTP/1.1 503 Busy\r\ncontent-length: 9\r\n\r\nno engine"
    with server(refusal) as (port, _), pytest.raises(load.LoadError, match="503: no engine"):
        load.drive("127.0.0.1", port, [as_request(Call("Greeter", "greet", 0))], connections=1)


# Marks.


def test_marks_are_read_as_they_were_made_and_repeats_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(marks.ENVIRONMENT, str(tmp_path / "marks"))
    monkeypatch.setattr(marks, "_descriptor", None)
    file = marks.Marks(tmp_path / "marks")
    one, two, three = range(file.floor, file.floor + 3)
    for number in (one, two, one):
        marks.mark(marks.ENDED, number, value=number * 10)
    marks.mark(marks.STARTED, three)
    ended = file.wait(marks.ENDED, numbers=2, patience=0)
    assert {number: mark.value for number, mark in ended.items()} == {one: one * 10, two: two * 10}
    assert ended[one].at <= ended[two].at
    with pytest.raises(TimeoutError, match="2 of 3"):
        file.wait(marks.ENDED, numbers=3, patience=0)
    file.clear()
    assert file.count() == 0
    marks.mark(marks.ENDED, one)
    assert file.first(marks.ENDED) == {}, "late marks of the measurement before"


# Figures.


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    ascending = sorted(values)
    found = percentile(ascending, percent)
    assert sum(value <= found for value in values) >= len(values) * percent / 100
    assert sum(value < found for value in values) < len(values) * percent / 100


def test_a_figure_is_the_median_of_its_runs_on_one_line_of_json() -> None:
    runs = (Run(90.0, 1.0, 3.0, cpu_us={"engine": 50.12345}), Run(110.0, 1.2, 9.0), Run(100.0, 1.1, 2.0))
    line = Figure("perdure", "call", 16, runs).line()
    assert "\n" not in line
    assert json.loads(line) == {
        "system": "perdure",
        "case": "call",
        "concurrency": 16,
        "per_s": 100.0,
        "p50_ms": 1.1,
        "p99_ms": 3.0,
        "runs": [
            {"per_s": 90.0, "p50_ms": 1.0, "p99_ms": 3.0, "cpu_us": {"engine": 50.123}},
            {"per_s": 110.0, "p50_ms": 1.2, "p99_ms": 9.0},
            {"per_s": 100.0, "p50_ms": 1.1, "p99_ms": 2.0},
        ],
    }


def test_what_a_case_does_not_measure_is_null() -> None:
    written = json.loads(Figure("dbos", "sleepers-10k", 64, (Run(mib=300.0),)).line())
    assert (written["per_s"], written["p50_ms"], written["p99_ms"]) == (None, None, None)
    assert written["runs"] == [{"mib": 300.0}]


@pytest.mark.parametrize(
    ("ours", "peer"),
    [
        (Run(per_s=800.0, p50_ms=9.0), Run(per_s=200.0, p50_ms=1.0)),  # by rate where there is one
        (Run(p50_ms=100.0), Run(p50_ms=400.0)),  # else shorter is better
        (Run(mib=50.0), Run(mib=200.0)),  # and so is smaller
    ],
)
def test_the_ratio_says_how_many_times_better_ours_is(ours: Run, peer: Run) -> None:
    assert ratio(Figure("perdure", "x", 1, (ours,)), Figure("dbos", "x", 1, (peer,))) == 4.0


def test_the_table_sets_ours_first_and_the_ratio_with_its_goal_beside_the_peer() -> None:
    peer = Figure("restate-py", "call", 64, (Run(per_s=1600.0, foreign_cores=0.1),))
    ours = Figure("perdure", "call", 64, (Run(per_s=8000.0, cpu_us={"engine": 60.0, "postgres": 40.0}),))
    _, _, first, second = table([peer, ours]).splitlines()
    assert first.split()[:4] == ["call", "64", "perdure", "8,000"]
    assert "engine 60, postgres 40" in first
    assert second.split()[:4] == ["call", "64", "restate-py", "1,600"]
    assert "5.0x (goal 4x)" in second


def test_accepted_invocations_that_were_lost_show_in_the_table() -> None:
    runs = (Run(p50_ms=300.0, lost=0), Run(p50_ms=300.0, lost=2))
    assert "2 lost" in table([Figure("perdure", "recovery", 64, runs)])


# Cases.


def test_the_systems_know_the_cases_by_their_names() -> None:
    assert {case.name for case in CASES} == ALL_CASES


def test_a_thousand_keys_are_called_in_turn() -> None:
    keys = next(case for case in CASES if case.name == "keys-1000")
    assert len({call.key for call in itertools.islice(calls(keys), 1000)}) == 1000


@pytest.mark.parametrize("case", [case for case in CASES if case.kind is Kind.CALLS], ids=lambda case: case.title)
def test_a_closed_loop_never_runs_out_of_calls(case: Case) -> None:
    assert len(list(itertools.islice(calls(case), 3000))) == 3000


# What a system is too slow for.


class Snail(HttpSystem):
    """Takes no call before its time is up."""

    name: ClassVar[str] = "dbos"
    cases: ClassVar[frozenset[str]] = ALL_CASES
    version = "0"

    def missing(self) -> None: ...

    def start(self, room: Room) -> None: ...

    def stop(self) -> None: ...

    def kill(self, pid: int) -> None: ...

    def processes(self, among: Mapping[int, Process]) -> Mapping[str, Sequence[int]]:
        return {}

    def drive(self, calls: Iterable[Call], concurrency: int, seconds: float | None = None) -> load.Outcome:
        return load.Outcome()


class OurSnail(Snail):
    name: ClassVar[str] = "perdure"


@pytest.mark.parametrize(("snail", "is_failure"), [(OurSnail(), True), (Snail(), False)])
def test_what_a_peer_is_too_slow_for_is_a_word_and_no_failure(tmp_path: Path, snail: Snail, is_failure: bool) -> None:
    case = next(case for case in CASES if case.kind is Kind.SLEEPERS)
    benchmark = Benchmark([snail], [], QUICK, tmp_path)
    benchmark.measure(snail, case)
    words = [f"{case.title} on {snail.name}: only 0 of 10,000 could be sent in 20 s"]
    assert (benchmark.troubles, benchmark.left_out) == ((words, []) if is_failure else ([], words))
    assert benchmark.figures() == []


def test_a_process_tree_holds_what_descends_from_its_root_and_nothing_else() -> None:
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1}
    among = {pid: Process(pid, parent, 0.0, "") for pid, parent in parents.items()}
    assert set(tree(10, among)) == {10, 11, 12}
    assert tree(99, among) == []
