"""The cases: what is called in each, how many at a time, and how much faster than its peers Perdure is to be."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from tests.benchmarks.systems.base import Call

MANY = 10_000  # delayed sends due together, and sleepers
WORKING = 100  # invocations under way when an engine is killed


class Kind(Enum):
    CALLS = "calls"  # closed loop of request-response for some seconds
    SENDS = "sends"
    DELAYED = "delayed"
    RECOVERY = "recovery"
    SLEEPERS = "sleepers"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    kind: Kind
    concurrency: int
    goals: Mapping[str, float] = field(default_factory=dict, hash=False)  # by peer: at least so many times its rate

    @property
    def title(self) -> str:
        return f"{self.name} c={self.concurrency}"

    @property
    def alone(self) -> bool:
        """Whether the system is started anew and alone for it, because it leaves the system changed."""
        return self.kind in {Kind.RECOVERY, Kind.SLEEPERS}


CASES = (
    Case("call", Kind.CALLS, 1, {"restate-py": 1.5}),
    Case("call", Kind.CALLS, 16),
    Case("call", Kind.CALLS, 64, {"restate-py": 4, "celery": 4}),
    Case("call", Kind.CALLS, 256),
    Case("keys-1000", Kind.CALLS, 64, {"restate-py": 3}),
    Case("hot-key", Kind.CALLS, 64, {"restate-py": 6}),
    Case("five-steps", Kind.CALLS, 64, {"restate-py": 5, "dbos": 20}),
    Case("nested-call", Kind.CALLS, 64, {"restate-py": 5}),
    Case("sdk-py-call", Kind.CALLS, 64, {"restate-py": 1}),  # the same service on Restate's SDK, behind HTTP/2
    Case("sdk-py-five", Kind.CALLS, 64, {"restate-py": 1}),
    Case("send", Kind.SENDS, 64),
    Case("delayed-10k", Kind.DELAYED, 64),
    Case("recovery", Kind.RECOVERY, 64),
    Case("sleepers-10k", Kind.SLEEPERS, 64),
)


def calls(case: Case) -> Iterator[Call]:
    """The endless row of calls of a closed-loop case."""
    match case.name:
        case "call":
            return itertools.repeat(Call("Greeter", "greet", "world"))
        case "keys-1000":
            keys = [f"key-{n}" for n in range(1000)]
            random.Random(1).shuffle(keys)
            return itertools.cycle([Call("Counter", "add", 1, key=key) for key in keys])
        case "hot-key":
            return itertools.repeat(Call("Counter", "add", 1, key="hot"))
        case "five-steps":
            return itertools.repeat(Call("Steps", "five", "world"))
        case "sdk-py-call":
            return itertools.repeat(Call("PyGreeter", "greet", "world"))
        case "sdk-py-five":
            return itertools.repeat(Call("PySteps", "five", "world"))
        case "nested-call":
            return itertools.repeat(Call("Front", "nested", "world"))
        case name:
            raise ValueError(f"{name} is not a closed-loop case")
