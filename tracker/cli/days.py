"""Common parts of tables by day: days without events, and bars."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import date

_SPARKS = "▁▂▃▄▅▆▇█"
_BAR_WIDTH = 20
_MOST_DAYS = 366
"""Maximum number of days for which those without events are shown too."""


def calendar(days: Collection[date]) -> list[date]:
    """Return the days in order with all days between them, unless there are too many."""
    if not days:
        return []
    first, last = min(days), max(days)
    span = (last - first).days + 1
    if span > _MOST_DAYS:
        return sorted(days)
    return [first + timedelta(days=number) for number in range(span)]


def bar(value: int, most: int) -> str:
    """Return a bar for `value` in proportion to the largest value, `most`."""
    return "█" * round(_BAR_WIDTH * value / most) if most else ""


def sparkline(values: Sequence[int]) -> str:
    """Return a row of bars, one for each value."""
    most = max(values, default=0)
    if not most:
        return _SPARKS[0] * len(values)
    return "".join(_SPARKS[round(value * (len(_SPARKS) - 1) / most)] for value in values)
