"""Backups: a consistent copy, which is not taken for the outbox, and an outbox made of it."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tracker import ConfigurationError, Tracker
from tracker.cli.main import cli
from tracker.outbox.outbox import Outbox
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.conftest import MakeConfig


def run(*arguments: object) -> Result:
    env = {"SDK_API_KEY": "test-key"}
    return CliRunner().invoke(cli, [str(each) for each in arguments], env=env)


def away() -> RecordingDestination:
    return RecordingDestination(lambda _: Delivery(Outcome.UNAVAILABLE))


def test_what_was_pending_in_a_backup_is_sent_once(config: MakeConfig, tmp_path: Path) -> None:
    """The original and the restored outbox both send it, under the same ids."""
    settings = config()
    copy, new = tmp_path / "copy.sqlite3", tmp_path / "new.sqlite3"
    with Tracker(settings, destination=away) as tracker:
        logged = [tracker.track("thing.happened", {"n": n}) for n in range(20)]
        done = run("--outbox", settings.outbox_path, "backup", copy)
        assert done.exit_code == 0, done.output
        assert "20 events, 20 of them pending" in done.output
    done = run("--outbox", new, "restore", copy)
    assert done.exit_code == 0, done.output
    received = RecordingDestination()
    restored = config(outbox_path=new)
    with Tracker(restored, destination=lambda: received) as tracker:
        tracker.flush(10)
        assert tracker.security.verify_integrity().ok
    assert [event["event_id"] for event in received.events] == logged
    original, other = Outbox(settings), Outbox(restored)
    assert original.owner.outbox_id != other.owner.outbox_id
    original.close()
    other.close()


def test_a_backup_is_consistent_while_applications_write(
    config: MakeConfig, tmp_path: Path
) -> None:
    """It is one file, sound, with a prefix of what was logged."""
    settings = config(durability="process")
    stop = threading.Event()
    with Tracker(settings, destination=away) as tracker:

        def log() -> None:
            while not stop.is_set():
                tracker.track("thing.happened", {})

        thread = threading.Thread(target=log)
        thread.start()
        try:
            for n in range(3):
                done = run("--outbox", settings.outbox_path, "backup", tmp_path / f"{n}.sqlite3")
                assert done.exit_code == 0, done.output
        finally:
            stop.set()
            thread.join()
    for n in range(3):
        copy = tmp_path / f"{n}.sqlite3"
        assert copy.stat().st_mode & 0o777 == 0o600
        assert not copy.with_name(f"{copy.name}-wal").exists()
        assert run("--outbox", copy, "verify").exit_code == 0


def test_a_backup_is_not_taken_for_an_outbox(config: MakeConfig, tmp_path: Path) -> None:
    """A tracker, `flush` and `run` refuse it and say what to do; commands that read work."""
    settings = config()
    copy = tmp_path / "copy.sqlite3"
    with Tracker(settings, destination=away) as tracker:
        tracker.track("thing.happened", {})
        assert run("--outbox", settings.outbox_path, "backup", copy).exit_code == 0
    with pytest.raises(ConfigurationError, match="restore"):
        Tracker(config(outbox_path=copy))
    for command in ("flush", "run"):
        done = run("--outbox", copy, command)
        assert done.exit_code == 2
        assert "is a backup" in done.output
    for command in ("status", "list", "verify"):
        assert run("--outbox", copy, command).exit_code == 0


def test_nothing_that_is_there_is_replaced(config: MakeConfig, tmp_path: Path) -> None:
    """Neither by a backup nor by a restored outbox."""
    settings = config()
    copy = tmp_path / "copy.sqlite3"
    Outbox(settings).close()
    assert run("--outbox", settings.outbox_path, "backup", copy).exit_code == 0
    before = copy.read_bytes()
    done = run("--outbox", settings.outbox_path, "backup", copy)
    assert done.exit_code == 1
    assert "exists" in done.output
    assert copy.read_bytes() == before
    done = run("--outbox", settings.outbox_path, "restore", copy)
    assert done.exit_code == 1
    assert "exists" in done.output
    assert list(tmp_path.glob(".copy*")) == []


def test_verify_says_that_a_copied_file_may_lack_its_log(
    config: MakeConfig, tmp_path: Path
) -> None:
    """A copy of the main file alone is sound, as far as it goes."""
    settings = config()
    Outbox(settings).close()
    copy = tmp_path / "copy.sqlite3"
    with sqlite3.connect(settings.outbox_path) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    connection.close()
    done = run("--outbox", copy, "verify")
    assert "copy made without its -wal" in done.output
    assert "copy made without" not in run("--outbox", settings.outbox_path, "verify").output
