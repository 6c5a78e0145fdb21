"""The outbox deleted, moved, replaced or cut off under a running tracker, and its lock file too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT
from tests.support.opened import client_of
from tracker import Tracker
from tracker.outbox.outbox import Outbox
from tracker.outbox.recovery.supervisor import Supervisor
from tracker.outbox.sqlite.engine import PAGE_BYTES
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MakeConfig


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "check_seconds", 0.1)


class Switch(RecordingDestination):
    """A server that is away until `up` is set."""

    def __init__(self) -> None:
        self.up = False
        super().__init__(lambda _: Delivery(Outcome.DELIVERED if self.up else Outcome.UNAVAILABLE))

    @property
    def ids(self) -> list[str]:
        return [event["event_id"] for event in self.events]


def until(true: Callable[[], object], seconds: float = 120) -> None:
    """Wait until it is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def delete_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def replace(path: Path) -> None:
    """Put another outbox of the same owner there, as somebody does who restores a backup."""
    delete(path)
    shutil.copy(path.with_name("other"), path)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


@pytest.mark.faults
@pytest.mark.parametrize("how", [delete, delete_all, move, replace, cut_to_nothing, cut_in_half])
@pytest.mark.parametrize("quiet", [True, False], ids=["sync thread", "next call"])
def test_a_replaced_outbox_is_noticed_and_nothing_pending_is_lost(
    config: MakeConfig,
    how: Callable[[Path], None],
    quiet: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By the sync thread or by the next call; what was pending arrives, once; the log says so."""
    settings = config()
    Outbox(config(outbox_path=settings.outbox_path.with_name("other"))).close()
    server = Switch()
    with Tracker(settings, destination=lambda: server) as tracker:
        logged = [tracker.track("thing.happened", {"n": n, "text": "x" * 500}) for n in range(60)]
        outbox = client_of(settings.outbox_path).outbox
        outbox.empty_log()
        logged += [tracker.track("thing.happened", {"n": n}) for n in range(5)]
        before = outbox.generation
        how(settings.outbox_path)
        if not quiet:
            logged.append(tracker.track("thing.happened", {"n": 99}))
        until(lambda: outbox.generation > before)
        until(lambda: not tracker.health().in_memory)
        logged.append(tracker.track("thing.happened", {"n": 100}))
        server.up = True
        assert tracker.flush(20).pending == 0
        health = tracker.health()
        assert tracker.security.verify_integrity().ok
    lost = set(logged) - set(server.ids)
    if how in (cut_to_nothing, cut_in_half):  # the bytes are gone; how many events is told
        assert len(lost) < 60
        assert health.discarded["damage"] == len(lost)
    else:
        assert lost == set()
    assert len(server.ids) == len(set(server.ids))
    assert settings.outbox_path.stat().st_size > 0
    assert any(record.levelname == "ERROR" for record in caplog.records)
    assert bool(health.damaged_sets) == (how in (cut_to_nothing, cut_in_half))


def damage_indexes(path: Path) -> None:
    """Zero in the log what leads to the rows, and none of the rows."""
    with path.with_name(f"{path.name}-wal").open("r+b") as log:
        size = log.seek(0, 2)
        for offset in range(32 + 24, size - PAGE_BYTES + 1, 24 + PAGE_BYTES):
            log.seek(offset)
            if log.read(1)[0] in (2, 5, 10):
                log.seek(offset)
                log.write(bytes(PAGE_BYTES))


LOGGER = """
import sys
from tracker import APIConfig, Tracker
from tracker.outbox.recovery.supervisor import Supervisor
Supervisor.check_seconds = 0.1
config = APIConfig(api_key="k", client_id="test-client", outbox_path=sys.argv[1], on_error="raise",
                   base_url="http://127.0.0.1:9")
with Tracker(config) as tracker:
    print("ready", flush=True)
    for line in sys.stdin:
        print(tracker.track("thing.happened", {"text": "x" * 300}), flush=True)
"""


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_processes_agree_on_one_new_outbox(
    config: MakeConfig, full: bool, tell: Callable[[str], None]
) -> None:
    """Eight processes log while the file is damaged under them: one salvages, all go on in one."""
    settings = config()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOGGER, str(settings.outbox_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(8 if full else 4)
    ]
    acknowledged: list[str] = []

    def everybody_logs(times: int) -> None:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n" * times)
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            acknowledged.extend(process.stdout.readline().strip() for _ in range(times))

    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    everybody_logs(50)
    damage_indexes(settings.outbox_path)
    everybody_logs(50)
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    server = Switch()
    server.up = True
    with Tracker(config(base_url="http://127.0.0.1:9"), destination=lambda: server) as tracker:
        assert tracker.flush(20).pending == 0
        assert tracker.security.verify_integrity().ok
        sets = tracker.health().damaged_sets
    assert "" not in acknowledged
    missing = set(acknowledged) - set(server.ids)
    tell(
        f"damage under {len(processes)} processes | {len(acknowledged)} acknowledged | "
        f"{len(missing)} lost | {len(sets)} sets aside"
    )
    assert missing == set()
    assert len(sets) == 1


@pytest.mark.parametrize("name", ["lock", "sync-lock"])
def test_a_deleted_lock_file_does_not_split_the_lock(config: MakeConfig, name: str) -> None:
    """After the next look both hold to the same file again."""
    settings = config()
    one, other = Outbox(settings), None
    try:
        path = settings.outbox_path.with_name(f"{settings.outbox_path.name}.{name}")
        one.run(lambda _: None)
        assert one.upload_lock.try_acquire()
        path.unlink()
        other = Outbox(settings)
        other.run(lambda _: None)
        assert name == "lock" or other.upload_lock.try_acquire()  # split: both have it
        one.maintain(now=True)
        one.run(lambda _: None)
        lock = one.upload_lock if name == "sync-lock" else one.connections.lock
        assert not lock.is_replaced()
        assert name == "lock" or not one.upload_lock.try_acquire()
    finally:
        one.close()
        if other is not None:
            other.close()
