"""`Tally`: counts events in the memory of a fixed number of ranges and values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RANGES = 20
"""Most ranges of seqs that a record names."""
VALUES = 20
"""Most values that a record names."""
_DISTINCT = 500
"""Most values of a kind that are counted; those that come first."""
_LONGEST = 1_000
"""Most characters of a value that are kept."""


@dataclass(frozen=True)
class Record:
    """Which events of a kind are stored.

    Attributes:
        count: How many.
        erased: How many of them have lost their content by an erasure.
        first_seq: The first of them, or None.
        last_seq: The last of them, or None.
        ranges: The first ranges of seqs, at most 20, each with its first and last seq.
        more_ranges: Number of ranges that are not among them.
        values: The most frequent values, at most 20, with the number of events of each.
        other_values: Number of events with another value.
    """

    count: int = 0
    erased: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    ranges: tuple[tuple[int, int], ...] = ()
    more_ranges: int = 0
    values: Mapping[str, int] = field(default_factory=dict)
    other_values: int = 0


class Tally:
    """Counts events that are given in ascending order of seq."""

    def __init__(self) -> None:
        self._count = self._erased = self._valued = self._runs = 0
        self._last = -1
        self._ranges: list[tuple[int, int]] = []
        self._values: Counter[str] = Counter()

    def add(
        self, first: int, last: int | None = None, value: object = None, *, erased: bool = False
    ) -> None:
        """Count one event or, with `last`, a range of seqs."""
        end = first if last is None else last
        self._count += end - first + 1
        self._erased += erased
        if self._runs and first == self._last + 1:
            if self._runs <= RANGES:
                self._ranges[-1] = (self._ranges[-1][0], end)
        else:
            self._runs += 1
            if self._runs <= RANGES:
                self._ranges.append((first, end))
        self._last = end
        if value is not None:
            self._valued += 1
            text = str(value)[:_LONGEST]
            if text in self._values or len(self._values) < _DISTINCT:
                self._values[text] += 1

    def record(self) -> Record:
        """Return what was counted."""
        if not self._count:
            return Record()
        shown = dict(self._values.most_common(VALUES))
        return Record(
            count=self._count,
            erased=self._erased,
            first_seq=self._ranges[0][0],
            last_seq=self._last,
            ranges=tuple(self._ranges),
            more_ranges=self._runs - len(self._ranges),
            values=shown,
            other_values=self._valued - sum(shown.values()),
        )
