"""How each kind of case is measured on a running system."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tests.benchmarks import machine
from tests.benchmarks.cases import MANY, WORKING, Case, Kind, calls
from tests.benchmarks.figures import Run, percentile
from tests.benchmarks.load import Outcome
from tests.benchmarks.marks import ENDED, NUMBERS, STARTED, Marks
from tests.benchmarks.systems.base import Call, System

WARM_UP = 0.25  # of the measured time: the same load before a closed loop is measured
LEAD = 8.0  # seconds within which the delayed sends must have been made, for all are due at its end
PATIENCE = 120.0  # seconds for everything accepted to be carried out

Result = TypeVar("Result")


class TooSlowError(Exception):
    """The system was not fast enough for the case to be measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A system, and what the harness knows about it from outside."""

    system: System
    marks: Marks
    seconds: float  # of a closed loop, and of the sending
    patience: float = PATIENCE  # for all sleepers to be sent

    def run(self, case: Case) -> Run:
        """Measure the case once; raises LoadError, TimeoutError or TooSlowError when the system fails at it."""
        self.marks.clear()
        match case.kind:
            case Kind.CALLS:
                return self._calls(case)
            case Kind.SENDS:
                return self._sends(case)
            case Kind.DELAYED:
                return self._delayed(case)
            case Kind.RECOVERY:
                return self._recovery(case)
            case Kind.SLEEPERS:
                return self._sleepers(case)

    def _calls(self, case: Case) -> Run:
        row = calls(case)
        self.system.drive(row, case.concurrency, WARM_UP * self.seconds)
        outcome, spent = self._watched(lambda: self.system.drive(row, case.concurrency, self.seconds))
        answered = len(outcome.latencies)
        p50_ms, p99_ms = _percentiles_ms(outcome)
        return Run(
            outcome.per_s, p50_ms, p99_ms, cpu_us=spent.per_call(answered, outcome.cpu), foreign_cores=spent.foreign
        )

    def _sends(self, case: Case) -> Run:
        """Send for a while, then wait until all was carried out: both rates are of the same sends."""
        began = time.time()

        def send() -> tuple[Outcome, float]:
            row = (Call("Marker", "mark", number, send=True) for number in self._numbers())
            outcome = self.system.drive(row, case.concurrency, self.seconds)
            ended = self.marks.wait(ENDED, len(outcome.latencies), PATIENCE)
            return outcome, max(mark.at for mark in ended.values())

        (outcome, last), spent = self._watched(send)
        sent = len(outcome.latencies)
        p50_ms, p99_ms = _percentiles_ms(outcome)
        return Run(
            outcome.per_s,
            p50_ms,
            p99_ms,
            drained_per_s=sent / (last - began),
            cpu_us=spent.per_call(sent, outcome.cpu),
            foreign_cores=spent.foreign,
        )

    def _delayed(self, case: Case) -> Run:
        """Send many with the delay that is left until one moment; late is what a handler says it was after that."""
        due_together = time.time() + LEAD
        due: dict[int, float] = {}  # never later than the system's own, since it counts from a later moment

        def row() -> Iterator[Call]:
            for number in self._numbers(MANY):
                now = time.time()
                delay_ms = int((due_together - now) * 1000) + 1
                if delay_ms <= 500:
                    return
                due[number] = now + delay_ms / 1000
                yield Call("Marker", "mark", number, send=True, delay_ms=delay_ms)

        def carry_out() -> tuple[Outcome, list[float], float]:
            outcome = self.system.drive(row(), case.concurrency)
            if len(due) < MANY:
                raise TooSlowError(f"only {len(due):,} of {MANY:,} could be sent in {LEAD:.0f} s")
            time.sleep(max(0.0, due_together - time.time()))
            ended = self.marks.wait(ENDED, MANY, PATIENCE)
            late = sorted(mark.at - due[number] for number, mark in ended.items())
            return outcome, late, max(mark.at for mark in ended.values()) - due_together

        (outcome, late, took), spent = self._watched(carry_out)
        return Run(
            MANY / took,
            percentile(late, 50) * 1000,
            percentile(late, 99) * 1000,
            early=sum(lateness < 0 for lateness in late),
            cpu_us=spent.per_call(MANY, outcome.cpu),
            foreign_cores=spent.foreign,
        )

    def _recovery(self, case: Case) -> Run:
        """Kill a process that runs handlers while all are under way; see when the first of what it ran ends elsewhere.

        The time contains what that invocation still had to do: half a step (50 ms) on average.
        """
        row = (Call("Work", "steps", number, send=True) for number in self._numbers(WORKING))
        self.system.drive(row, case.concurrency)
        started = self.marks.wait(STARTED, WORKING, PATIENCE)
        victim = next(iter(started.values())).value
        killed = time.time()
        self.system.kill(victim)
        try:
            ended = self.marks.wait(ENDED, WORKING, PATIENCE)
        except TimeoutError:
            ended = self.marks.first(ENDED)
        taken_over = [mark.at for mark in ended.values() if mark.value == victim and mark.at > killed]
        takeover_ms = (min(taken_over) - killed) * 1000 if taken_over else None
        return Run(p50_ms=takeover_ms, p99_ms=takeover_ms, lost=WORKING - len(ended))

    def _sleepers(self, case: Case) -> Run:
        """Start so many that sleep for long; what the system's processes then hold, and how much of it is theirs."""
        idle = self._mib()
        row = (Call("Sleeper", "sleep", number, send=True) for number in self._numbers(MANY))
        outcome, spent = self._watched(lambda: self.system.drive(row, case.concurrency, self.patience))
        if (sent := len(outcome.latencies)) < MANY:
            raise TooSlowError(f"only {sent:,} of {MANY:,} could be sent in {self.patience:.0f} s")
        self.marks.wait(STARTED, MANY, PATIENCE)
        time.sleep(2)  # for what the start of the last ones leaves behind to be flushed
        full = self._mib()
        return Run(mib=full, grown_mib=full - idle, foreign_cores=spent.foreign)

    def _numbers(self, how_many: int = NUMBERS) -> range:
        return range(self.marks.floor, self.marks.floor + how_many)

    def _mib(self) -> float:
        classes = self.system.processes(machine.processes())
        return machine.memory(pid for pids in classes.values() for pid in pids)

    def _watched(self, work: Callable[[], Result]) -> tuple[Result, Spent]:
        before, busy_before, clock = machine.processes(), machine.busy(), time.perf_counter()
        result = work()
        seconds = time.perf_counter() - clock
        busy_after, after = machine.busy(), machine.processes()

        def spent_by(pid: int) -> float:
            return after[pid].cpu - (before[pid].cpu if pid in before else 0.0)

        classes = {name: sum(spent_by(pid) for pid in pids) for name, pids in self.system.processes(after).items()}
        ours = sum(classes.values()) + spent_by(os.getpid())
        return result, Spent(classes, max(0.0, busy_after - busy_before - ours) / seconds)


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time during a measurement."""

    classes: dict[str, float]  # seconds by class of the system's processes
    foreign: float  # cores used by processes that are neither the system's nor ours

    def per_call(self, calls: int, generator: float) -> dict[str, float]:
        """Microseconds per call: by class, only those that did anything, and the generator's own."""
        shares = {name: seconds / calls * 1e6 for name, seconds in self.classes.items()}
        return {name: us for name, us in shares.items() if us >= 0.5} | {"generator": generator / calls * 1e6}


def _percentiles_ms(outcome: Outcome) -> tuple[float, float]:
    ascending = sorted(outcome.latencies)
    return percentile(ascending, 50) * 1000, percentile(ascending, 99) * 1000
