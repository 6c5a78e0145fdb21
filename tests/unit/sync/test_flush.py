"""What a flush says of events that were in memory as it began."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, cast

from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.sqlite.engine import OutboxConnection
from tracker.sync.flush import Flush, FlushResult

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.conftest import MakeConfig
    from tracker.sync.worker import Worker


class Writing:
    """A worker that writes what is in memory, and uploads nothing."""

    failures = 0
    elected = True
    held_until = 0.0
    holds = 0

    def __init__(self, write: Callable[[], None]) -> None:
        self.write = write

    def hurry(self, *, ordered: bool) -> None:
        self.ordered = ordered
        self.write()


def test_what_comes_from_memory_is_pending_until_it_is_sent(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk works again during the flush, but the time is over before anything is sent."""
    monkeypatch.setattr(OutboxConnection, "busy_seconds", 0.02)
    outbox = Outbox(config())
    outbox.append(make_event("thing.happened", {}))
    with closing(sqlite3.connect(outbox.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            outbox.append(make_event("thing.happened", {}))

        def write() -> None:
            other.execute("ROLLBACK")
            outbox.drain_buffer()

        flush = Flush(outbox, cast("Worker", Writing(write)))
        assert flush.result() == FlushResult(pending=4)
        assert flush.wait(0) == FlushResult(pending=4)
    outbox.close()


def test_what_is_kept_back_ends_a_wait_unless_it_was_ordered(config: MakeConfig) -> None:
    """The thread may have looked at the window just before the order came."""
    outbox = Outbox(config())
    outbox.append(make_event("thing.happened", {}))

    def keep_back() -> None:
        worker.holds += 1

    worker = Writing(keep_back)
    flush = Flush(outbox, cast("Worker", worker))
    assert flush.wait(60).pending == 1
    assert (flush.held, worker.ordered) == (True, False)
    flush = Flush(outbox, cast("Worker", worker), ordered=True)
    assert flush.wait(0.05).pending == 1
    assert (flush.held, worker.ordered) == (False, True)
    outbox.close()
