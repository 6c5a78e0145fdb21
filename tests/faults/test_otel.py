"""Spans of OpenTelemetry in a process that is killed: what has ended is stored."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.contract.otel.conftest import rows
from tests.faults import figures
from tests.support.collector import free_port
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
    tmp_path: Path, durability: str, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed after a thousand spans, and at any instant before, again and again."""
    source = random.Random(20)  # noqa: S311 - the same each time
    kills = 40 if full else 4
    stored = 0
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
        stored += ended
    figures.say(
        capsys,
        f"{kills} kills, half of them after {SPANS} spans, {durability}: 0 of {stored} that had "
        "ended were lost, and the one in flight was named each time",
    )


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


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
from pathlib import Path
import gevent
from opentelemetry.sdk.trace import TracerProvider
from tests.support.settings import quick
from tracker import Tracker
from tracker.otel import OutboxSpanProcessor

tracker = Tracker(quick(Path(sys.argv[1]), base_url="http://127.0.0.1:9"))
provider = TracerProvider()
provider.add_span_processor(OutboxSpanProcessor(tracker, started=True))
otel = provider.get_tracer("a.library")

def work(number):
    for step in range(10):
        with otel.start_as_current_span(f"outer {number}-{step}"):
            gevent.sleep(0)
            otel.start_span(f"inner {number}-{step}").end()

gevent.joinall([gevent.spawn(work, number) for number in range(50)], raise_error=True)
assert tracker.health().otel_dropped == 0
tracker.close(timeout=0.1)
"""


def test_greenlets_make_spans_as_threads_do(tmp_path: Path) -> None:
    """Everything patched by gevent: each span is stored, inside the one of its own greenlet."""
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    subprocess.run([sys.executable, "-c", GREENLETS, tmp_path], check=True, timeout=100)
    found = {row.data["name"]: row.data for row in rows(tmp_path / "outbox.sqlite3", "otel.span")}
    assert len(found) == 1_000
    for number in range(50):
        for step in range(10):
            outer, inner = found[f"outer {number}-{step}"], found[f"inner {number}-{step}"]
            assert inner["parent_span_id"] == outer["span_id"]


APPLICATION = """
from opentelemetry.sdk.trace import TracerProvider
from tracker import APIConfig, Tracker
from tracker.otel import OutboxSpanProcessor

tracker = Tracker(APIConfig(exit_timeout=0.1))
provider = TracerProvider()
provider.add_span_processor(OutboxSpanProcessor(tracker, started=True))
otel = provider.get_tracer("a.library")
otel.start_span("before the fork").end()

def application(environment, start_response):
    otel.start_span(environment["PATH_INFO"]).end()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def test_a_web_server_that_loads_before_it_forks_keeps_the_spans_of_its_workers(
    tmp_path: Path,
) -> None:
    """gunicorn with --preload: the processor was made before the fork."""
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed")
    (tmp_path / "web.py").write_text(APPLICATION)
    outbox, port = tmp_path / "outbox.sqlite3", free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--bind"]
    command += [f"127.0.0.1:{port}", "--log-level", "error", "web:application"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "SDK_API_KEY": "k",
        "SDK_CLIENT_ID": "c",
        "SDK_BASE_URL": "http://127.0.0.1:9",
        "SDK_OUTBOX_PATH": str(outbox),
    }
    server = subprocess.Popen(command, env=environment, cwd=tmp_path)
    try:
        answered: list[str] = []
        end = time.monotonic() + 60
        while len(answered) < 60 and time.monotonic() < end:
            path = f"/{len(answered)}"
            try:
                assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=30).ok
            except requests.ConnectionError:  # it has not started yet
                time.sleep(0.05)
                continue
            answered.append(path)
    finally:
        server.terminate()
        server.wait(30)
    found = rows(outbox, "otel.span", "otel.span_started")
    names = [row.data["name"] for row in found if row.type == "otel.span"]
    assert sorted(names) == sorted(["before the fork", *answered])
    assert len(answered) == 60
    runs = {row.data["run"] for row in found if row.type == "otel.span_started"}
    assert 2 <= len(runs) <= 4, "the master has a run, and each worker that answered"
