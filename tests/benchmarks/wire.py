"""Bytes on the wire, against JSON lines of the same events in one gzip stream."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config, fill, uploads_of
from tests.benchmarks.sink import Sink
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figure, from what the server got: headers count."""
    count = scale.of(20_000, 5_000)
    with tempfile.TemporaryDirectory() as directory, Sink() as sink:
        settings = config(Path(directory), base_url=sink.url)
        fill(settings, count)
        events = [event for upload in uploads_of(settings) for event in upload.events]
        tracker = AgentPerformanceTracker(settings)
        tracker.flush(timeout=120)
        got = sink.received
        tracker.close()
    lines = len(gzip.compress(b"\n".join(events), compresslevel=6)) / count
    yield Figure(
        "wire",
        "bytes on the wire per event, headers included",
        "JSON lines of the same events, gzip level 6",
        got.bytes / got.events / lines,
        most=1.1,
        details={
            "tracker bytes": got.bytes / got.events,
            "JSON lines bytes": lines,
            "uncompressed bytes": sum(map(len, events)) / count,
        },
    )
