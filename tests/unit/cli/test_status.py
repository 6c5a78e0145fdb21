"""`tracker-sync status`: the figures, and that they cost nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import an_event, call, call_json, fill, settle
from tracker.outbox import status
from tracker.outbox.files.file_lock import FileLock
from tracker.outbox.maintenance.retention import discard_oldest
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, settlement, sync_state
from tracker.outbox.schema import tables
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from tests.conftest import MakeConfig


def test_the_account_and_the_oldest(config: MakeConfig) -> None:
    """All kinds of events, and when the first pending one was logged."""
    now = time.time_ns() // 1_000_000
    fill(config(), [an_event(timestamp_ms=now - 7_200_000 + n) for n in range(6)])
    settle(config(), 3, dead=[2])
    found = call_json("--outbox", config().outbox_path, "status")
    assert [found[n] for n in ("accepted", "delivered", "dead", "pending")] == [6, 2, 1, 3]
    assert (found["oldest_pending_seq"], found["oldest_pending_ms"]) == (4, now - 7_200_000 + 3)
    assert found["last_success_ms"] >= now
    assert (found["last_seq"], found["revision"], found["discarded"]) == (6, tables.HEAD, {})
    assert found["files"]["outbox.sqlite3"] >= found["used_bytes"] > 10_000
    shown = call("--outbox", config().outbox_path, "status").stdout
    assert "pending       3, the oldest logged " in shown
    assert "(2 h 0 min ago)" in shown
    assert "tracker-sync dead list" in shown
    assert "not running (start the application" in shown


def test_what_was_discarded_is_told_with_the_reason(config: MakeConfig) -> None:
    """In text and in JSON."""
    fill(config(), 4)
    outbox = Outbox(config())
    outbox.run(discard_oldest)
    outbox.run(lambda job: ledger.discard(job.connection, ledger.BY_BUFFER, 5))
    outbox.close()
    found = call_json("--outbox", config().outbox_path, "status")
    assert found["discarded"] == {"memory_buffer": 5, "size_policy": 4}
    assert (found["accepted"], found["pending"]) == (10, 1), "the event that tells the receiver"
    shown = call("--outbox", config().outbox_path, "status").stdout
    assert "discarded, size_policy    4\n" in shown


def test_trouble_is_told(config: MakeConfig) -> None:
    """The last error, why it pauses, and when it goes on."""
    fill(config())
    now = time.time_ns() // 1_000_000
    outbox = Outbox(config())
    trouble: dict[str, Any] = {
        "last_error": "the server refuses the API key\x1b[2J",
        "last_error_ms": now,
        "next_attempt_ms": now + 60_000,
        "paused_because": "the server refuses the API key",
    }
    outbox.run(sync_state.write_state(**trouble))
    assert outbox.upload_lock.try_acquire()
    found = call_json("--outbox", config().outbox_path, "status")
    shown = call("--outbox", config().outbox_path, "status").stdout
    outbox.close()
    assert {name: found[name] for name in trouble} == trouble
    assert found["uploader_running"] is True
    assert "uploader        running\n" in shown
    assert r": the server refuses the API key\x1b[2J" in shown
    assert "paused because  the server refuses the API key\nnext attempt" in shown


def test_asking_for_the_uploader_leaves_no_lock(config: MakeConfig) -> None:
    """Neither the lock held nor, where there was none, its file."""
    fill(config())
    lock = FileLock(config().outbox_path.with_name("outbox.sqlite3.sync-lock"))
    assert call_json("--outbox", config().outbox_path, "status")["uploader_running"] is False
    assert not lock.path.exists()
    assert lock.try_acquire()
    lock.release()
    assert call_json("--outbox", config().outbox_path, "status")["uploader_running"] is False
    assert lock.try_acquire()
    lock.close()


@pytest.mark.parametrize("pending", [0, 1])
def test_no_figure_comes_from_counting_rows(config: MakeConfig, pending: int) -> None:
    """SQLite takes hardly more steps for 5,000 rows than for 50."""

    def steps(rows: int) -> int:
        settings = config(outbox_path=config().outbox_path.with_name(f"{rows}"))
        outbox = Outbox(settings)
        events = [an_event() for _ in range(rows + pending)]
        outbox.run(lambda transaction: [transaction.append(event) for event in events])
        with outbox.reading() as connection:
            batch = batches.next_batch(connection, rows, 1 << 30)
        outbox.run(settlement.settle(batch))
        taken = 0

        def count() -> None:
            nonlocal taken
            taken += 1

        with outbox.snapshot() as connection:
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(count, 10)
            found = status.read(connection)
        outbox.close()
        assert (found.account.delivered, found.account.pending) == (rows, pending)
        return taken

    assert steps(5_000) < steps(50) + 20


def test_events_that_wait_in_another_outbox_are_named(config: MakeConfig) -> None:
    """As when the client id was forgotten once: `status` and `doctor` say which, and what sends."""
    folder = config().outbox_path.parent
    fill(config(client_id="made-up", outbox_path=folder / "other one.sqlite3"), 2)
    fill(config(client_id="sent", outbox_path=folder / "sent.sqlite3"), 1)
    settle(config(client_id="sent", outbox_path=folder / "sent.sqlite3"), 1)
    (folder / "notes.sqlite3").write_text("no outbox")
    call("--outbox", folder / "other one.sqlite3", "backup", folder / "copy.sqlite3")
    fill(config(), 1)
    path = config().outbox_path
    sends = f"tracker-sync --outbox '{folder / 'other one.sqlite3'}' flush"
    shown = call("--outbox", path, "status").stdout
    assert f"2 events of client made-up pending in another outbox; to send them: {sends}" in (shown)
    assert shown.count("another outbox") == 1
    (waiting,) = call_json("--outbox", path, "status")["waiting_beside"]
    assert (waiting["client_id"], waiting["pending"]) == ("made-up", 2)
    assert sends in call("--outbox", path, "doctor").stdout
