"""CPU that a tracker takes while nothing happens: idle, and offline with events pending."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import children, messages
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import NOBODY, config
from tests.benchmarks.sink import Sink
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from tests.benchmarks.figure import Scale

_SETTLE_SECONDS = 3


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield both figures, measured at the same time in a process each."""
    seconds = scale.of(60, 20)
    with Sink() as sink, ThreadPoolExecutor() as pool:

        def start(url: str) -> Future[float]:
            return pool.submit(
                lambda: children.run(share_of_cpu, url, seconds, timeout=seconds + 30)
            )

        waiting = {
            "idle": ("idle, everything delivered", start(sink.url)),
            "offline": ("offline, 100 events pending", start(NOBODY)),
        }
        for name, (what, future) in waiting.items():
            yield Figure(
                f"cpu.{name}",
                f"CPU of a process {what}, over {seconds} s",
                "",
                future.result(),
                "% of a core",
                most=0.5,
            )


def share_of_cpu(url: str, seconds: float) -> float:
    """Log a hundred events, then do nothing; return the CPU time as percents of wall time."""
    with tempfile.TemporaryDirectory() as directory:
        tracker = AgentPerformanceTracker(config(Path(directory), base_url=url))
        for call in messages.calls(tracker, 100):
            call()
        time.sleep(_SETTLE_SECONDS)
        wall, cpu = time.monotonic(), time.process_time()
        time.sleep(seconds)
        share = (time.process_time() - cpu) / (time.monotonic() - wall) * 100
        tracker.close(timeout=0)
        return share
