"""An edge device's day: ``python -m tests.faults.device NOTES DELIVERED HOURS EVENTS``.

Each hour brings a burst of calls from several threads. The server is away now and then, and the
tracker is closed and made anew. After each hour a line tells what the process uses.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.agent import Notes
from tests.support.opened import client_of
from tracker import AgentPerformanceTracker, APIConfig
from tracker.sync.destination import Delivery, Outcome

if TYPE_CHECKING:
    from tracker.sync.destination import Upload

_THREADS = 4


class Receiver:
    """A server that keeps the ids it receives in a file, and is there or not."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="ascii")
        self.up = True

    def send(self, upload: Upload) -> Delivery:
        if not self.up:
            return Delivery(Outcome.UNAVAILABLE, "an outage")
        self._file.writelines(f"{event_id}\n" for event_id in upload.event_ids)
        self._file.flush()
        return Delivery(Outcome.DELIVERED)

    def close(self) -> None:
        """Stay: the next tracker sends here too."""


def live(notes: Notes, receiver: Receiver, hours: int, events: int) -> None:
    """Go through so many hours of so many events each."""
    config = APIConfig(flush_interval=0.01, backoff_base=0.01, backoff_cap=0.02, retention_days=0)
    tracker = AgentPerformanceTracker(config, destination=lambda: receiver)
    for hour in range(hours):
        receiver.up = hour % 4 != 1
        burst(tracker, notes, events // _THREADS)
        if receiver.up:
            assert tracker.flush(timeout=120).pending == 0
            client_of(config.outbox_path).outbox.prune()  # as the sync thread does, hourly
        if hour % 6 == 5:
            tracker.close()
            tracker = AgentPerformanceTracker(config, destination=lambda: receiver)
        tell(config.outbox_path)
    tracker.close()


def burst(tracker: AgentPerformanceTracker, notes: Notes, events: int) -> None:
    """Log so many events from each of several threads at once."""

    def work(thread: int) -> None:
        for number in range(events):
            notes.add(id=tracker.log_user_message(f"session-{thread}", str(number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def tell(outbox: Path) -> None:
    """Print what the process and the outbox use now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    figures = {
        "rss_mb": pages * os.sysconf("SC_PAGESIZE") / 1e6,
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names will do
        "threads": threading.active_count(),
        "file_mb": outbox.stat().st_size / 1e6,
        "wal_mb": outbox.with_name(outbox.name + "-wal").stat().st_size / 1e6,
    }
    print(json.dumps(figures), flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    live(Notes(Path(sys.argv[1])), Receiver(Path(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]))
