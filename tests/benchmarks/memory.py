"""What a process that logs and drains a million events grows by."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import children, messages
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config
from tests.benchmarks.sink import Sink
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale

_TURN = 1_000
_SECONDS = 420


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figure of a long life."""
    events, seen = children.run(live, scale.of(1_000_000, 50_000), timeout=580)
    yield Figure(
        "memory",
        f"RSS of a process after it logged and drained {events:,} events",
        f"its RSS after the first {_TURN:,}",
        seen[-1] - seen[0],
        "MB more",
        most=10,
        details={"first MB": seen[0], "last MB": seen[-1], "most MB": max(seen)},
    )


def live(most: int) -> tuple[int, list[float]]:
    """Log and drain so many events; return how many it were, and the RSS in MB again and again.

    A slow machine ends after `_SECONDS` with fewer.
    """
    end = time.monotonic() + _SECONDS
    events, seen = 0, list[float]()
    with tempfile.TemporaryDirectory() as directory, Sink() as sink:
        settings = config(Path(directory), durability="process", base_url=sink.url)
        tracker = AgentPerformanceTracker(settings)
        while events < most and time.monotonic() < end:
            for call in messages.calls(tracker, _TURN):
                call()
            events += _TURN
            if not seen:
                tracker.flush(timeout=60)
            seen.append(rss())
        tracker.flush(timeout=100)
        seen.append(rss())
        tracker.close(timeout=0)
    return events, seen


def rss() -> float:
    """Return this process's resident memory, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status says nothing of memory")
