"""A full disk: events wait in memory, while uploading and the freeing of space go on."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tracker import Tracker
from tracker.outbox import file as outbox_file
from tracker.outbox.ballast import BALLAST_BYTES, Ballast
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig


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


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.faults
def test_uploading_goes_on_and_makes_room(
    small_disk: Path,
    config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With not a byte free: receipts are recorded, delivered events go, and logging goes on."""
    monkeypatch.setattr(outbox_file, "_LOOK_SECONDS", 0.1)
    up = False
    server = RecordingDestination(
        lambda _: Delivery(Outcome.DELIVERED if up else Outcome.UNAVAILABLE)
    )
    settings = config(outbox_path=small_disk / "outbox.sqlite3")
    with Tracker(settings, destination=lambda: server) as tracker:
        ballast = Ballast(settings.outbox_path).path
        until(ballast.exists)
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
    if full:
        with capsys.disabled():
            print(  # noqa: T201 - the figures are what it is for
                f"\nfault: full disk: {len(logged)} logged, {at_worst.pending} pending and "
                f"{at_worst.in_memory} in memory when full, {len(set(arrived))} arrived, "
                f"{sum(after.discarded.values())} lost"
            )
    assert sorted(arrived) == sorted(logged)
    assert at_worst.storage_error is not None
    assert "full" in at_worst.storage_error
    assert not at_worst.ok
    assert after.ok
    assert after.discarded == {}


def test_the_ballast_is_laid_given_up_and_laid_again(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Never on a disk that has not room for it twice; and it is all there, not a hole."""
    ballast = Ballast(small_disk / "outbox")
    assert ballast.lay()
    assert ballast.path.stat().st_blocks * 512 >= BALLAST_BYTES
    assert ballast.path.stat().st_mode & 0o777 == 0o600
    hog = fill_up(small_disk)
    assert ballast.free()
    assert not ballast.lay()
    assert not ballast.free()
    hog.unlink()
    assert ballast.lay()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
