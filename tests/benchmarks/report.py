"""What the suite shows and keeps: a table, a chart, JSON, and a comparison with an earlier run."""

from __future__ import annotations

import json
import platform
import sqlite3
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tests.benchmarks.figure import Figure
from tracker import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.benchmarks.figure import Detail

_WORSE = 1.25
"""A figure that is so many times worse than before is called a regression: noise is not."""


def table(figures: Sequence[Figure], *, details: bool = True) -> Table:
    """Return the table of all figures, with what lies behind each."""
    shown = Table("figure", "measured", "against", "result", "goal", "", title="Benchmarks")
    for figure in figures:
        mark = {True: "[green]met[/]", False: "[red]MISSED[/]", None: ""}[figure.met]
        behind = "\n".join(f"{name}: {_detail(value)}" for name, value in figure.details.items())
        what = f"{figure.what}\n[dim]{behind}[/]" if behind and details else figure.what
        result = f"{_number(figure.value)} {figure.unit}"
        shown.add_row(figure.name, what, figure.against, result, figure.goal, mark)
    return shown


def _detail(value: Detail) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " / ".join(_number(one) for one in value)
    return _number(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def write(path: Path, figures: Sequence[Figure], failed: Mapping[str, str]) -> None:
    """Write a run's figures, and what they were measured on, as JSON."""
    kept = {
        "tracker": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": f"{sys.platform} {platform.machine()}",
        "figures": [figure.to_json() for figure in figures],
        "failed": dict(failed),
    }
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> list[Figure]:
    """Return the figures of a JSON file that `write` wrote."""
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return [Figure.from_json(figure) for figure in kept["figures"]]


def worsening(before: Figure, now: Figure) -> float:
    """Return how many times worse a figure has become; below 1 it is better."""
    better, worse = (
        (now.value, before.value) if now.least is not None else (before.value, now.value)
    )
    if better == worse:
        return 1.0
    return worse / better if better > 0 else float("inf")


def comparison(before: Sequence[Figure], now: Sequence[Figure]) -> Table:
    """Return a table of what both runs measured; regressions are marked."""
    shown = Table("figure", "before", "now", "times worse", "", title="Compared with before")
    known = {figure.name: figure for figure in before}
    for figure in now:
        if figure.name in known:
            old = known[figure.name]
            times = worsening(old, figure)
            mark = (
                "[red]worse[/]"
                if times > _WORSE
                else "[green]better[/]"
                if times < 1 / _WORSE
                else ""
            )
            shown.add_row(
                figure.name,
                f"{_number(old.value)} {old.unit}",
                f"{_number(figure.value)} {figure.unit}",
                f"{times:.2f}",
                mark,
            )
    return shown


def share(figure: Figure) -> float:
    """Return how much of what its goal allows a figure takes: 1 meets it just so."""
    used, allowed = figure.value, figure.most
    if allowed is None:
        used, allowed = figure.least or 0.0, figure.value
    if used <= 0:
        return 0.0
    return used / allowed if allowed > 0 else float("inf")


def draw(path: Path, figures: Sequence[Figure]) -> None:
    """Draw each figure that has a goal as a bar, in units of its goal: SVG or PNG, by the name."""
    import_module("matplotlib").use("Agg")  # the extra [bench]
    pyplot = import_module("matplotlib.pyplot")
    held = [figure for figure in figures if figure.met is not None][::-1]
    shares = [share(figure) for figure in held]
    colours = ["#2a9d63" if figure.met else "#c8443c" for figure in held]
    chart, axes = pyplot.subplots(figsize=(9, 1 + 0.32 * len(held)), layout="constrained")
    axes.barh([figure.name for figure in held], [min(used, 4) for used in shares], color=colours)
    for place, (figure, used) in enumerate(zip(held, shares, strict=True)):
        label = f" {_number(figure.value)} {figure.unit}  (goal {figure.goal})"
        axes.text(min(used, 4), place, label, va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0, 6)
    axes.set_xlabel("share of what the goal allows: left of the line it is met")
    axes.set_title(f"tracker {__version__}, Python {platform.python_version()}")
    chart.savefig(path)
    pyplot.close(chart)
