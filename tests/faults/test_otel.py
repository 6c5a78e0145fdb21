"""Spans of OpenTelemetry in a process that is killed: what has ended is stored."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.contract.otel.conftest import rows
from tests.support.settings import quick
from tracker import Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1_200)]

SPANS = 1_000
PROGRAM = """
import os, sys
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from tests.support.settings import quick
from tracker import Tracker
from tracker.otel import OutboxSpanProcessor

tracker = Tracker(quick(Path(sys.argv[1]), durability=sys.argv[2], base_url="http://127.0.0.1:9"))
provider = TracerProvider()
provider.add_span_processor(OutboxSpanProcessor(tracker, started=True))
otel = provider.get_tracer("a.library")
number = 0
with otel.start_as_current_span("in flight"):
    while True:
        otel.start_span(f"step {number}").end()
        os.write(1, b"%d\\n" % number)
        number += 1
"""


def kill_after(folder: Path, durability: str, spans: int) -> int:
    """Run the program, kill it once so many spans have ended, and return how many have."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, folder, durability], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        ended = 0
        while ended < spans and process.stdout.readline():
            ended += 1
        process.send_signal(signal.SIGKILL)
        ended += len(process.stdout.read().splitlines())
    assert process.returncode == -signal.SIGKILL
    return ended


@pytest.mark.parametrize("durability", ["process", "full"])
def test_no_span_that_has_ended_is_lost_and_the_one_in_flight_is_named(
    tmp_path: Path, durability: str, full: bool
) -> None:
    """Killed after a thousand spans, and at any instant before, again and again."""
    source = random.Random(20)  # noqa: S311 - the same each time
    kills = 20 if full else 4
    for kill in range(kills):
        folder = tmp_path / str(kill)
        folder.mkdir()
        wanted = SPANS if kill % 2 else source.randrange(1, SPANS)
        ended = kill_after(folder, durability, wanted)
        settings = quick(folder, durability=durability, base_url="http://127.0.0.1:9")
        with Tracker(settings) as tracker:
            tracker.flush(timeout=1)
        found = [row.data for row in rows(settings.outbox_path, "otel.span")]
        names = [data["name"] for data in found]
        assert names[:ended] == [f"step {number}" for number in range(ended)]
        interrupted = [
            data["name"]
            for data in found
            if "tracker.span.interrupted" in data.get("attributes", {})
        ]
        # One more may have been stored whose end nobody had heard of, or have been under way.
        assert interrupted in (
            ["in flight"],
            ["in flight", f"step {ended}"],
            ["in flight", f"step {ended + 1}"],
        )
        assert len(names) == len(set(names)) <= ended + 3


def test_what_is_stored_at_a_kill_is_delivered_later_once(tmp_path: Path) -> None:
    """By the next process that opens the outbox."""
    ended = kill_after(tmp_path, "process", 200)
    received = RecordingDestination()
    settings = quick(tmp_path, durability="process", base_url="http://127.0.0.1:9")
    with Tracker(settings, destination=lambda: received) as tracker:
        tracker.flush()
    names = [event["data"]["name"] for event in received.events if event["type"] == "otel.span"]
    assert len(names) == len(set(names))
    assert {f"step {number}" for number in range(ended)} | {"in flight"} <= set(names)
