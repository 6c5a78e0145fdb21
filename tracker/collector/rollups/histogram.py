"""A histogram of times whose buckets grow by two percent: every percentile is right to one."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, Integer, case, cast, func, literal_column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement

_GROWTH = 1.02
"""Each bucket ends at so many times the end of the one before."""
_SMALLEST = 1e-6
_NOTHING = -1_000_000
"""The bucket of values below the smallest, which count as 0."""


def bucket(value: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the bucket of a value that is 0 or more."""
    smallest: ColumnElement[float] = literal_column(f"{_SMALLEST}")
    none: ColumnElement[int] = literal_column(f"{_NOTHING}")
    growth = cast(literal_column(f"{_GROWTH}"), Double)
    number = func.ceil(func.ln(cast(value, Double)) / func.ln(growth))
    return case((value < smallest, none), else_=cast(number, Integer))


def percentiles(counted: Mapping[int, int], percents: Sequence[int]) -> list[float]:
    """Return nearest-rank percentiles of at least one value, each at most one percent off.

    Args:
        counted: Number of values in each bucket.
        percents: Which percentiles.
    """
    numbers = sorted(counted)
    through = list(accumulate(counted[number] for number in numbers))
    # The ranks are rounded up, with integers.
    ranks = (max(-(-percent * through[-1] // 100), 1) for percent in percents)
    return [_value(numbers[bisect_left(through, rank)]) for rank in ranks]


def _value(number: int) -> float:
    """Return the value from which those of a bucket differ least."""
    return 0.0 if number == _NOTHING else 2 * _GROWTH**number / (_GROWTH + 1)
