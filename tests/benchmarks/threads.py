"""Many threads at durability ``full``, against one lock around each insert and commit."""

from __future__ import annotations

import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import children, messages
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import Bare, Row, config
from tests.benchmarks.pairs import SHOWN, each, percentile, turns
from tests.support.slow_disk import CANNOT, slow_disk
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.benchmarks.figure import Scale

_SLOW_GOALS: dict[int, float | None] = {8: None, 32: 10}
"""At least so many times one lock's rate, on the slow disk; on a fast one it is reported."""
_MOST_P99_MS = 5.0
_SLOWER_MS = 3


class Turn(NamedTuple):
    """What came of one turn of all threads."""

    per_second: float
    took: list[int]


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield throughput and tail for each number of threads, then on a disk that flushes slowly."""
    for threads in _SLOW_GOALS:
        calls = scale.of(6_400, 3_200) // threads
        turns = children.run(in_turns, threads, scale.of(8, 4), calls, timeout=180)
        yield _throughput(f"threads.{threads}", f"{threads} threads, full", turns, None)
        yield Figure(
            f"threads.{threads}.p99",
            f"{threads} threads, full, a call's p99",
            "",
            _tail(turns[0])[1],
            "ms",
            most=_MOST_P99_MS,
        )
    if CANNOT:
        return
    with tempfile.TemporaryDirectory() as directory:
        slow = slow_disk(Path(directory), _SLOWER_MS)
        for threads, least in _SLOW_GOALS.items():
            calls = scale.of(3_200, 1_600) // threads
            turns = children.run(
                in_turns, threads, scale.of(4, 2), calls, timeout=180, environment=slow
            )
            what = f"{threads} threads, full, flushes {_SLOWER_MS} ms slower, as an SD card's"
            yield _throughput(f"threads.{threads}.slow", what, turns, least)


def _throughput(
    name: str, what: str, turns: tuple[list[Turn], list[Turn]], least: float | None
) -> Figure:
    ours, bare = turns
    return Figure(
        name,
        f"{what}, events per second",
        "one lock around each sqlite3 insert + commit",
        median(a.per_second / b.per_second for a, b in zip(ours, bare, strict=True)),
        least=least,
        details={
            "tracker events/s": median(turn.per_second for turn in ours),
            "one lock events/s": median(turn.per_second for turn in bare),
            "tracker ms": _tail(ours),
            "one lock ms": _tail(bare),
        },
    )


def _tail(turns: Sequence[Turn]) -> list[float]:
    return [percentile([took / 1e6 for turn in turns for took in turn.took], p) for p in SHOWN]


def in_turns(threads: int, rounds: int, calls: int) -> tuple[list[Turn], list[Turn]]:
    """Run so many turns of each; bare inserts get the rows that the tracker's turn made."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        settings = config(folder, durability="full")
        tracker = AgentPerformanceTracker(settings)
        table = Bare(settings.outbox_path, folder / "bare.db", "full")
        lock = threading.Lock()

        def insert(row: Row) -> None:
            with lock:
                table.insert(row)

        ours, bare = [], []
        for _ in turns(rounds):
            made = [messages.calls(tracker, calls, first=n * calls) for n in range(threads)]
            ours.append(together(made))
            rows = table.new_rows()
            bare.append(
                together(
                    [[partial(insert, row) for row in rows[n::threads]] for n in range(threads)]
                )
            )
        tracker.close(timeout=0)
        table.close()
        return ours[1:], bare[1:]  # the first turn warms up


def together(work: Sequence[Sequence[Callable[[], object]]]) -> Turn:
    """Let as many threads as there are lists make their calls, all from the same moment on."""
    start = threading.Barrier(len(work) + 1)
    took: list[list[int]] = []

    def run(calls: Sequence[Callable[[], object]]) -> None:
        start.wait()
        took.append(each(calls))

    threads = [threading.Thread(target=run, args=(calls,)) for calls in work]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    latencies = [one for some in took for one in some]
    return Turn(len(latencies) / seconds, latencies)
