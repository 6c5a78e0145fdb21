"""Bursts, outages, large outboxes and long readers: what the process and the files use."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.outboxes import fill
from tests.faults.test_interpreters import environment
from tests.support import agent
from tests.support.conversations import ROOT
from tracker import AgentPerformanceTracker, APIConfig
from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.sync.destination import Delivery, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.sync.destination import Upload

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc"),
]

MB = 1_000_000
_FILL = 100_000


def test_a_day_of_a_device(
    config: Callable[..., APIConfig],
    tmp_path: Path,
    full: bool,
    tell: Callable[[str], None],
) -> None:
    """24 hours of bursts, outages and restarts: nothing lost, and nothing in use grows."""
    hours, events = 24, 20_000 if full else 200
    notes, delivered = tmp_path / "notes", tmp_path / "delivered"
    arguments = [str(notes), str(delivered), str(hours), str(events)]
    device = subprocess.run(
        [sys.executable, "-m", "tests.faults.device", *arguments],
        env=environment(config()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert device.returncode == 0, device.stderr
    used = [json.loads(line) for line in device.stdout.splitlines()]
    acknowledged = [note["id"] for note in agent.read_notes(notes)]
    arrived = delivered.read_text(encoding="ascii").split()
    assert len(acknowledged) == hours * events
    assert len(set(arrived)) == len(arrived)
    assert set(acknowledged) <= set(arrived)
    warm, later = used[hours // 4], used[hours // 4 :]
    grown = {name: max(hour[name] for hour in later) - warm[name] for name in warm}
    shown = ", ".join(f"{name} {by:.1f}" for name, by in grown.items())
    tell(
        f"a device's day | {hours} h, {len(arrived):,} events | 0 lost | grown by {shown}; log at "
        f"most {max(hour['wal_mb'] for hour in used):.1f} MB"
    )
    assert grown["rss_mb"] <= 10
    assert grown["descriptors"] <= 2, "what a request under way may have open"
    assert grown["threads"] <= 1
    assert max(hour["wal_mb"] for hour in used) < 64
    assert used[-1]["file_mb"] < 2 * min(hour["file_mb"] for hour in used[::4])


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / MB


def test_a_large_outbox(
    config: Callable[..., APIConfig], full: bool, tell: Callable[[str], None]
) -> None:
    """Millions of pending rows cost no time at opening and no memory at sending.

    All of them arrive, once and in order; then they are pruned, and the file is small again.
    """
    rows = 5_000_000 if full else 20_000
    settings = config(base_url="http://127.0.0.1:9")
    filling = multiprocessing.get_context("spawn").Process(target=fill_up, args=(settings, rows))
    filling.start()  # elsewhere: memory that is free again here would hide what the rest takes
    filling.join()
    assert filling.exitcode == 0
    size = settings.outbox_path.stat().st_size
    receiver = Counting()
    cpu, began = time.process_time(), time.monotonic()
    tracker = AgentPerformanceTracker(settings, destination=lambda: receiver)
    tracker.log_user_message("session", "first")
    opened, opened_cpu = time.monotonic() - began, time.process_time() - cpu
    await_(lambda: receiver.count >= rows // 10)
    warm = most = rss_mb()
    while receiver.count <= rows:
        await_(lambda before=receiver.count: receiver.count > before)  # type: ignore[misc]
        most = max(most, rss_mb())
    drained = time.monotonic() - began
    assert tracker.flush(timeout=600).pending == 0
    tracker.close()
    began = time.monotonic()
    with closing(Outbox(settings)) as outbox:
        outbox.prune(0)
        outbox.append(make_event("test.noted", {}))
    pruned, after = time.monotonic() - began, settings.outbox_path.stat().st_size
    tell(
        f"large outbox | {rows:,} pending rows, {size / MB:,.0f} MB | open and log "
        f"{opened:.3f} s ({opened_cpu:.3f} s CPU) | {receiver.count:,} sent once and in order in "
        f"{drained:.0f} s, RSS grown by {most - warm:.1f} MB | pruned in {pruned:.0f} s to "
        f"{after / MB:.2f} MB"
    )
    assert receiver.count == rows + 1
    assert opened_cpu < 1
    assert most - warm <= 10
    assert after < size / 10


def fill_up(settings: APIConfig, rows: int) -> None:
    """Fill an outbox, with not too many messages in memory at once."""
    for first in range(0, rows, _FILL):
        fill(settings, min(_FILL, rows - first), first)


class Counting:
    """A receiver that keeps nothing but the last id: those that follow have to be newer.

    Ids sort as they were made. So what comes twice or out of order shows.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last = ""

    def send(self, upload: Upload) -> Delivery:
        assert [self._last, *upload.event_ids] == sorted({self._last, *upload.event_ids})
        self._last = upload.event_ids[-1]
        self.count += len(upload.event_ids)
        return Delivery(Outcome.DELIVERED)

    def close(self) -> None:
        """Hold nothing."""


def await_(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 1_800
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def test_a_reader_that_stays_in_the_past(
    config: Callable[..., APIConfig], full: bool, tell: Callable[[str], None]
) -> None:
    """While another program reads an old state, SQLite's log grows; afterwards it is cut again."""
    events = 20_000 if full else 1_000
    settings = config(base_url="http://127.0.0.1:9")
    outbox = Outbox(settings)
    outbox.append(make_event("test.noted", {"n": 0}))
    wal = settings.outbox_path.with_name(settings.outbox_path.name + "-wal")
    with closing(sqlite3.connect(settings.outbox_path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
        for number in range(events):
            outbox.append(make_event("test.noted", {"n": number, "text": "x" * 400}))
        held = os.stat(wal).st_size  # noqa: PTH116 - beside the next
        reader.execute("COMMIT")
    for number in range(events // 2):
        outbox.append(make_event("test.noted", {"n": number}))
    freed = wal.stat().st_size
    outbox.close()
    tell(
        f"{events} events beside an old reader: log {held / MB:.0f} MB "
        f"({held / events / 1e3:.1f} kB an event), {freed / MB:.1f} MB after it",
    )
    assert freed < 64 * MB
