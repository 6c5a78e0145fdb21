"""The slowest calls at durability ``process``, with the uploader at work in the same process."""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import children, messages
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import Bare, config
from tests.benchmarks.pairs import SHOWN, each, percentile, turns
from tests.benchmarks.sink import Sink
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale

_TURN = 1_000


class Took(NamedTuple):
    """Nanoseconds of each call, and of those in which the database file itself was written."""

    calls: list[int]
    checkpoints: list[int]
    bare: list[int]


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figures of the slowest calls."""
    took = children.run(all_calls, scale.of(100, 15), timeout=240)
    ours, bare = ([percentile(some, p) / 1000 for p in SHOWN] for some in (took.calls, took.bare))
    yield Figure(
        "tail.process",
        f"{len(took.calls):,} calls, process, uploader running: p99.9",
        "the p50 of the same calls",
        ours[2] / ours[0],
        most=60,
        details={"tracker µs": ours, "bare µs": bare, "bare p99.9 / p50": bare[2] / bare[0]},
    )
    late = [took / 1e6 for took in took.checkpoints]
    yield Figure(
        "tail.checkpoints",
        "the longest of the calls during which a checkpoint wrote",
        "",
        max(late, default=0.0),
        "ms",
        most=50,
        details={"calls": float(len(late)), "median ms": percentile(late or [0.0], 50)},
    )


def all_calls(rounds: int) -> Took:
    """Log while the uploader uploads; between turns, insert the same rows in a bare table."""
    with tempfile.TemporaryDirectory() as directory, Sink() as sink:
        folder = Path(directory)
        settings = config(folder, durability="process", base_url=sink.url)
        tracker = AgentPerformanceTracker(settings)
        table = Bare(settings.outbox_path, folder / "bare.db", "process")
        took = Took([], [], [])
        for turn in turns(rounds, 150):
            _log(tracker, settings.outbox_path, took if turn else Took([], [], []))
            inserts = each([partial(table.insert, row) for row in table.new_rows()])
            took.bare.extend(inserts if turn else ())
        tracker.close(timeout=0)
        table.close()
        return took


def _log(tracker: AgentPerformanceTracker, path: Path, took: Took) -> None:
    clock = time.perf_counter_ns
    for call in messages.calls(tracker, _TURN):
        before = os.stat(path).st_mtime_ns  # noqa: PTH116 - only a checkpoint writes this file
        started = clock()
        call()
        ended = clock()
        took.calls.append(ended - started)
        if os.stat(path).st_mtime_ns != before:  # noqa: PTH116 - the fastest way to ask
            took.checkpoints.append(ended - started)
