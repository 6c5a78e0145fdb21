"""A full disk: events wait in memory, while uploading and the freeing of space go on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.opened import client_of
from tracker import Tracker, TrackerError
from tracker.outbox.outbox import Outbox
from tracker.outbox.recovery.supervisor import Supervisor
from tracker.outbox.store.ballast import BALLAST_BYTES, Ballast
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker import APIConfig


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB, gone with the test."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(folder: Path) -> Path:
    """Take all the room that is left."""
    path = folder / "hog"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.faults
def test_uploading_goes_on_and_makes_room(
    small_disk: Path,
    config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    tell: Callable[[str], None],
) -> None:
    """With not a byte free: receipts are recorded, delivered events go, and logging goes on."""
    monkeypatch.setattr(Supervisor, "check_seconds", 0.1)
    up = False
    server = RecordingDestination(
        lambda _: Delivery(Outcome.DELIVERED if up else Outcome.UNAVAILABLE)
    )
    settings = config(outbox_path=small_disk / "outbox.sqlite3")
    with Tracker(settings, destination=lambda: server) as tracker:
        ballast = Ballast(settings.outbox_path).path
        assert ballast.exists(), "a job may be killed within its first second"
        logged = [tracker.track("thing.happened", {"text": "x" * 600}) for _ in range(500)]
        fill_up(small_disk)
        while not tracker.health().in_memory:
            logged.append(tracker.track("thing.happened", {"text": "x" * 600}))
        at_worst = tracker.health()
        up = True
        until(lambda: tracker.flush(1).pending == 0)
        until(lambda: set(logged) <= {event["event_id"] for event in server.events})
        until(ballast.exists)
        logged += [tracker.track("thing.happened", {"text": "x" * 600}) for _ in range(50)]
        assert tracker.flush(20).pending == 0
        after = tracker.health()
        assert tracker.security.verify_integrity().ok
    arrived = [event["event_id"] for event in server.events]
    tell(
        f"full disk | {len(logged)} logged, {at_worst.pending} pending and {at_worst.in_memory} in "
        f"memory when full | {len(set(logged) - set(arrived))} lost"
    )
    assert sorted(arrived) == sorted(logged)
    assert at_worst.storage_error is not None
    assert "full" in at_worst.storage_error
    assert not at_worst.ok
    assert after.ok
    assert after.discarded == {}


PHASES: dict[str, Callable[[Tracker, APIConfig], object]] = {
    "logging much": lambda tracker, _: [
        tracker.track("thing.happened", {"text": "x" * 100_000}) for _ in range(5)
    ],
    "uploading": lambda tracker, _: tracker.flush(1),
    "pruning": lambda tracker, _: outbox_of(tracker).prune(0),
    "erasing": lambda tracker, _: tracker.compliance.erase_subject("somebody"),
    "emptying the log": lambda tracker, _: outbox_of(tracker).empty_log(),
    "reading": lambda tracker, _: tracker.performance.get_metrics(),
    "opening it once more": lambda _, settings: Outbox(settings).close(),
    "making another one": lambda _, settings: Outbox(
        replace(settings, outbox_path=settings.outbox_path.with_name("another.sqlite3"))
    ).close(),
    "looking at the files": lambda tracker, _: outbox_of(tracker).maintain(now=True),
}


_SHORT = ("logging much", "uploading", "erasing")


def outbox_of(tracker: Tracker) -> Outbox:
    return client_of(tracker.config.outbox_path).outbox


@pytest.mark.faults
@pytest.mark.parametrize("phase", PHASES)
def test_a_disk_that_is_full_at_any_moment(
    phase: str,
    small_disk: Path,
    config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
    tell: Callable[[str], None],
) -> None:
    """It fails by the package's own errors or goes on; with room again all is well and arrives.

    The ballast is gone already, so there is nothing to give up.
    """
    if not full and phase not in _SHORT:
        pytest.skip("with --full")
    monkeypatch.setattr(Supervisor, "check_seconds", 0.1)
    server = RecordingDestination()
    settings = config(outbox_path=small_disk / "outbox.sqlite3", durability="full")
    with Tracker(settings, destination=lambda: server) as tracker:
        logged = [
            tracker.track("thing.happened", {"text": "x" * 600}, user_id="somebody")
            for _ in range(200)
        ]
        until(Ballast(settings.outbox_path).path.exists)
        hog = fill_up(small_disk)
        Ballast(settings.outbox_path).path.unlink()
        with hog.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        with contextlib.suppress(TrackerError):
            PHASES[phase](tracker, settings)
        while not tracker.health().in_memory:
            logged.append(tracker.track("thing.happened", {"text": "y" * 600}))
        hog.unlink()
        until(lambda: tracker.health().storage_error is None and not tracker.health().in_memory)
        logged.append(tracker.track("thing.happened", {"text": "fresh"}))
        assert tracker.flush(20).pending == 0
        assert tracker.security.verify_integrity().ok
        health = tracker.health()
    arrived = [event["event_id"] for event in server.events]
    assert set(logged) <= set(arrived)
    assert len(set(arrived)) == len(arrived)
    assert (dict(health.discarded), health.damaged_sets) == ({}, ())
    tell(f"full disk while {phase} | {len(logged)} events | 0 lost |")


def test_the_ballast_is_laid_given_up_and_laid_again(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Never on a disk that has not room for it twice; and it is all there, not a hole."""
    ballast = Ballast(small_disk / "outbox")
    assert ballast.create()
    assert ballast.path.stat().st_blocks * 512 >= BALLAST_BYTES
    assert ballast.path.stat().st_mode & 0o777 == 0o600
    hog = fill_up(small_disk)
    assert ballast.free()
    assert not ballast.create()
    assert not ballast.free()
    hog.unlink()
    assert ballast.create()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
