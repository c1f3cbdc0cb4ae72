"""The table: one row per figure, Perdure first in each case, with its ratio to each peer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from tests.benchmarks.cases import CASES
from tests.benchmarks.figures import Figure, Run

OURS = "perdure"
HEADINGS = ("case", "c", "system", "per s", "p50 ms", "p99 ms", "perdure is", "CPU us per call", "foreign", "besides")
NUMBERS = {1, 3, 4, 5, 8}  # columns that are aligned to the right


def table(figures: Sequence[Figure]) -> str:
    """All figures as aligned text.

    >>> run = Run(per_s=1200.0, p50_ms=0.8, p99_ms=2.5)
    >>> print(table([Figure("perdure", "call", 1, (run,))]).splitlines()[2])
    call  1  perdure  1,200    0.80    2.50
    """
    rows: list[Sequence[str]] = [HEADINGS, ["" for _ in HEADINGS]]
    for (case, concurrency), group in groupby(figures, key=lambda figure: (figure.case, figure.concurrency)):
        beside = sorted(group, key=lambda figure: figure.system != OURS)
        ours = next((figure for figure in beside if figure.system == OURS), None)
        rows.extend(_row(figure, ours, case, concurrency) for figure in beside)
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rows[1] = ["-" * width for width in widths]
    return "\n".join(_line(row, widths) for row in rows)


def ratio(ours: Figure, peer: Figure) -> float | None:
    """How many times better we are: by rate, else by time, else by memory."""
    if ours.per_s and peer.per_s:
        return ours.per_s / peer.per_s
    if ours.p50_ms and peer.p50_ms:
        return peer.p50_ms / ours.p50_ms
    our_mib, peer_mib = _mib(ours), _mib(peer)
    return peer_mib / our_mib if our_mib and peer_mib else None


def _row(figure: Figure, ours: Figure | None, case: str, concurrency: int) -> Sequence[str]:
    return (
        case,
        str(concurrency),
        figure.system,
        _number(figure.per_s, ",.0f"),
        _number(figure.p50_ms, ",.2f"),
        _number(figure.p99_ms, ",.2f"),
        _comparison(ours, figure),
        _cpu(figure),
        _number(figure.middle(lambda run: run.foreign_cores), ".2f"),
        _besides(figure),
    )


def _comparison(ours: Figure | None, peer: Figure) -> str:
    """`8.1x (goal 4x)`, beside a peer."""
    if ours is None or ours is peer or (times := ratio(ours, peer)) is None:
        return ""
    goals = next(
        (case.goals for case in CASES if (case.name, case.concurrency) == (peer.case, peer.concurrency)),
        {},
    )
    goal = f" (goal {goals[peer.system]:g}x)" if peer.system in goals else ""
    return f"{times:.1f}x{goal}"


def _cpu(figure: Figure) -> str:
    names = dict.fromkeys(name for run in figure.runs for name in run.cpu_us)
    medians = {name: figure.middle(lambda run, name=name: run.cpu_us.get(name)) for name in names}  # type: ignore[misc]
    return ", ".join(f"{name} {_number(value, ',.0f')}" for name, value in medians.items())


def _besides(figure: Figure) -> str:
    said = (
        (figure.middle(lambda run: run.drained_per_s), "drained {:,.0f}/s"),
        (_worst(figure.runs, lambda run: run.early), "{:,.0f} early"),
        (_mib(figure), "{:,.0f} MiB"),
        (figure.middle(lambda run: run.grown_mib), "{:,.0f} MiB of it since idle"),
        (_worst(figure.runs, lambda run: run.lost), "{:,.0f} lost"),
    )
    return ", ".join(words.format(value) for value, words in said if value is not None)


def _worst(runs: Iterable[Run], of: Callable[[Run], int | None]) -> int | None:
    return max((value for run in runs if (value := of(run)) is not None), default=None)


def _mib(figure: Figure) -> float | None:
    return figure.middle(lambda run: run.mib)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if column in NUMBERS else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()
