"""The benchmark's command: `python -m tests.benchmarks [--quick] [--json FILE] [--only SYSTEM/CASE] [--plots DIR]`.

Systems take turns within a run, so that a drift of the machine hits all of them. In the cases that leave a system
changed (recovery, sleepers) each is started anew and alone; in the others all are up, and what the idle ones use counts
as foreign.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import machine
from tests.benchmarks.cases import CASES, Case, Kind
from tests.benchmarks.child import StartError
from tests.benchmarks.figures import Figure, Run
from tests.benchmarks.foundation import Foundation
from tests.benchmarks.load import LoadError
from tests.benchmarks.marks import ENVIRONMENT, Marks
from tests.benchmarks.measure import Measured, TooSlowError
from tests.benchmarks.systems.base import Room, System
from tests.benchmarks.systems.celery import CeleryTasks
from tests.benchmarks.systems.dbos import Dbos
from tests.benchmarks.systems.perdure import Perdure
from tests.benchmarks.systems.restate import Restate
from tests.benchmarks.table import OURS, table

BEGAN = time.monotonic()
ROOT = Path(__file__).parents[2]
SLOW = (TooSlowError, TimeoutError)
TROUBLE = (LoadError, *SLOW, StartError, OSError)


@dataclass(frozen=True, slots=True)
class Pace:
    """How thoroughly it is measured."""

    runs: int  # of closed loops and sends
    long_runs: int  # of what takes longer
    seconds: float  # of a closed loop
    patience: float  # seconds within which 10,000 sends must have been made

    def of(self, case: Case) -> int:
        return self.runs if case.kind in {Kind.CALLS, Kind.SENDS} else self.long_runs


FULL = Pace(runs=5, long_runs=3, seconds=3.0, patience=120.0)
QUICK = Pace(runs=3, long_runs=1, seconds=0.6, patience=20.0)


class Benchmark:
    def __init__(self, systems: Sequence[System], only: Sequence[str], pace: Pace, directory: Path) -> None:
        self._systems = systems
        self._only = only
        self._pace = pace
        self._directory = directory
        self._marks = Marks(directory / "marks")
        self._foundation = Foundation(directory)
        self._environment = {ENVIRONMENT: str(self._marks.path), "PYTHONPATH": os.pathsep.join(sys.path)}
        self._runs: dict[tuple[Case, str], list[Run]] = defaultdict(list)
        self._broken: set[tuple[str, str]] = set()  # system and case, after the first failure
        self._down: set[str] = set()  # systems that do not start
        self.troubles: list[str] = []
        self.left_out: list[str] = []
        """What peers are too slow for: no failure, for it is a finding about them."""

    def figures(self) -> list[Figure]:
        """What has been measured so far, in the order of the cases and systems."""
        return [
            Figure(system.name, case.name, case.concurrency, tuple(self._runs[case, system.name]))
            for case in CASES
            for system in self._systems
            if self._runs[case, system.name]
        ]

    def run(self) -> None:
        try:
            self._foundation.start()
            self._together()
            for case in CASES:
                if case.alone:
                    self._alone(case)
        finally:
            self._foundation.stop()

    def _together(self) -> None:
        """All cases that leave the systems as they were, with all systems up."""
        cases = [case for case in CASES if not case.alone]
        wanted = [system for system in self._systems if any(self._wants(system, case) for case in cases)]
        started: list[System] = []
        try:
            for system in wanted:
                if self._started(system):
                    started.append(system)
            for number in range(self._pace.runs):
                for case in cases:
                    if number < self._pace.of(case):
                        for system in _rotated(started, number):
                            self.measure(system, case)
        finally:
            for system in started:
                system.stop()

    def _alone(self, case: Case) -> None:
        for _ in range(self._pace.of(case)):
            for system in self._systems:
                if self._wants(system, case) and self._started(system):
                    try:
                        self.measure(system, case)
                    finally:
                        system.stop()

    def _wants(self, system: System, case: Case) -> bool:
        if case.name not in system.cases or system.name in self._down or (system.name, case.title) in self._broken:
            return False
        return chosen(system, case, self._only)

    def _started(self, system: System) -> bool:
        directory = self._directory / system.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        say(f"starting {system.name}")
        try:
            system.start(Room(directory, self._foundation, self._environment))
        except TROUBLE as error:
            self._down.add(system.name)
            self._trouble(f"{system.name} did not start: {error}")
            system.stop()
            return False
        return True

    def measure(self, system: System, case: Case) -> None:
        """Measure it once, unless it failed at it before."""
        if not self._wants(system, case):
            return
        try:
            run = Measured(system, self._marks, self._pace.seconds, self._pace.patience).run(case)
        except TROUBLE as error:
            self._broken.add((system.name, case.title))
            words = f"{case.title} on {system.name}: {error}"
            if isinstance(error, SLOW) and system.name != OURS:
                self.left_out.append(words)
                say(f"left out {words}")
            else:
                self._trouble(words)
            return
        self._runs[case, system.name].append(run)
        say(f"{case.title:20} {system.name:12} {_in_words(run)}")

    def _trouble(self, words: str) -> None:
        self.troubles.append(words)
        say(f"FAILED {words}")


def chosen(system: System, case: Case, only: Sequence[str]) -> bool:
    """Whether `--only` lets it be measured; without one everything is."""
    return not only or not {system.name, case.name, f"{system.name}/{case.name}"}.isdisjoint(only)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    systems: list[System] = [Perdure(), Restate(options.data), Dbos(), CeleryTasks()]
    for word in options.only:
        if not any(chosen(system, case, [word]) for system in systems for case in CASES):
            parser.error(f"--only {word}: neither a system, nor a case, nor both with a slash between")
    directory: Path = options.data / f"run-{os.getpid()}"
    directory.mkdir(parents=True)
    try:
        systems = list(_available(systems, options.only))
        caption = _caption(systems, machine.fdatasync_ms(directory))
        say(caption)
        benchmark = Benchmark(systems, options.only, QUICK if options.quick else FULL, directory)
        benchmark.run()
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    figures = benchmark.figures()
    print(caption, "", table(figures), "", sep="\n")
    for words in benchmark.left_out:
        print(f"left out: {words}")
    for trouble in benchmark.troubles:
        print(f"failed: {trouble}")
    if options.json:
        options.json.write_text("".join(figure.line() + "\n" for figure in figures))
    if options.plots:
        _plot(figures, options.plots, caption)
    say("done")
    return 1 if benchmark.troubles or not figures else 0


def say(words: str) -> None:
    """Tell whoever waits, with the seconds since the start; standard output is kept for the result."""
    print(f"{time.monotonic() - BEGAN:4.0f} s  {words}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs; ends within 5 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one line per figure there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw plots into this directory (needs matplotlib)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="SYSTEM/CASE", help="a system, a case or both; may be repeated"
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".perdure" / "benchmarks", metavar="DIR", help="where all data is kept"
    )
    parser.add_argument("--keep", action="store_true", help="leave the data and logs there")
    return parser


def _available(systems: Sequence[System], only: Sequence[str]) -> Iterator[System]:
    """Those that can be measured here; the others are skipped with a word."""
    for system in systems:
        if not any(chosen(system, case, only) for case in CASES):
            continue
        if why := system.missing():
            say(f"skipped {system.name}: {why}")
        else:
            yield system


def _caption(systems: Sequence[System], fdatasync_ms: float) -> str:
    versions = ", ".join(f"{system.name} {system.version}" for system in systems)
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"fdatasync of 8 KiB {fdatasync_ms:.2f} ms; {versions}"
    )


def _rotated(systems: Sequence[System], by: int) -> list[System]:
    at = by % len(systems) if systems else 0
    return [*systems[at:], *systems[:at]]


def _in_words(run: Run) -> str:
    said = (
        (run.per_s, "{:,.0f}/s"),
        (run.p50_ms, "p50 {:.2f} ms"),
        (run.p99_ms, "p99 {:.2f} ms"),
        (run.mib, "{:,.0f} MiB"),
        (run.lost, "{} lost"),
        (run.foreign_cores, "foreign {:.2f}"),
    )
    return ", ".join(words.format(value) for value, words in said if value is not None)


def _plot(figures: Sequence[Figure], directory: Path, caption: str) -> None:
    try:
        from tests.benchmarks import plots
    except ImportError:
        say("no plots: the Python package matplotlib is not installed")
        return
    for path in plots.draw(figures, directory, caption):
        say(f"drew {path}")


if __name__ == "__main__":
    sys.exit(main())
