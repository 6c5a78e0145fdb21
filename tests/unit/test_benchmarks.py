"""The benchmark suite's frame: turns, ratios, goals and comparison. No timing is asserted."""

from __future__ import annotations

import io
import json
from itertools import count
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.figure import Figure, Scale
from tests.benchmarks.pairs import interleave, percentile, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def shown(table: object) -> str:
    text = io.StringIO()
    Console(width=200, file=text).print(table)
    return text.getvalue()


def test_two_sides_have_their_turns_one_after_the_other() -> None:
    """Both sides see the same moments of the machine, and the first turn only warms up."""
    now = 0
    made: list[str] = []

    def side(name: str, nanoseconds: int) -> Callable[[int], Sequence[Callable[[], object]]]:
        def call() -> None:
            nonlocal now
            now += nanoseconds

        def prepare(calls: int) -> Sequence[Callable[[], object]]:
            made.append(name)
            return [call] * calls

        return prepare

    sides = {"slow": side("slow", 3_000), "fast": side("fast", 2_000)}
    took = interleave(sides, rounds=2, calls=4, clock=lambda: now)
    assert made == ["slow", "fast"] * 3
    assert [list(turn) for turn in took["slow"].rounds] == [[3_000] * 4] * 2
    assert ratio(took["slow"], took["fast"]) == 1.5


def test_a_noisy_turn_does_not_move_the_ratio() -> None:
    """Noise that both sides of a turn meet cancels; a stall of one turn is an outlier."""
    stalls = iter([1, 1, 1, 1, 50, 50, 1, 9])
    ticks = count()
    now = [0]

    def clock() -> int:
        if next(ticks) % 2:
            now[0] += 10 * next(stalls)
        return now[0]

    took = interleave({"a": lambda _: [int], "b": lambda _: [int]}, 3, 1, clock)
    assert ratio(took["a"], took["b"]) == 1.0


@pytest.mark.parametrize(("percent", "expected"), [(50, 500), (99, 990), (99.9, 999), (100, 1000)])
def test_a_percentile_is_a_value_that_occurred(percent: float, expected: int) -> None:
    """By nearest rank, in whatever order the values come."""
    assert percentile(range(1000, 0, -1), percent) == expected


@pytest.mark.parametrize(
    ("figure", "met", "goal"),
    [
        (Figure("a", "", "", 1, "events", most=0), False, "≤ 0 events"),
        (Figure("a", "", "", 1.3, most=1.25), False, "≤ 1.25 x"),
        (Figure("a", "", "", 1.25, most=1.25), True, "≤ 1.25 x"),
        (Figure("a", "", "", 0.8, least=0.9), False, "≥ 0.9 x"),
        (Figure("a", "", "", 12_000, "events/s", least=10_000), True, "≥ 10,000 events/s"),
        (Figure("a", "", "", 7, "ms"), None, "reported"),
    ],
)
def test_a_figure_knows_whether_its_goal_is_met(
    figure: Figure, met: bool | None, goal: str
) -> None:
    """A goal is a bound from above or below; a figure without one is only reported."""
    assert (figure.met, figure.goal) == (met, goal)
    if met is not None:
        assert (report.share(figure) <= 1) == met  # the chart says the same


def test_a_run_can_be_compared_with_an_earlier_one(tmp_path: Path) -> None:
    """What became slower is marked, whichever way a figure's goal points."""
    before = [
        Figure("call", "", "", 2.0, most=2.2, details={"µs": [1.0, 2.0, 3.0, 4.0], "how": "so"}),
        Figure("threads", "", "", 5.0, least=4.5),
        Figure("import", "", "", 1.10, most=1.15),
        Figure("gone", "", "", 1.0),
    ]
    report.write(tmp_path / "before.json", before, {})
    kept = report.read(tmp_path / "before.json")
    assert kept == before
    now = [
        Figure("call", "", "", 1.0, most=2.2),
        Figure("threads", "", "", 2.5, least=4.5),
        Figure("import", "", "", 1.12, most=1.15),
        Figure("new", "", "", 1.0),
    ]
    rows = [line.split() for line in shown(report.comparison(kept, now)).split("\n")]
    lines = {row[1]: row for row in rows if "x" in row}
    assert set(lines) == {"call", "threads", "import"}
    assert "better" in lines["call"]
    assert "2.00" in lines["threads"]
    assert "worse" in lines["threads"]
    assert not {"better", "worse"} & set(lines["import"])


def test_a_figure_that_failed_is_kept_in_the_file(tmp_path: Path) -> None:
    """Nobody takes a run with a broken figure for a whole one."""
    report.write(tmp_path / "run.json", [], {"drain": "took longer than 9 s"})
    assert json.loads((tmp_path / "run.json").read_text())["failed"] == {
        "drain": "took longer than 9 s"
    }


def test_the_table_says_what_was_missed() -> None:
    """Each figure stands there with its goal and what lies behind it."""
    figures = [
        Figure("call", "one call", "bare", 3.0, most=2.2, details={"µs": [1, 2.5, 30, 1234]}),
        Figure("wire", "bytes", "gzip", 1.0, most=1.1),
    ]
    text = shown(report.table(figures))
    assert "MISSED" in next(line for line in text.split("\n") if "call" in line)
    assert "MISSED" not in next(line for line in text.split("\n") if "wire" in line)
    assert "1 / 2.5 / 30 / 1,234" in text


def test_quick_measures_less() -> None:
    """The same figures, fewer rounds."""
    assert Scale().of(100, 10) == 100
    assert Scale(quick=True).of(100, 10) == 10
