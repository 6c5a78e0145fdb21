"""Another file, or none, is at the path of an outbox in use: nothing that was stored is lost."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call
from tracker import OutboxError
from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.store.write_connection import SURE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig


@pytest.fixture
def outbox(config: MakeConfig, tmp_path: Path) -> Iterator[Outbox]:
    """An outbox in a folder of its own that has had checkpoints and has a log."""
    opened = Outbox(config(outbox_path=tmp_path / "folder" / "o.sqlite3", durability="process"))
    log(opened, 300)
    yield opened
    opened.close()


def log(outbox: Outbox, count: int) -> None:
    outbox.append_all([make_event("test.noted", {"pad": "x" * 3_000}) for _ in range(count)])


def stored(path: Path) -> int:
    """Return how many events a sound file holds."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert call("--outbox", path, "verify").exit_code == 0
    return int(count)


def go_on(outbox: Outbox) -> None:
    """Do what the sync thread does, and log one more event."""
    try:
        outbox.maintain(now=True)
    finally:
        log(outbox, 1)


def test_an_older_copy_that_is_moved_over_it_does_not_meet_the_log_beside_it(
    outbox: Outbox,
) -> None:
    """Together they would be neither state: SQLite would call the file malformed."""
    copy = outbox.path.with_name("copy")
    with closing(sqlite3.connect(copy)) as target, closing(sqlite3.connect(outbox.path)) as source:
        source.backup(target)
    log(outbox, 2_000)
    log(outbox, 30)
    copy.replace(outbox.path)
    go_on(outbox)
    assert stored(outbox.path) == 2_331


def test_its_folder_is_deleted(outbox: Outbox) -> None:
    """It is made again, and filled with what the open file still held."""
    shutil.rmtree(outbox.path.parent)
    go_on(outbox)
    assert stored(outbox.path) == 301


def test_an_event_finds_its_folder_gone(outbox: Outbox) -> None:
    """It is stored at once, with all that the open file still held."""
    shutil.rmtree(outbox.path.parent)
    threading.Event().wait(2 * SURE_SECONDS)
    log(outbox, 1)
    assert outbox.buffered == 0
    assert stored(outbox.path) == 301


def test_the_next_look_finds_it_gone(outbox: Outbox) -> None:
    """Though all was well a moment ago, and nothing is logged that would find it out."""
    outbox.maintain(now=True)
    outbox.path.unlink()
    outbox.maintain()
    assert stored(outbox.path) == 300


def test_a_look_that_finds_everything_in_place_writes_nothing(outbox: Outbox) -> None:
    """It comes every second, and a device may have a battery or a memory card."""
    assert outbox.maintain(now=True)
    assert not outbox.maintain()
    outbox.close_connections()
    assert not outbox.maintain(), "nor where no connection is open"


@pytest.mark.parametrize("call", ["append", "append_all"])
def test_it_is_deleted_while_an_event_is_being_stored(outbox: Outbox, call: str) -> None:
    """The event is in the file that takes its place before its call returns."""
    event = make_event("test.noted", {"late": True})
    work = outbox.append if call == "append" else lambda one: outbox.append_all([one])
    outbox.append(make_event("test.noted", {}))
    with closing(sqlite3.connect(outbox.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        logging = threading.Thread(target=work, args=[event])
        logging.start()
        logging.join(0.1)
        assert logging.is_alive(), "it waits for the other program"
        outbox.path.unlink()
        other.execute("ROLLBACK")
        logging.join(30)
    with closing(sqlite3.connect(outbox.path)) as connection:
        found = connection.execute("SELECT event_id FROM events ORDER BY seq DESC").fetchone()
    assert found == (event.event_id,)
    assert stored(outbox.path) == 302


def test_its_folder_is_away_for_a_while(outbox: Outbox) -> None:
    """What the open file holds is kept until it can be stored again."""
    parent = outbox.path.parent
    shutil.rmtree(parent)
    parent.write_text("in the way")
    for _ in range(3):
        with pytest.raises(OutboxError):
            outbox.maintain(now=True)
        log(outbox, 1)
    parent.unlink()
    outbox.maintain(now=True)
    outbox.drain_buffer()
    assert stored(outbox.path) == 303


@pytest.mark.parametrize("size", [0, 1, 99, 512, 5_000])
def test_a_file_of_another_kind_is_moved_over_it(outbox: Outbox, size: int) -> None:
    """It is put aside, like a damaged one."""
    other = outbox.path.with_name("other")
    other.write_bytes(b"x" * size)
    other.replace(outbox.path)
    go_on(outbox)
    assert stored(outbox.path) == 301


def test_it_is_deleted_again_before_all_of_it_is_stored_in_the_new_one(outbox: Outbox) -> None:
    """Whatever was taken out of several files is stored once."""
    for _ in range(5):
        outbox.path.unlink()
        log(outbox, 1)
        outbox.path.unlink(missing_ok=True)
        outbox.maintain(now=True)
    go_on(outbox)
    assert stored(outbox.path) == 306
