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
    # The digests of up to 1,000 removed events stay until the next checkpoint.
    assert used[-1]["file_mb"] < 2 * min(hour["file_mb"] for hour in used[::4]) + 0.1


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
        both = zip(upload.event_ids, upload.events, strict=True)
        ids = [event_id for event_id, event in both if b'"integrity.checkpoint"' not in event]
        assert [self._last, *ids] == sorted({self._last, *ids})
        self._last = [self._last, *ids][-1]
        self.count += len(ids)
        return Delivery(Outcome.DELIVERED)

    def close(self) -> None:
        """Hold nothing."""


def await_(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 1_800
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


SALVAGE = """
import resource, sys, time
from tracker import APIConfig
from tracker.outbox.outbox import Outbox

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000

settings = APIConfig(client_id="c", api_key="k", base_url="http://127.0.0.1:9",
                     outbox_path=sys.argv[1], chain_key="a chain key of the tests")
before, began = peak(), time.monotonic()
outbox = Outbox(settings)
took = time.monotonic() - began
with outbox.reading() as connection:
    rows = connection.exec_driver_sql("SELECT count(*) FROM events").scalar()
outbox.close()
print(rows, peak() - before, took)
"""


def test_a_salvage_of_a_large_outbox(
    config: Callable[..., APIConfig], full: bool, tell: Callable[[str], None]
) -> None:
    """It takes no more memory than one of a small outbox."""
    rows = 200_000 if full else 20_000
    settings = config(base_url="http://127.0.0.1:9", client_id="c")
    fill(settings, rows)
    size = settings.outbox_path.stat().st_size
    with settings.outbox_path.open("r+b") as file:
        file.write(bytes(90))
    program = [sys.executable, "-c", SALVAGE, str(settings.outbox_path)]
    output = subprocess.run(program, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    salvaged, grown_mb, took = map(float, output.split())
    tell(
        f"salvage of a large outbox | {rows:,} rows, {size / MB:.0f} MB | 0 lost | {took:.0f} s, "
        f"memory + {grown_mb:.0f} MB"
    )
    assert salvaged == rows
    assert grown_mb <= 20


def test_a_reader_that_stays_in_the_past(
    config: Callable[..., APIConfig], full: bool, tell: Callable[[str], None]
) -> None:
    """While another program reads an old state, the log grows, and starts over afterwards."""
    events = 50_000 if full else 4_000
    settings = config(base_url="http://127.0.0.1:9")
    wal = settings.outbox_path.with_name(settings.outbox_path.name + "-wal")
    largest = 0
    delivered = Counting()
    with AgentPerformanceTracker(settings, destination=lambda: delivered) as tracker:
        tracker.log_user_message("session", "first")
        assert tracker.flush(timeout=60).pending == 0
        with closing(sqlite3.connect(settings.outbox_path)) as reader:
            reader.execute("BEGIN")
            before = reader.execute("SELECT count(*) FROM events").fetchone()
            for number in range(events):
                tracker.log_user_message("session", f"{number} " + "x" * 400)
                if number % 100 == 0:
                    largest = max(largest, os.stat(wal).st_size)  # noqa: PTH116 - beside the next
            assert reader.execute("SELECT count(*) FROM events").fetchone() == before
            assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert tracker.flush(timeout=60).pending == 0
        tracker.log_user_message("session", "last")
        assert tracker.flush(timeout=60).pending == 0
        health = tracker.health()
    tell(
        f"a reader of an old state | {events:,} events beside it | log {largest / MB:.0f} MB at "
        f"most, {health.log_bytes / MB:.1f} MB after it",
    )
    assert delivered.count == events + 2
    assert health.log_bytes < 24 * MB
