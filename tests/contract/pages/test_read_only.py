"""Looking at an outbox changes nothing, and what happens to the file is said on the page."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.contract.pages.conftest import path_of, talk
from tests.support.cli import ROOT, call, call_json
from tests.support.dashboard import PAGES, running
from tests.support.next_version import NextVersion
from tests.support.settings import quick
from tracker import Tracker
from tracker.dashboard.outbox_source import OutboxSource
from tracker.outbox import status
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tracker.config import APIConfig

UNREADABLE = "The outbox cannot be read."


@pytest.fixture
def config(tmp_path: Path) -> APIConfig:
    made = quick(tmp_path)
    with Tracker(made, destination=RecordingDestination) as tracker:
        talk(tracker)
        tracker.flush(10)
    return made


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


def test_a_session_of_a_hundred_pages_changes_no_byte(config: APIConfig) -> None:
    """No file is changed, and none is left beside the outbox; it verifies as before."""
    path = path_of(config)
    before = digests(path.parent)
    with running(path) as board:
        for _ in range(12):
            for page in PAGES:
                assert board.get(page).status == 200
        assert board.get("/conversation", id="order-7").status == 200
        assert board.post("/verify", csrf=board.csrf()).status == 303
    assert digests(path.parent) == before
    assert call("--outbox", path, "verify").exit_code == 0


def test_what_is_left_in_the_log_is_read_and_left_there(config: APIConfig) -> None:
    """As after a kill: the newest events are in the log only."""
    path = path_of(config)
    copy = path.parent / "killed" / "outbox.sqlite3"
    copy.parent.mkdir()
    with Tracker(config, destination=RecordingDestination) as tracker:
        talk(tracker, "order-8")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    before = digests(copy.parent)
    with running(copy) as board:
        assert board.get("/conversation", id="order-8").status == 200
    assert digests(copy.parent) == before


def test_an_application_that_logs_meanwhile_is_seen_and_not_disturbed(config: APIConfig) -> None:
    """Each page shows what was logged just before, and the log does not grow by the reading."""
    path = path_of(config)
    with running(path) as board, Tracker(config, destination=RecordingDestination) as tracker:
        for number in range(20):
            talk(tracker, f"seen-{number}")
            assert f"seen-{number}" in board.get("/events").text
            assert board.get("/").status == 200
        tracker.flush(10)
        found = tracker.health()
    assert found.accepted == found.delivered + found.pending
    assert found.log_bytes < 8_000_000


def test_an_outbox_that_is_not_there_yet_comes(tmp_path: Path) -> None:
    """The dashboard can be started first; it makes no file."""
    config = quick(tmp_path / "folder")
    path = path_of(config)
    with running(path) as board:
        for page in PAGES:
            assert board.get(page).status == 200, page
        assert not path.parent.exists()
        assert f"The outbox will be at {path}" in board.get("/").text
        with Tracker(config, destination=RecordingDestination) as tracker:
            talk(tracker)
        assert "order-7" in board.get("/conversations").text


@pytest.mark.parametrize("page", ["/", "/events", "/health"])
def test_a_deleted_file_is_said(config: APIConfig, page: str) -> None:
    """It is no empty outbox: what was in it is gone."""
    path = path_of(config)
    with running(path) as board:
        assert board.get(page).status == 200
        path.unlink()
        answer = board.get(page)
        assert answer.status == 503
        assert UNREADABLE in answer.text
        assert not path.exists()


def test_an_emptied_file_is_said(config: APIConfig) -> None:
    """It is no outbox of an older version, of which `migrate` would make an empty one."""
    path = path_of(config)
    with running(path) as board:
        assert board.get("/").status == 200
        os.truncate(path, 0)
        answer = board.get("/")
        assert answer.status == 503
        assert "was emptied" in answer.text
        assert "migrate" not in answer.text


@pytest.mark.parametrize("emptied", [True, False])
def test_a_log_without_its_file_is_said(config: APIConfig, *, emptied: bool) -> None:
    """It may hold events: to say that nothing was logged yet would deny them."""
    path = path_of(config)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE sync_state SET last_error = 'said'")
        connection.commit()
        log = path.with_name(path.name + "-wal").read_bytes()
    assert log
    path.unlink()
    if emptied:
        path.touch()
    path.with_name(path.name + "-wal").write_bytes(log)
    with running(path) as board:
        answer = board.get("/")
        assert answer.status == 503
        assert UNREADABLE in answer.text


def test_another_outbox_at_its_path_is_said(config: APIConfig, tmp_path: Path) -> None:
    """Its figures would be taken for those of the first."""
    path = path_of(config)
    other = quick(tmp_path / "other", client_id="another-client")
    with Tracker(other, destination=RecordingDestination) as tracker:
        talk(tracker, "not-mine")
    with running(path) as board:
        assert board.get("/").status == 200
        path.unlink()
        shutil.copy(path_of(other), path)
        answer = board.get("/conversations")
        assert answer.status == 503
        assert "Another outbox is at" in answer.text
        assert "not-mine" not in answer.text


def test_a_damaged_file_is_said_with_what_helps(config: APIConfig) -> None:
    """The command does it; the dashboard salvages nothing."""
    path = path_of(config)
    with path.open("r+b") as file:
        file.write(b"\0" * 4_096)
    before = digests(path.parent)
    with running(path) as board:
        answer = board.get("/")
    assert answer.status == 503
    assert UNREADABLE in answer.text
    assert f"tracker-sync --outbox {path} doctor" in answer.text
    assert digests(path.parent) == before


def test_damage_in_the_middle_is_said(config: APIConfig) -> None:
    """On the page that meets it."""
    path = path_of(config)
    content = path.read_bytes()
    path.write_bytes(content[:1_024] + b"\xff" * (len(content) - 1_024))
    with running(path) as board:
        answer = board.get("/")
    assert answer.status == 503
    assert UNREADABLE in answer.text


def test_a_planted_trigger_is_refused(config: APIConfig) -> None:
    """As by every command."""
    path = path_of(config)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END")
    with running(path) as board:
        answer = board.get("/")
    assert answer.status == 503
    assert "which is not tracker" in answer.text


def test_another_revision_is_said_with_what_helps(
    config: APIConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is migrated by looking."""
    path = path_of(config)
    NextVersion(tmp_path / "scripts-of-it", monkeypatch).install()
    before = digests(path.parent)
    with running(path) as board:
        answer = board.get("/")
    assert answer.status == 503
    assert f"tracker-sync --outbox {path} migrate" in answer.text
    assert digests(path.parent) == before


def test_a_program_that_is_no_outbox_is_refused(tmp_path: Path) -> None:
    """Another program's database is not looked into."""
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE secrets (word)")
    with running(path) as board:
        answer = board.get("/")
    assert answer.status == 503
    assert "another program" in answer.text


def test_pruned_and_erased_meanwhile(config: APIConfig) -> None:
    """The account stays that of `status`, and erased words are on no page."""
    path = path_of(config)
    with running(path) as board:
        assert "Where is order 7?" in board.get("/conversation", id="order-7").text
        assert call("--outbox", path, "erase", "user_7", "--yes").exit_code == 0
        erased = board.get("/conversation", id="order-7").text
        assert "Where is order 7?" not in erased
        assert "Erased at somebody" in erased
        accepted = call_json("--outbox", path, "status")["accepted"]
        assert f"<dd>{accepted:,}</dd>" in board.get("/").text


_WRITER = """
import sys
from pathlib import Path
from tests.support.settings import quick
from tracker import Tracker
from tracker.outbox import status
from tracker.testing import RecordingDestination

with Tracker(quick(Path(sys.argv[1]).parent), destination=RecordingDestination) as tracker:
    print("ready", flush=True)
    while not Path(sys.argv[2]).exists():
        tracker.track("cart.abandoned", {"items": 3})
"""


def test_a_log_that_another_process_writes_is_not_taken_for_damaged(
    config: APIConfig, tmp_path: Path
) -> None:
    """However often it is looked at: the file of a busy application is sound."""
    path, stop = path_of(config), tmp_path / "stop"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(stop)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        for _ in range(15):  # each dashboard looks at file and log when it reads for the first time
            source = OutboxSource(path, "")
            assert source.read(status.read).account.accepted
    finally:
        stop.touch()
        writer.communicate(timeout=30)
    assert writer.returncode == 0
