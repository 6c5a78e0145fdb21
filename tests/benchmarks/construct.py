"""A tracker made on an outbox of a million rows, until its first call has returned."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import children
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config, fill
from tests.benchmarks.pairs import percentile
from tests.benchmarks.size import multiply
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale

ROWS = 1_000_000


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figure; each tracker is made in a new process."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        settings = config(folder)
        fill(settings, 10_000)
        multiply(settings, ROWS)
        made = [children.run(first_call, folder, timeout=60) for _ in range(scale.of(11, 5) + 1)]
    constructing, calling = ([took[part] for took in made[1:]] for part in (0, 1))
    yield Figure(
        "construct",
        f"construct a tracker on {ROWS:,} rows, first call included",
        "",
        percentile([sum(took) for took in made[1:]], 50),
        "ms",
        most=30,
        details={
            "constructing ms": percentile(constructing, 50),
            "first call ms": percentile(calling, 50),
            "longest of both ms": max(sum(took) for took in made[1:]),
        },
    )


def first_call(folder: Path) -> tuple[float, float]:
    """Return the milliseconds that construction and the first call took."""
    began = time.perf_counter()
    tracker = AgentPerformanceTracker(config(folder))
    made = time.perf_counter()
    tracker.log_message("conversation-1", "user", "Hello")
    called = time.perf_counter()
    return (made - began) * 1000, (called - made) * 1000
