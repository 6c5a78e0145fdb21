"""Bursts, outages, large outboxes and long readers: what the process and the files use."""

from __future__ import annotations

import json
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


def print_fault(capsys: pytest.CaptureFixture[str], full: bool, figures: str) -> None:
    if full:
        with capsys.disabled():
            print(f"fault: {figures}")  # noqa: T201 - the suite's result


def test_a_day_of_a_device(
    config: Callable[..., APIConfig],
    tmp_path: Path,
    full: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """24 hours of bursts, outages and restarts: nothing lost, and nothing in use grows."""
    hours, events = 24, 4_000 if full else 200
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
    print_fault(
        capsys, full, f"a day, {len(arrived)} events, 0 lost, grown {grown}, last {later[-1]}"
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
    config: Callable[..., APIConfig], full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Millions of pending rows cost neither time at opening and logging nor memory at sending."""
    rows, sent_at_least = (5_000_000, 200_000) if full else (20_000, 10_000)
    settings = config(base_url="http://127.0.0.1:9")
    fill(settings, rows)
    size = settings.outbox_path.stat().st_size
    sent = 0

    def count(upload: Upload) -> Delivery:
        nonlocal sent
        sent += len(upload.events)
        return Delivery(Outcome.DELIVERED)

    began = time.monotonic()
    tracker = AgentPerformanceTracker(settings, destination=lambda: Counting(count))
    tracker.log_user_message("session", "first")
    opened = time.monotonic() - began
    await_(lambda: sent >= sent_at_least // 4)
    warm = rss_mb()
    await_(lambda: sent >= sent_at_least)
    grown = rss_mb() - warm
    tracker.close()
    print_fault(
        capsys,
        full,
        f"{rows} pending rows, {size / MB:.0f} MB: open and log {opened:.2f} s, "
        f"{sent} sent, RSS grown by {grown:.1f} MB",
    )
    assert opened < 5
    assert grown <= 10


class Counting:
    """A destination that keeps nothing."""

    def __init__(self, send: Callable[[Upload], Delivery]) -> None:
        self.send = send

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
    config: Callable[..., APIConfig], full: bool, capsys: pytest.CaptureFixture[str]
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
    print_fault(
        capsys,
        full,
        f"salvage of {rows} rows, {size / MB:.0f} MB: {took:.0f} s, memory + {grown_mb:.0f} MB",
    )
    assert salvaged == rows
    assert grown_mb <= 20


def test_the_file_shrinks(
    config: Callable[..., APIConfig], full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """After delivery and pruning the file is small again; calls go on meanwhile."""
    rows = 200_000 if full else 5_000
    settings = config(base_url="http://127.0.0.1:9")
    fill(settings, rows)
    before = settings.outbox_path.stat().st_size
    delivered = Counting(lambda _: Delivery(Outcome.DELIVERED))
    with AgentPerformanceTracker(settings, destination=lambda: delivered) as tracker:
        assert tracker.flush(timeout=1_000).pending == 0
    began = time.monotonic()
    outbox = Outbox(settings)
    outbox.prune(0)
    outbox.append(make_event("test.noted", {}))
    outbox.close()
    after = settings.outbox_path.stat().st_size
    print_fault(
        capsys,
        full,
        f"{rows} rows delivered and pruned in {time.monotonic() - began:.0f} s: "
        f"{before / MB:.1f} MB, then {after / MB:.2f} MB",
    )
    assert after < before / 10


def test_a_reader_that_stays_in_the_past(
    config: Callable[..., APIConfig], full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """While another program reads an old state, SQLite's log stays small, and it reads on."""
    events = 50_000 if full else 4_000
    settings = config(base_url="http://127.0.0.1:9")
    wal = settings.outbox_path.with_name(settings.outbox_path.name + "-wal")
    largest = 0
    delivered = Counting(lambda _: Delivery(Outcome.DELIVERED))
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
        health = tracker.health()
    print_fault(
        capsys,
        full,
        f"{events} events beside an old reader: log {largest / MB:.0f} MB at most "
        f"(without a copy {events * 0.02:.0f} MB), {health.log_bytes / MB:.1f} MB after it",
    )
    assert health.delivered == events + 1
    assert largest < 64 * MB
