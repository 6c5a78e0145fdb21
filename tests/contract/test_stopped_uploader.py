"""The process that uploads is stopped, not dead: its lock is never freed, yet events must go."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracker import Tracker
from tracker.outbox import stopped
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeConfig
    from tracker import APIConfig

pytestmark = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux's /proc")

UPLOADER = """
import sys
from tracker import APIConfig, Tracker
from tracker.testing import RecordingDestination

received = RecordingDestination()
config = APIConfig(api_key="k", client_id="test-client", base_url=sys.argv[2],
                   outbox_path=sys.argv[1], flush_interval=0)
tracker = Tracker(config, destination=lambda: received)
tracker.track("test.first")
assert tracker.flush(30).pending == 0
print("uploads", flush=True)
for line in sys.stdin:
    tracker.track("test.later")
    print(tracker.flush(30).pending, len(received.events), flush=True)
tracker.close(0)
"""


@contextmanager
def uploader(config: APIConfig) -> Iterator[subprocess.Popen[str]]:
    """Another process that is the elected uploader."""
    command = [sys.executable, "-c", UPLOADER, str(config.outbox_path), config.base_url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "uploads\n"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.communicate()


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def state(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopped, "_PATIENCE_SECONDS", 0.1)


@pytest.mark.usefixtures("_impatient")
def test_another_process_takes_over(config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    """What it logs is delivered; the stopped one goes on as any other process would."""
    settings = config()
    received = RecordingDestination()
    with uploader(settings) as other:
        other.send_signal(signal.SIGSTOP)
        until(lambda: state(other) == "T")
        with Tracker(settings, destination=lambda: received) as tracker:
            mine = tracker.track("test.noted")
            assert tracker.flush(30).pending == 0
            assert [event["event_id"] for event in received.events] == [mine]
            assert "is stopped; this one takes over" in caplog.text
            other.send_signal(signal.SIGCONT)
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write("log\n")
            other.stdin.flush()
            assert other.stdout.readline().startswith("0 ")
            until(lambda: tracker.health().delivered == 3)


@pytest.mark.usefixtures("_impatient")
def test_an_uploader_at_work_is_left_alone(config: MakeConfig) -> None:
    """Nor is a process taken for the holder that only has the file open."""
    settings = config()
    with uploader(settings):
        watch = stopped.StoppedHolder(
            settings.outbox_path.with_name(settings.outbox_path.name + ".sync-lock")
        )
        for _ in range(5):
            assert not watch.look()
            time.sleep(0.05)


def test_a_moments_stop_is_no_reason(config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must have been stopped, without a break, for as long as calls wait for a lock."""
    times = iter((0.0, 9.0, 11.0, 12.0, 23.0, 40.0, 50.0))
    found = iter((7, 7, None, 7, 7, 8, 8))
    monkeypatch.setattr(stopped, "_stopped_holder", lambda _: next(found))
    monkeypatch.setattr(stopped, "monotonic", times.__next__)
    watch = stopped.StoppedHolder(config().outbox_path)
    told = [watch.look() for _ in range(7)]
    assert told == [False, False, False, False, True, False, True]
