"""The benchmark suite: ``python -m tests.benchmarks [FIGURE ...] [--quick]``.

Each figure is a ratio, measured in turns with its limit in the same run, in a process of its own.
Prints a table of them all, with their goals. Not part of the test gate.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.benchmarks import children, messages, report
from tests.benchmarks.figure import Figure, Scale
from tests.benchmarks.suite import FIGURES, measure


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for; return the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if unknown := set(asked.figures) - set(FIGURES):
        parser.error(f"no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    console = Console(stderr=True)
    scale = Scale(quick=asked.quick)
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    for name in asked.figures or FIGURES:
        started = time.monotonic()
        try:
            figures += children.run(measure, name, scale, timeout=FIGURES[name], leader=True)
        except KeyboardInterrupt:
            failed[name] = "interrupted"
            break  # what was measured is shown and kept
        except children.ChildError as error:
            failed[name] = str(error)
            console.print(f"{name} failed: {error}", markup=False)
        console.print(f"{name}: {time.monotonic() - started:.0f} s", style="dim")
    out = Console(width=None if sys.stdout.isatty() else 160)
    out.print(report.table(figures))
    if not messages.are_recorded():
        out.print("The recorded conversations are absent; texts of the same lengths stood in.")
    if asked.compare:
        out.print(report.comparison(report.read(asked.compare), figures))
    if asked.json:
        report.write(asked.json, figures, failed)
    if asked.chart:
        report.draw(asked.chart, figures)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--quick", action="store_true", help="less of everything: a few minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="the JSON of an earlier run")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw them: .svg or .png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
