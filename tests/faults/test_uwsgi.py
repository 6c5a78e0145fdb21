"""uWSGI, which forks its workers without Python's hooks: they log, and they end when told to."""

from __future__ import annotations

import ctypes
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.collector import free_port
from tests.support.conversations import ROOT
from tracker import AgentPerformanceTracker, APIConfig
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

PROGRAM = Path(sys.executable).with_name("uwsgi")
WORKERS = 3


def stored(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {event_id for (event_id,) in connection.execute("SELECT event_id FROM events")}


@pytest.mark.skipif(
    not PROGRAM.exists(),
    reason="uWSGI is not installed: the extra [uwsgi] needs a compiler",
)
def test_workers_forked_by_uwsgi(tmp_path: Path, full: bool, tell: Callable[[str], None]) -> None:
    """The application is loaded, and logs, in the master; workers answer, and SIGTERM ends all.

    Every event whose id was answered is in the outbox.
    """
    starts = 20 if full else 2
    for number in range(starts):
        path = tmp_path / f"outbox-{number}.sqlite3"
        port = free_port()
        environment = {
            **os.environ,
            "SDK_API_KEY": "k",
            "SDK_CLIENT_ID": "c",
            "SDK_BASE_URL": "http://127.0.0.1:9",
            "SDK_OUTBOX_PATH": str(path),
        }
        command = [str(PROGRAM), "--http-socket", f"127.0.0.1:{port}", "--master", "--die-on-term"]
        command += ["--processes", str(WORKERS), "--enable-threads", "--pythonpath", str(ROOT)]
        command += ["--virtualenv", sys.prefix, "--module", "tests.faults.wsgi:application"]
        server = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            answered = {ask(port) for _ in range(4 * WORKERS)}
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) is not None
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        assert len(answered) == 4 * WORKERS
        assert answered <= stored(path)
    tell(f"{starts} starts of uWSGI with {WORKERS} workers, none hung, 0 events lost")


def ask(port: int) -> str:
    """Return what the server answers, as soon as it is there."""
    end = time.monotonic() + 20
    while True:
        try:
            answer = requests.get(f"http://127.0.0.1:{port}/", timeout=10)
        except requests.ConnectionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            assert answer.status_code == 200
            return answer.text


def test_a_fork_that_calls_no_hooks(config: Callable[..., APIConfig]) -> None:
    """The child begins again at its first call: it logs beside the parent, and uploads after it."""
    settings = config(exit_timeout=0)
    reading, writing = os.pipe()
    received = RecordingDestination()
    with AgentPerformanceTracker(settings, destination=lambda: received) as tracker:
        tracker.start_conversation("before")
        assert tracker.flush(timeout=20).pending == 0  # the sync thread rests then
        child = ctypes.PyDLL(None).fork()  # with the interpreter's lock held, as uWSGI forks
        if child == 0:
            try:
                tracker.start_conversation("in the child")
                os.read(reading, 1)
                tracker.start_conversation("after the parent")
                assert tracker.flush(timeout=20).pending == 0
                tracker.close(0)
            except BaseException:  # noqa: BLE001 - the parent sees the code
                os._exit(1)
            os._exit(0)
        tracker.start_conversation("in the parent")
    os.write(writing, b"-")
    end = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    os.close(reading)
    os.close(writing)
    assert ended == (child, 0)
    assert len(stored(settings.outbox_path)) == 4
