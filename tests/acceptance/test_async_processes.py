"""Async trackers in whole processes: slow disks, forks, and the interpreter's end."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.conversations import ROOT
from tests.support.slow_disk import CANNOT, slow_disk

if TYPE_CHECKING:
    from pathlib import Path

_BEGIN = """
import asyncio, json, os, sys, time
from pathlib import Path
from tracker import APIConfig, AsyncAgentPerformanceTracker
from tracker.sync.destination import Delivery, Outcome

class Unplugged:
    def send(self, upload):
        return Delivery(Outcome.UNAVAILABLE, "no answer from the server: it is unplugged")
    def close(self):
        pass

def redact(text):
    time.sleep(float(os.environ.get("REDACTION_SECONDS", 0)))
    return text

config = APIConfig(
    api_key="k", client_id="c", outbox_path=Path(sys.argv[1]), redactors=(redact,)
)
tracker = AsyncAgentPerformanceTracker(config, destination=Unplugged)
"""

_HEARTBEAT = """
async def main():
    await tracker.log_user_message("s", "opened")
    beats, longest, last = 0, 0.0, time.monotonic()
    call = asyncio.create_task(tracker.log_user_message("s", "takes long"))
    began = time.monotonic()
    while not call.done():
        await asyncio.sleep(0.001)
        beats += 1
    print(json.dumps({"beats": beats, "took": time.monotonic() - began}))
    await tracker.close(timeout=0)
asyncio.run(main())
"""

_LEFT_BEHIND = """
async def main():
    await tracker.log_user_message("s", "first")
    for number in range(20):
        keep.append(asyncio.create_task(tracker.log_user_message("s", str(number))))
    flushing = asyncio.create_task(tracker.flush(timeout=None))
    await asyncio.sleep(0)
keep = []
asyncio.run(main())
"""

_FORK = """
async def log(content):
    await asyncio.gather(*(tracker.log_user_message(content, content) for _ in range(50)))

async def main():
    await log("before")
    under_way = asyncio.create_task(log("parent"))
    await asyncio.sleep(0)
    return under_way

loop = asyncio.new_event_loop()
under_way = loop.run_until_complete(main())
child = os.fork()
if child == 0:
    asyncio._set_running_loop(None)
    asyncio.run(log("child"))
    asyncio.run(tracker.close(timeout=0))
    os._exit(0)
loop.run_until_complete(under_way)
loop.run_until_complete(tracker.close(timeout=0))
loop.close()
assert os.waitpid(child, 0)[1] == 0
"""


def run(script: str, outbox: Path, **environment: str) -> str:
    """Run a script that logs to `outbox`, as strictly as Python can; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c",
         _BEGIN + script, str(outbox)],
        check=False, capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def stored(outbox: Path) -> list[str]:
    with closing(sqlite3.connect(outbox)) as connection:
        query = "SELECT json_extract(data, '$.content') FROM events ORDER BY seq"
        return [content for (content,) in connection.execute(query)]


def test_what_was_being_logged_at_the_end_is_stored(tmp_path: Path) -> None:
    """Tasks cancelled by the loop's end lose no event, and nothing else holds the process up."""
    run(_LEFT_BEHIND, tmp_path / "outbox", REDACTION_SECONDS="0.02")
    assert stored(tmp_path / "outbox") == ["first", *map(str, range(20))]


@pytest.mark.slow
def test_a_forked_child_logs_by_itself(tmp_path: Path) -> None:
    """Parent and child both go on, and what was under way is stored once, by the parent."""
    run(_FORK, tmp_path / "outbox")
    kept = stored(tmp_path / "outbox")
    assert kept[:50] == ["before"] * 50
    assert sorted(kept[50:]) == ["child"] * 50 + ["parent"] * 50


@pytest.mark.slow
@pytest.mark.skipif(CANNOT is not None, reason=str(CANNOT))
def test_the_loop_turns_while_the_disk_flushes(tmp_path: Path) -> None:
    """With a flush of 300 ms, the call takes as long, and the loop goes round all the while."""
    seen = json.loads(run(_HEARTBEAT, tmp_path / "outbox", **slow_disk(tmp_path, 300)))
    assert seen["took"] >= 0.3, "the flush was not slow: the test shows nothing"
    assert seen["beats"] >= 20
