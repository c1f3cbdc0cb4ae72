"""Plots of the figures: rates of all cases, latency over concurrency, and what a killed engine and sleepers cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as pyplot  # the backend is chosen first: there may be no display

from tests.benchmarks.figures import Figure

COLOURS = {"perdure": "#0b7285", "restate-py": "#e8590c", "dbos": "#7048e8", "celery": "#5c940d"}

Value = Callable[[Figure], float | None]


def draw(figures: Sequence[Figure], directory: Path, caption: str) -> list[Path]:
    """Draw what the figures allow into SVG and PNG files there; answers their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    pictures: dict[str, Callable[[Any], bool]] = {
        "rates": lambda axes: _bars(axes, figures, lambda figure: figure.per_s, "per second"),
        "latency": lambda axes: _latency(axes, _of("call", figures)),
        "recovery": lambda axes: _bars(axes, _of("recovery", figures), lambda figure: figure.p50_ms, "ms"),
        "memory": lambda axes: _bars(axes, figures, lambda figure: figure.middle(lambda run: run.mib), "MiB"),
    }
    for name, paint in pictures.items():
        figure, axes = pyplot.subplots(figsize=(11, 5), layout="constrained")
        if paint(axes):
            axes.legend(frameon=False)
            axes.set_title(f"{name}   ({caption})", fontsize=9, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
            for suffix in ("svg", "png"):
                written.append(directory / f"{name}.{suffix}")
                figure.savefig(written[-1], dpi=120)
        pyplot.close(figure)
    return written


def _of(case: str, figures: Sequence[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure.case == case]


def _bars(axes: Any, figures: Sequence[Figure], value: Value, unit: str) -> bool:
    """A group of bars per case, a bar per system, on a logarithmic scale; answers whether there was any."""
    shown = [(figure, height) for figure in figures if (height := value(figure)) is not None]
    cases = list(dict.fromkeys((figure.case, figure.concurrency) for figure, _ in shown))
    systems = list(dict.fromkeys(figure.system for figure, _ in shown))
    width = 0.8 / max(1, len(systems))
    for place, system in enumerate(systems):
        of_system = [
            (cases.index((figure.case, figure.concurrency)), height)
            for figure, height in shown
            if figure.system == system
        ]
        bars = axes.bar(
            [position + (place - (len(systems) - 1) / 2) * width for position, _ in of_system],
            [height for _, height in of_system],
            width,
            label=system,
            color=COLOURS.get(system),
        )
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=7, rotation=90, padding=2)
    axes.set_xticks(range(len(cases)), [f"{case}\nc={concurrency}" for case, concurrency in cases], fontsize=8)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_ylabel(unit)
    return bool(shown)


def _latency(axes: Any, figures: Sequence[Figure]) -> bool:
    """p50 as a line and p99 as a dashed one over concurrency, per system."""
    concurrencies = sorted({figure.concurrency for figure in figures})
    for system in dict.fromkeys(figure.system for figure in figures):
        own = sorted((figure for figure in figures if figure.system == system), key=lambda figure: figure.concurrency)
        over = [figure.concurrency for figure in own]
        axes.plot(over, [figure.p50_ms for figure in own], "o-", label=f"{system} p50", color=COLOURS.get(system))
        axes.plot(over, [figure.p99_ms for figure in own], "o--", label=f"{system} p99", color=COLOURS.get(system))
    axes.set_xscale("log", base=2)
    axes.set_xticks(concurrencies, [str(concurrency) for concurrency in concurrencies])
    axes.set_yscale("log")
    axes.set_xlabel("calls at a time")
    axes.set_ylabel("ms")
    return bool(figures)
