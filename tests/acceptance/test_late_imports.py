"""A thread that is importing a library when the process forks or ends."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_odd_hosts import environment

if TYPE_CHECKING:
    from pathlib import Path

COMMON = """
import os, sys, threading, time
from tracker import *
from tracker.testing import RecordingDestination

class SlowStorage:
    importing = threading.Event()

    def find_spec(self, name, path=None, target=None):
        if name == SLOW and not self.importing.is_set():
            self.importing.set()
            end = time.monotonic() + 1
            while time.monotonic() < end:
                pass

sys.meta_path.insert(0, SlowStorage())
tracker = Tracker(APIConfig(exit_timeout=0), destination=RecordingDestination)
session = tracker.start_conversation("a", session_id="s")
"""

EXIT = """
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.3)

slow = Slow()  # the interpreter takes its time to end
for number in range(1000):  # so many make a checkpoint due, and it is signed
    tracker.log_user_message("s", "hello")
assert SlowStorage.importing.wait(30)
END
"""

FORK = """
import faulthandler

def log():
    tracker.llm.record_usage("openai", "gpt-4o", 5, 5, session_id="s")

thread = threading.Thread(target=log)
thread.start()
assert SlowStorage.importing.wait(30)
pid = os.fork()
if pid == 0:
    faulthandler.dump_traceback_later(30, exit=True)
    log()
    os._exit(any(usage.cost_usd is None for usage in tracker.llm.get_usage()))
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
thread.join()
sys.exit(status)
"""

DRAIN = """
import atexit, queue, threading
work = queue.Queue()
atexit.register(work.join)  # older than ours, so it runs after it
from tracker import *

def drain():
    while True:
        tracker.llm.record_usage("openai", "gpt-4o", work.get(), 5, session_id="s")
        work.task_done()

tracker = Tracker(APIConfig(exit_timeout=0))
tracker.start_conversation("a", session_id="s")
threading.Thread(target=drain, daemon=True).start()
for number in range(100):
    work.put(number)
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment(folder / "outbox.sqlite3"),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("end", ["", "tracker.close(timeout=0)"], ids=["open", "closed"])
@pytest.mark.parametrize("attempt", range(3))  # each would see an abort about every second time
def test_the_process_ends(end: str, attempt: int, tmp_path: Path) -> None:
    """The sync thread imports what signs, in Rust, when the program is done: it exits with 0.

    Python up to 3.13 ends the thread by unwinding its stack, for which Rust aborts the process.
    """
    pytest.importorskip("cryptography", reason="the extra [evidence] is not installed")
    # The module of cryptography in Rust imports this one.
    done = run(f"SLOW = '_cffi_backend'{COMMON}" + EXIT.replace("END", end), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("slow", ["genai_prices", "genai_prices.update_prices"])
def test_the_process_forks(slow: str, tmp_path: Path) -> None:
    """A thread imports the price list when the process forks: the child has all of it."""
    pytest.importorskip("genai_prices", reason="the extra [cost] is not installed")
    done = run(f"SLOW = {slow!r}{COMMON}{FORK}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_older_exit_handler_may_wait_for_a_thread_that_logs(tmp_path: Path) -> None:
    """What the thread logs meanwhile is stored, and no call of it waits for the end."""
    pytest.importorskip("genai_prices", reason="the extra [cost] is not installed")
    done = run(DRAIN, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite3")) as outbox:
        query = "SELECT json_extract(data, '$.prompt_tokens') FROM events WHERE type = 'llm.used'"
        assert outbox.execute(query).fetchall() == [(number,) for number in range(100)]
