"""Timing two ways of doing the same in turns, A B A B …, so that the machine's noise cancels."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

Side: TypeAlias = "Callable[[int], Sequence[Callable[[], object]]]"
"""Prepares so many calls, untimed, and returns them."""

SHOWN = (50, 99, 99.9, 100)
"""The percentiles that stand behind a latency, so: p50 / p99 / p99.9 / max."""


@dataclass(frozen=True)
class Timings:
    """How long one side's calls took, in nanoseconds, a list for each round."""

    rounds: Sequence[Sequence[int]]

    def percentile(self, percent: float) -> float:
        """Return a percentile over all rounds, by nearest rank, in microseconds."""
        return percentile([took for turn in self.rounds for took in turn], percent) / 1000

    @property
    def medians(self) -> list[float]:
        """The median of each round, in microseconds."""
        return [median(turn) / 1000 for turn in self.rounds]

    @property
    def details(self) -> list[float]:
        """The percentiles of `SHOWN` over all rounds, in microseconds."""
        return [self.percentile(percent) for percent in SHOWN]


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the nearest-rank percentile of at least one value, in any order."""
    ordered = sorted(values)
    return ordered[max(math.ceil(percent * len(ordered) / 100), 1) - 1]


def ratio(one: Timings, other: Timings) -> float:
    """Return how many times as long `one` takes: the median over rounds of their p50s' ratio."""
    return median(a / b for a, b in zip(one.medians, other.medians, strict=True))


def interleave(
    sides: Mapping[str, Side],
    rounds: int,
    calls: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    seconds: float = 40,
) -> dict[str, Timings]:
    """Time each side's calls one by one, side after side, round after round.

    Args:
        sides: What to time, by name.
        rounds: How often each side has its turn. One turn more comes first, to warm up, and does
            not count.
        calls: Calls in a turn.
        clock: Nanoseconds; a test gives its own.
        seconds: As `turns` has it.
    """
    took: dict[str, list[list[int]]] = {name: [] for name in sides}
    for turn in turns(rounds, seconds):
        for name, prepare in sides.items():
            timed = each(prepare(calls), clock)
            if turn:
                took[name].append(timed)
    return {name: Timings(lists) for name, lists in took.items()}


def turns(rounds: int, seconds: float = 40) -> Iterator[int]:
    """Count the rounds, from 0: the first warms up and does not count.

    A machine on which they take longer than so many seconds gets fewer, but two that count.
    """
    end = time.monotonic() + seconds
    for turn in range(rounds + 1):
        if turn > 2 and time.monotonic() > end:
            return
        yield turn


def each(
    calls: Sequence[Callable[[], object]], clock: Callable[[], int] = time.perf_counter_ns
) -> list[int]:
    """Make the calls one after the other and return how long each took, in nanoseconds."""
    took = []
    for call in calls:
        started = clock()
        call()
        took.append(clock() - started)
    return took
