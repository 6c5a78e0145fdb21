"""Starts of spans, and the ends of those whose process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from tests.contract.otel.conftest import Row, rows
from tracker import Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.contract.otel.conftest import MakeTraced

PROGRAM = """
import os, signal, sys
from pathlib import Path
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tests.support.settings import quick
from tracker import Tracker
from tracker.otel import OutboxSpanProcessor
from tracker.testing import RecordingDestination

tracker = Tracker(quick(Path(sys.argv[1])), destination=RecordingDestination)
provider = TracerProvider()
provider.add_span_processor(OutboxSpanProcessor(tracker, started=True))
otel = provider.get_tracer("a.library")
with tracker.conversation("agent_1", user_id="user_7"):
    for number in range(3):
        otel.start_span(f"ended {number}").end()
    with otel.start_as_current_span("outer", attributes={"input": "a question"}):
        otel.start_span("ended inside").end()
        with otel.start_as_current_span("inner"):
            {last}
"""


def killed(folder: Path, last: str = "os.kill(os.getpid(), signal.SIGKILL)") -> Path:
    """Run a program that dies inside two spans, and return its outbox."""
    code = textwrap.dedent(PROGRAM).replace("{last}", last)
    run = subprocess.run([sys.executable, "-c", code, folder], check=False, timeout=60)
    assert run.returncode == -signal.SIGKILL
    return folder / "outbox.sqlite3"


def interrupted(path: Path) -> list[Row]:
    return [
        row
        for row in rows(path, "otel.span")
        if row.data.get("attributes", {}).get("tracker.span.interrupted")
    ]


def test_what_was_under_way_at_a_kill_is_ended_by_the_next_process(
    tmp_path: Path, config: MakeConfig
) -> None:
    """Each span once, with an error, its attributes, its ids, and the last time of its run."""
    path = killed(tmp_path)
    assert interrupted(path) == []
    for _ in range(2):
        with Tracker(config(), destination=RecordingDestination) as tracker:
            tracker.flush()
    outer, inner = interrupted(path)
    assert (outer.data["name"], inner.data["name"]) == ("outer", "inner")
    assert outer.data["status"] == {
        "code": "error",
        "message": "process ended before the span did",
    }
    assert outer.data["attributes"]["input"] == "a question"
    assert inner.data["parent_span_id"] == outer.data["span_id"]
    assert inner.trace is not None
    assert inner.trace["span_id"] == inner.data["span_id"]
    assert (outer.agent_id, outer.user_id) == ("agent_1", "user_7")
    assert outer.data["end"] == inner.data["end"] == inner.data["start"]
    assert "run" not in outer.data
    assert not list(tmp_path.glob("*.run-*"))


def test_a_child_that_outlives_its_parent_keeps_nothing_of_it(
    tmp_path: Path, config: MakeConfig
) -> None:
    """The parent's spans are ended though a forked child is alive."""
    pid = tmp_path / "pid"
    last = (
        "child = os.fork() or (signal.pause(), os._exit(0)); "
        f"Path({str(pid)!r}).write_text(str(child)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = killed(tmp_path, last)
    try:
        with Tracker(config(), destination=RecordingDestination) as tracker:
            tracker.flush()
        assert [row.data["name"] for row in interrupted(path)] == ["outer", "inner"]
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_the_spans_of_a_living_process_are_left_to_it(make_traced: MakeTraced) -> None:
    """Whichever process uploads."""
    traced = make_traced(options={"started": True})
    span = traced.otel.start_span("under way")
    with Tracker(traced.tracker.config, destination=RecordingDestination) as other:
        other.flush()
    assert interrupted(traced.path) == []
    span.end()
    (start,) = traced.rows("otel.span_started")
    (end,) = traced.rows("otel.span")
    assert start.trace == end.trace
    assert {**start.data, "end": end.data["end"]} == {**end.data, "run": start.data["run"]}


def test_without_starts_no_file_is_beside_the_outbox(make_traced: MakeTraced) -> None:
    """Nor before the first span."""
    traced = make_traced()
    traced.span()
    make_traced(options={"started": True})
    assert not list(traced.path.parent.glob("*.run-*"))
