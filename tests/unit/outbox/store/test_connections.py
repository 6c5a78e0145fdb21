"""What one process has open of one outbox, and what a forked child must not take over."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.store.write_connection import SURE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeConfig


@pytest.fixture
def outbox(config: MakeConfig) -> Iterator[Outbox]:
    opened = Outbox(config(on_error="raise"))
    yield opened
    opened.close()


def in_a_child(outbox: Outbox, work: Callable[[], bool]) -> bool:
    """Return what `work` returns in a forked child that has started over."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            outbox.restart_in_child()
            os._exit(0 if work() else 1)
        finally:
            traceback.print_exc()
            os._exit(2)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, 256), "the child failed"
    return status == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are found in /proc")
def test_before_a_fork_nothing_is_open_that_a_child_must_not_inherit(outbox: Outbox) -> None:
    """Of SQLite's files: both processes would believe that they hold the same locks."""

    def opened() -> list[str]:
        links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        return [path for path in links if path.startswith(str(outbox.path)) and "lock" not in path]

    outbox.append(make_event("test.noted", {"n": 1}))
    assert outbox.health().accepted == 1
    assert opened()
    outbox.close_connections()
    assert opened() == []
    assert outbox.connections.write_connection.stale is None


def test_a_child_of_the_uploading_process_does_not_upload(outbox: Outbox) -> None:
    """As long as its parent does: two uploaders would send every event twice."""
    assert outbox.upload_lock.try_acquire()
    assert not in_a_child(outbox, lambda: outbox.upload_lock.try_acquire())
    outbox.upload_lock.release()
    assert in_a_child(outbox, lambda: outbox.upload_lock.try_acquire())


def test_a_child_writes_while_its_parent_goes_on(outbox: Outbox) -> None:
    """With connections of its own, in the same order of events."""
    outbox.append(make_event("test.noted", {"n": 1}))

    def log() -> bool:
        outbox.append(make_event("test.noted", {"n": 2}))
        return outbox.health().accepted == 2

    assert in_a_child(outbox, log)
    outbox.append(make_event("test.noted", {"n": 3}))
    assert outbox.health().accepted == 3


def test_a_child_notices_too_that_the_file_is_gone(outbox: Outbox) -> None:
    """What it logs is in the file that takes its place, not in one that nobody can find."""
    outbox.append(make_event("test.noted", {"n": 1}))

    def log() -> bool:
        outbox.append(make_event("test.noted", {"n": 2}))
        outbox.path.unlink()
        threading.Event().wait(2 * SURE_SECONDS)
        outbox.append(make_event("test.noted", {"n": 3}))
        return outbox.path.exists() and outbox.health().pending == 3

    assert in_a_child(outbox, log)
    assert outbox.path.exists()
