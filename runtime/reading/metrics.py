"""Metrics: what all processes have counted and how it stands now, in Prometheus' text format.

Counts come from the processes' tallies, at most a few seconds late, and never go down while the database keeps them.
What is under way is counted in the database, and seldom where that takes long.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime

from django.db.models import Count
from django.utils import timezone
from msgspec import Struct

from runtime import __version__
from runtime.core import tally
from runtime.core.invocation import Status
from runtime.models import Invocation, Outbox, Tally
from runtime.reading import workers
from runtime.reading.workers import MOST_COUNTED, Standing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REST = 20
"""The invocations under way are counted anew after so many times as long as that took, and a second at the soonest."""

HANDLER = ("service", "handler")

COUNTERS = {
    "accepted": ("invocations_accepted_total", HANDLER, "Invocations that were created, by callers or by handlers."),
    "started": ("invocations_started_total", HANDLER, "Invocations that an engine began for the first time."),
    "completed": ("invocations_completed_total", (*HANDLER, "outcome"), "Invocations that ended in an engine."),
    "attempts_failed": ("attempts_failed_total", HANDLER, "Attempts that failed and did not end their invocation."),
    "retries": ("retries_total", HANDLER, "Failed attempts that are made again by themselves; the others pause."),
    "fenced": ("engines_fenced_total", (), "Engines that others declared dead."),
}
HISTOGRAMS = {
    "attempt_seconds": ("attempt_seconds", HANDLER, "How long attempts were in memory, waits included."),
    "call_seconds": ("call_seconds", HANDLER, "How long callers at the ingress waited for their answer."),
    "flush_seconds": ("flush_seconds", ("process",), "How long a group commit took."),
    "flush_changes": ("flush_changes", ("process",), "Of how many invocations a group commit held changes."),
    "loop_lag_seconds": ("loop_lag_seconds", ("process",), "How late event loops came to what was due."),
}

Labels = Mapping[str, str]
Samples = list[tuple[str, Labels, float]]
"""What follows the family's name, the labels, the value."""


class Family(Struct):
    """One metric with all its samples."""

    name: str
    type: str
    help: str
    samples: Samples


async def text(services: Collection[str] | None = None) -> str:
    """All of it; or what is told of `services`, and nothing else."""
    families = list(counted(await total()))
    if services is None:
        families += await _gauges()
    else:
        for family in families:
            family.samples = [one for one in family.samples if one[1].get("service") in services]
    return "".join(f"{line}\n" for family in families for line in _lines(family))


async def total() -> dict[str, float]:
    """The sum of what all processes have told, those that are gone included."""
    counts: Counter[str] = Counter()
    async for told in Tally.objects.values_list("counts", flat=True):
        counts.update(told)
    return dict(counts)


def counted(counts: Mapping[str, float]) -> Iterator[Family]:
    """The counts as families; what another version of Perdure has counted and this one does not know is left out."""
    found: dict[str, list[tuple[tuple[str, ...], float]]] = defaultdict(list)
    for text, count in sorted(counts.items()):
        family, labels = tally.parse_name(text)
        found[family].append((labels, count))
    for family, (name, labels, help) in COUNTERS.items():
        samples: Samples = [("", dict(zip(labels, values, strict=True)), count) for values, count in found[family]]
        yield Family(name, "counter", help, samples or ([("", {}, 0)] if not labels else []))
    for family, (name, labels, help) in HISTOGRAMS.items():
        yield Family(name, "histogram", help, _buckets(labels, found[family]))


def _buckets(labels: Collection[str], found: Iterable[tuple[tuple[str, ...], float]]) -> Samples:
    """What was counted for each bound alone, as counts of all that is at most so large."""
    by_labels: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for (*values, part), count in found:
        by_labels[tuple(values)][part] = count
    samples: Samples = []
    for key, parts in by_labels.items():
        named = dict(zip(labels, key, strict=True))
        sum = parts.pop(tally.SUM, 0.0)
        count = 0.0
        for bound in sorted({*parts, tally.INFINITE}, key=float):
            count += parts.get(bound, 0)
            samples.append(("_bucket", {**named, "le": bound}, count))
        samples += [("_sum", named, sum), ("_count", named, count)]
    return samples


# How it stands now ------------------------------------------------------------------------------------------------


async def _gauges() -> list[Family]:
    engines, queues = await workers.engines(), await workers.queues()
    standings = Counter(engine.status for engine in engines)
    statuses = await _under_way.count()
    oldest = await Outbox.objects.order_by("position").values_list("sent_at", flat=True).afirst()
    waiting = await Outbox.objects.all()[:MOST_COUNTED].acount() if oldest else 0
    in_flight, keys = sum(engine.in_flight for engine in engines), sum(engine.keys for engine in engines)
    room = sum(engine.room for engine in engines)
    drained = [queue.drained_at is not None for queue in queues]
    ages = [_age(queue.oldest_ready_at) for queue in queues]
    names = [{"queue": queue.name} for queue in queues]
    counted = f"counted up to {MOST_COUNTED}"
    return [
        _gauge("info", "Which Perdure answers.", [{"version": __version__}], [1]),
        _gauge("engines", "Engines.", [{"status": one} for one in Standing], [standings[one] for one in Standing]),
        _gauge("invocations_in_flight", "Invocations in engines' memory.", [{}], [in_flight]),
        _gauge("keys_in_memory", "Keys that engines have.", [{}], [keys]),
        _gauge("room", "For how many more invocations.", [{}], [room]),
        _gauge("invocations", "Those that have not ended.", [{"status": one} for one in statuses], statuses.values()),
        _gauge("queue_ready", f"What waits for an engine, {counted}.", names, [queue.ready for queue in queues]),
        _gauge("queue_oldest_ready_seconds", "How long the oldest has waited for an engine.", names, ages),
        _gauge("queue_drained", "1 while nothing is taken from it.", names, drained),
        _gauge("outbox_messages", f"What applications have sent and nobody relayed, {counted}.", [{}], [waiting]),
        _gauge("outbox_oldest_seconds", "How long the oldest of that has waited.", [{}], [_age(oldest)]),
    ]


def _gauge(name: str, help: str, labels: Iterable[Labels], values: Iterable[float]) -> Family:
    return Family(name, "gauge", help, [("", named, value) for named, value in zip(labels, values, strict=True)])


def _age(since: datetime | None) -> float:
    """In seconds; of nothing, none."""
    return 0.0 if since is None else max(0.0, round((timezone.now() - since).total_seconds(), 3))


class UnderWay:
    """How many invocations have which status; to count a million takes a while, so that is done seldom."""

    def __init__(self) -> None:
        self._counted: dict[str, int] = {}
        self._again_at = float("-inf")

    async def count(self) -> dict[str, int]:
        began = time.monotonic()
        if began >= self._again_at:
            self._again_at = began + 60  # meanwhile others are shown what was
            rows = Invocation.objects.values_list("status").annotate(count=Count("id"))
            try:
                found = {status: count async for status, count in rows}
                self._counted = {status: found.get(status, 0) for status in Status if status is not Status.COMPLETED}
            finally:
                took = time.monotonic() - began
                self._again_at = began + max(1.0, took * REST)
        return self._counted


_under_way = UnderWay()


# The format -------------------------------------------------------------------------------------------------------


def _lines(family: Family) -> Iterator[str]:
    name = f"perdure_{family.name}"
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.type}"
    for suffix, labels, value in family.samples:
        yield f"{name}{suffix}{_written(labels)} {_number(value)}"


def _written(labels: Labels) -> str:
    """Labels as the format has them.

    >>> _written({"queue": 'a "fast" one'})
    '{queue="a \\\\"fast\\\\" one"}'
    """
    if not labels:
        return ""
    quoted = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return f"{{{','.join(quoted)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """As short as it is exact.

    >>> _number(3.0), _number(0.25), _number(True)
    ('3', '0.25', '1')
    """
    return str(int(value)) if value == int(value) else repr(float(value))
