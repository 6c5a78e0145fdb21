"""What a process that logs and drains a million events grows by."""

from __future__ import annotations

import tempfile
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


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figure of a long life."""
    events = scale.of(1_000_000, 50_000)
    first, last, most = children.run(live, events, timeout=580)
    yield Figure(
        "memory",
        f"RSS of a process after it logged and drained {events:,} events",
        f"its RSS after the first {_TURN:,}",
        last - first,
        "MB more",
        most=10,
        details={"first MB": first, "last MB": last, "most MB": most},
    )


def live(events: int) -> tuple[float, float, float]:
    """Log so many events while they are uploaded; return the first, last and greatest RSS in MB."""
    with tempfile.TemporaryDirectory() as directory, Sink() as sink:
        settings = config(Path(directory), durability="process", base_url=sink.url)
        tracker = AgentPerformanceTracker(settings)
        seen = []
        for _ in range(0, events, _TURN):
            for call in messages.calls(tracker, _TURN):
                call()
            if not seen:
                tracker.flush(timeout=60)
            seen.append(rss())
        tracker.flush(timeout=None)
        seen.append(rss())
        tracker.close(timeout=0)
    return seen[0], seen[-1], max(seen)


def rss() -> float:
    """Return this process's resident memory, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status says nothing of memory")
