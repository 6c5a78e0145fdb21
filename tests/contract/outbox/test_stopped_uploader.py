"""The process that uploads is stopped, not dead: uploads wait for it, and nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call
from tracker import Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig
    from tracker import APIConfig

pytestmark = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux's /proc")

UPLOADER = """
import sys
from tracker import APIConfig, Tracker
from tracker.testing import RecordingDestination

config = APIConfig(api_key="k", client_id="test-client", base_url=sys.argv[2],
                   outbox_path=sys.argv[1], flush_interval=0)
tracker = Tracker(config, destination=RecordingDestination)
tracker.track("test.first")
assert tracker.flush(30).pending == 0
print("uploads", flush=True)
sys.stdin.read()
"""


@contextmanager
def stopped_uploader(config: APIConfig) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the upload lock and is stopped."""
    command = [sys.executable, "-c", UPLOADER, str(config.outbox_path), config.base_url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "uploads\n"
            process.send_signal(signal.SIGSTOP)
            stat, end = Path(f"/proc/{process.pid}/stat"), time.monotonic() + 30
            while stat.read_text().rpartition(")")[2].split()[0] != "T":
                assert time.monotonic() < end
            yield process
        finally:
            process.kill()


def test_events_wait_for_a_stopped_uploader_and_are_sent_once_it_is_killed(
    config: MakeConfig,
) -> None:
    """`doctor` names the process, and says what to do."""
    settings = config()
    received = RecordingDestination()
    with (
        stopped_uploader(settings) as other,
        Tracker(settings, destination=lambda: received) as tracker,
    ):
        mine = tracker.track("test.noted")
        assert tracker.flush(1.5).pending == 1
        told = call("--outbox", str(settings.outbox_path), "doctor").stdout
        assert f"process {other.pid}, which is stopped" in told
        assert "kill -CONT" in told
        other.kill()
        assert tracker.flush(30).pending == 0
        assert [event["event_id"] for event in received.events] == [mine]
