"""Charts are drawn of whatever number an event says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tracker.pages import charts
from tracker.pages.charts import Series

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS = [0, 5e-324, 1e-320, 1e-300, 0.07, 1, 1e300, 1.7e308, float("inf"), -1]


@pytest.mark.parametrize("draw", [charts.lines, charts.stacked])
@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_keeps_a_chart_from_being_drawn(draw: Callable[..., str], number: float) -> None:
    """The smallest and largest floats, and sums beyond them, stay within what SVG can place."""
    drawn = draw("Cost", ["a", "b"], [Series("cost", "cost", [number, None])], str, str)
    places = re.findall(r' (?:d|c?[xy]|width|height)="([^"]*)"', drawn)
    assert places
    assert not [place for place in places if "inf" in place or "nan" in place]


@pytest.mark.parametrize("number", [0.07, 1, 3, 41, 1e-300, 1e300])
def test_the_largest_value_is_below_the_top(number: float) -> None:
    """No point of a line lies above the chart."""
    drawn = charts.lines("Time", ["a"], [Series("p95", "p95", [number])], str, str)
    assert [y for y in re.findall(r' cy="([^"]*)"', drawn) if float(y) >= 10]
