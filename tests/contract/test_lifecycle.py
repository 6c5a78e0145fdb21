"""Trackers' lives: sharing, flushing, closing, and what the sync thread does meanwhile."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import opened
from tracker import AgentPerformanceTracker, ConfigurationError, FlushResult, TrackerClosedError
from tracker.outbox.maintenance.size_limit import SizeLimit
from tracker.outbox.outbox import Outbox
from tracker.outbox.sqlite.engine import OutboxConnection
from tracker.outbox.store.memory_buffer import MemoryBuffer
from tracker.sync.destination import Delivery, Outcome, Rejection, Upload
from tracker.sync.flush import Flush
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker import APIConfig

    MakeConfig = Callable[..., APIConfig]


def sync_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tracker-sync"]


def await_(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came true"
        threading.Event().wait(0.005)


def offline(_: Upload) -> Delivery:
    return Delivery(Outcome.UNAVAILABLE, "no answer from the server: it is unplugged")


def test_trackers_share_one_outbox_and_one_thread(config: MakeConfig) -> None:
    """Trackers of one configuration share outbox and thread; the last one closed stops it."""
    destination = RecordingDestination()
    first = AgentPerformanceTracker(config(), destination=lambda: destination)
    second = AgentPerformanceTracker(config())
    session_id = first.start_conversation("agent-1")
    second.log_user_message(session_id, "from the other tracker")
    assert first.flush().pending == 0
    assert len(sync_threads()) == 1
    first.close()
    second.log_user_message(session_id, "the other one goes on")
    assert second.close().pending == 0
    await_(lambda: not sync_threads())
    assert destination.closed
    assert [event["seq"] for event in destination.events] == [1, 2, 3]


def test_a_closed_tracker_refuses_calls(config: MakeConfig) -> None:
    """Every call after close raises TrackerClosedError; closing again does nothing."""
    tracker = AgentPerformanceTracker(config(), destination=RecordingDestination)
    tracker.close()
    assert tracker.close() == FlushResult()
    for call in (
        lambda: tracker.log_user_message("s", "m"),
        lambda: tracker.start_conversation("a"),
        lambda: tracker.end_conversation("s"),
        tracker.flush,
        tracker.__enter__,
    ):
        with pytest.raises(TrackerClosedError, match="was closed; make a new one"):
            call()


def test_closing_one_does_not_close_its_twin(config: MakeConfig) -> None:
    """Closing one tracker twice does not take the outbox from another one."""
    destination = RecordingDestination()
    first = AgentPerformanceTracker(config(), destination=lambda: destination)
    second = AgentPerformanceTracker(config())
    first.close()
    first.close()
    second.log_user_message("s", "still open")
    assert second.close().pending == 0
    assert len(destination.events) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are found in /proc")
def test_a_closed_tracker_has_no_file_of_the_outbox_open(config: MakeConfig) -> None:
    """Not even in its thread, which may be the last to use it."""
    with AgentPerformanceTracker(config(), destination=RecordingDestination) as tracker:
        tracker.start_conversation("agent")
        assert tracker.flush(10).pending == 0
    assert descriptors_below(config().outbox_path.parent) == []


def descriptors_below(folder: Path) -> list[str]:
    """Return the files in a folder that this process has open."""
    paths = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [path for path in paths if path.startswith(str(folder))]


def test_an_idle_tracker_takes_hardly_any_processor_time(config: MakeConfig) -> None:
    """Its thread sleeps until there is something to upload, or time to look for others' rows."""
    with AgentPerformanceTracker(config(), destination=RecordingDestination) as tracker:
        tracker.start_conversation("agent")
        assert tracker.flush(10).pending == 0
        threading.Event().wait(0.2)
        before = time.process_time()
        threading.Event().wait(0.5)
        assert time.process_time() - before < 0.1


def test_a_tracker_that_waits_for_more_events_takes_hardly_any_processor_time(
    config: MakeConfig,
) -> None:
    """Nor does the time for which it gathers events before it sends them."""
    settings = config(flush_interval=30)
    with AgentPerformanceTracker(settings, destination=RecordingDestination) as tracker:
        tracker.log_user_message("s", "first")
        assert tracker.flush(10).pending == 0
        tracker.log_user_message("s", "second")
        threading.Event().wait(0.2)
        before = time.process_time()
        threading.Event().wait(0.5)
        assert time.process_time() - before < 0.1


def test_events_are_gathered_for_longer_than_a_second_if_wanted(config: MakeConfig) -> None:
    """For as long as `flush_interval` says; a flush ends the wait."""
    destination = RecordingDestination()
    settings = config(flush_interval=30)
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        tracker.log_user_message("s", "sent at once, as all that is pending at the start")
        assert tracker.flush(10).pending == 0
        for pause in (1.2, 0.3):
            tracker.log_user_message("s", "m")
            threading.Event().wait(pause)
            assert destination.sizes == [1]
        assert tracker.flush(10).pending == 0
    assert destination.sizes == [1, 2]


def test_an_event_goes_out_as_soon_as_it_is_logged(config: MakeConfig) -> None:
    """A thread that has nothing to do is woken by it, and not by the clock."""
    destination = RecordingDestination()
    with AgentPerformanceTracker(config(), destination=lambda: destination) as tracker:
        assert tracker.flush(10).pending == 0
        began = time.monotonic()
        for count in range(5):
            tracker.log_user_message("s", str(count))
            await_(lambda: tracker.health().pending == 0)
            threading.Event().wait(0.02)  # until it waits again
        assert time.monotonic() - began < 2


def test_with_block_closes(config: MakeConfig) -> None:
    """Leaving the with block uploads and closes, also by an exception of the caller's."""
    destination = RecordingDestination()
    tracker = AgentPerformanceTracker(config(), destination=lambda: destination)

    def log_and_fail() -> None:
        with tracker:
            tracker.start_conversation("agent-1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        log_and_fail()
    assert len(destination.events) == 1
    with pytest.raises(TrackerClosedError):
        tracker.start_conversation("agent-1")


def test_flush_tells_what_happened(config: MakeConfig) -> None:
    """Flush counts delivered, dead and pending of what was pending when it was called."""
    go_on = threading.Event()

    def refuse_the_bad(upload: Upload) -> Delivery:
        go_on.wait(30)
        rejected = [
            Rejection(event_id, "invalid_event", "no")
            for event_id, event in zip(upload.event_ids, upload.events, strict=True)
            if b'"bad"' in event
        ]
        return Delivery(Outcome.DELIVERED, rejected=rejected)

    destination = RecordingDestination(refuse_the_bad)
    with AgentPerformanceTracker(config(), destination=lambda: destination) as tracker:
        for content in ("one", "bad", "three"):
            tracker.log_user_message("s", content)
        client = opened.client_of(config().outbox_path)
        flush = Flush(client.outbox, client.worker)
        assert flush.result() == FlushResult(pending=3)
        go_on.set()
        tracker.log_user_message("s", "not of this flush")
        assert flush.wait(30) == FlushResult(delivered=2, pending=0, dead=1)
        tracker.flush()
        assert tracker.flush() == FlushResult()


def test_flush_is_over_when_time_is(config: MakeConfig) -> None:
    """Without a server, flush returns after its timeout and says what is pending; no error."""
    tracker = AgentPerformanceTracker(config(), destination=lambda: RecordingDestination(offline))
    tracker.log_user_message("s", "waits")
    began = time.monotonic()
    assert tracker.flush(timeout=0.2) == FlushResult(pending=1)
    assert time.monotonic() - began >= 0.2
    assert tracker.close(timeout=60) == FlushResult(pending=1), "a failed attempt ends closing"


def test_flush_returns_as_soon_as_all_is_delivered(config: MakeConfig) -> None:
    """It may be called after each conversation."""
    with AgentPerformanceTracker(config(), destination=RecordingDestination) as tracker:
        assert tracker.flush().pending == 0
        began = time.monotonic()
        for _ in range(5):
            tracker.log_user_message("s", "m")
            assert tracker.flush() == FlushResult(delivered=1)
        assert time.monotonic() - began < 2


def test_flush_does_not_wait_for_company_or_backoff(config: MakeConfig) -> None:
    """A flush cuts short the wait for company and the pause after a failure."""
    up = threading.Event()

    def answer(upload: Upload) -> Delivery:
        return Delivery(Outcome.DELIVERED) if up.is_set() else offline(upload)

    destination = RecordingDestination(answer)
    settings = config(flush_interval=3600, backoff_base=3600, backoff_cap=3600)
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        tracker.log_user_message("s", "first try fails")
        tracker.flush(timeout=0.2)
        await_(lambda: destination.sizes == [1])
        up.set()
        assert tracker.flush(timeout=30).pending == 0


def test_uploads_by_itself(config: MakeConfig) -> None:
    """Nobody needs to flush: events arrive soon, many of them in one request."""
    destination = RecordingDestination()
    with AgentPerformanceTracker(
        config(flush_interval=0.3), destination=lambda: destination
    ) as tracker:
        for number in range(100):
            tracker.log_user_message("s", str(number))
        await_(lambda: len(destination.events) == 100)
    assert len(destination.sizes) < 20


def test_pending_events_of_the_last_run_are_sent_at_start(config: MakeConfig) -> None:
    """What an earlier process left behind goes out without any new call."""
    first = AgentPerformanceTracker(config(), destination=lambda: RecordingDestination(offline))
    first.log_user_message("s", "left behind")
    first.close()
    await_(lambda: not sync_threads())
    destination = RecordingDestination()
    second = AgentPerformanceTracker(config(), destination=lambda: destination)
    await_(lambda: len(destination.events) == 1)
    second.close()
    assert destination.events[0]["data"]["content"] == "left behind"


def test_a_request_under_way_does_not_hold_up_closing(config: MakeConfig) -> None:
    """Close returns after its timeout though the server is silent; nothing is lost by it."""
    silent, asked = threading.Event(), threading.Event()

    def answer(_: Upload) -> Delivery:
        asked.set()
        silent.wait(30)
        return Delivery(Outcome.DELIVERED)

    tracker = AgentPerformanceTracker(config(), destination=lambda: RecordingDestination(answer))
    tracker.log_user_message("s", "in flight")
    assert asked.wait(30)
    assert tracker.close(timeout=0.1).pending == 1
    assert len(sync_threads()) == 1, "closing did not wait for it"
    silent.set()
    await_(lambda: not sync_threads())
    with AgentPerformanceTracker(config(), destination=RecordingDestination) as again:
        assert again.flush() == FlushResult(), "the receipt that came late was recorded"


def test_closing_at_once_waits_for_the_first_request(config: MakeConfig) -> None:
    """A short-lived job need not flush: the thread may even begin only now."""

    def answer(_: Upload) -> Delivery:
        threading.Event().wait(0.2)
        return Delivery(Outcome.DELIVERED)

    tracker = AgentPerformanceTracker(config(), destination=lambda: RecordingDestination(answer))
    tracker.log_user_message("s", "the only one")
    assert tracker.close(timeout=30) == FlushResult(delivered=1)


def test_the_sync_thread_survives_a_bug(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen error in a destination is said once, with its traceback; then it goes on."""
    failures = iter([ValueError("bug"), ValueError("bug"), None])

    def answer(_: Upload) -> Delivery:
        if error := next(failures, None):
            raise error
        return Delivery(Outcome.DELIVERED)

    with caplog.at_level(logging.ERROR, logger="tracker"):
        tracker = AgentPerformanceTracker(
            config(), destination=lambda: RecordingDestination(answer)
        )
        tracker.log_user_message("s", "arrives all the same")
        assert tracker.flush().pending == 0
        tracker.close()
    said = [record for record in caplog.records if "ValueError" in record.getMessage()]
    assert len(said) == 1
    assert "Traceback" in said[0].getMessage()


@pytest.mark.parametrize("times", [1, 2])
def test_the_sync_thread_survives_a_bug_of_its_own(
    config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    times: int,
) -> None:
    """One that no destination has made is said once too, and events still go out after it."""
    failures = iter([ValueError("bug")] * times)
    maintain = Outbox.maintain

    def fail_at_first(outbox: Outbox, *, now: bool = False) -> bool:
        if error := next(failures, None):
            raise error
        return maintain(outbox, now=now)

    monkeypatch.setattr(Outbox, "maintain", fail_at_first)
    with (
        caplog.at_level(logging.ERROR, logger="tracker"),
        AgentPerformanceTracker(config(), destination=RecordingDestination) as tracker,
    ):
        tracker.log_user_message("s", "arrives all the same")
        assert tracker.flush(30).pending == 0
    said = [record for record in caplog.records if "ValueError" in record.getMessage()]
    assert len(said) == 1
    assert "Traceback" in said[0].getMessage()


def test_what_is_in_memory_is_written_where_another_process_uploads(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nothing more is logged here: a crash could lose it, and the other cannot send it."""
    monkeypatch.setattr(OutboxConnection, "busy_seconds", 0.02)
    uploading = Outbox(config())
    assert uploading.upload_lock.try_acquire()
    with AgentPerformanceTracker(config(), destination=RecordingDestination) as tracker:
        with closing(sqlite3.connect(config().outbox_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            tracker.log_user_message("s", "kept in memory")
            assert tracker.health().in_memory == 1
            other.execute("ROLLBACK")
        await_(lambda: tracker.health().in_memory == 0)
        assert tracker.health().pending == 1
        uploading.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_parent_and_child_upload(config: MakeConfig) -> None:
    """The child once its parent does not: each has a thread of its own."""
    destination = RecordingDestination()
    closed, close = os.pipe()
    with AgentPerformanceTracker(config(), destination=lambda: destination) as tracker:
        tracker.log_user_message("s", "before")
        assert tracker.flush(10).pending == 0
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(30)
                os.read(closed, 1)
                tracker.log_user_message("s", "of the child")
                os._exit(tracker.flush(20) != FlushResult(delivered=2))
            finally:
                traceback.print_exc()
                os._exit(2)
        tracker.log_user_message("s", "of the parent")
        assert tracker.flush(10).pending == 0
    os.write(close, b".")
    assert os.waitpid(pid, 0)[1] == 0
    os.close(closed)
    os.close(close)
    with AgentPerformanceTracker(config(), destination=RecordingDestination) as again:
        assert again.health().delivered == 3


class GreenletExit(BaseException):
    """What gevent raises in a greenlet that it kills."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_its_host_kills_leaves_uploading_to_others(config: MakeConfig) -> None:
    """Another process need not wait for the end of this one."""

    def killed(_: Upload) -> Delivery:
        raise GreenletExit

    destination = RecordingDestination(killed)
    with AgentPerformanceTracker(config(), destination=lambda: destination) as tracker:
        tracker.log_user_message("s", "stays pending")
        await_(lambda: not sync_threads())
        other = Outbox(config())
        assert other.upload_lock.try_acquire()
        other.close()
        assert tracker.close(0.1).pending == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_its_host_kills_is_started_again(config: MakeConfig) -> None:
    """By the next event. Closing then closes the outbox, too."""
    kills = iter([GreenletExit()])

    def killed_once(upload: Upload) -> Delivery:
        for kill in kills:
            raise kill
        return Delivery(Outcome.DELIVERED)

    destination = RecordingDestination(killed_once)
    tracker = AgentPerformanceTracker(config(), destination=lambda: destination)
    tracker.log_user_message("s", "sent twice")
    await_(lambda: not sync_threads())
    tracker.log_user_message("s", "sent by the next thread")
    await_(lambda: not tracker.health().pending)
    assert [event["data"]["content"] for event in destination.events][-2:] == [
        "sent twice",
        "sent by the next thread",
    ]
    assert not tracker.close(10).pending
    with pytest.raises(TrackerClosedError):
        tracker.log_user_message("s", "too late")
    assert not sync_threads()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are found in /proc")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_closing_after_the_thread_was_killed_closes_the_outbox(config: MakeConfig) -> None:
    """There is no thread left that could do it."""

    def killed(_: Upload) -> Delivery:
        raise GreenletExit

    destination = RecordingDestination(killed)
    tracker = AgentPerformanceTracker(config(), destination=lambda: destination)
    tracker.log_user_message("s", "stays pending")
    await_(lambda: not sync_threads())
    assert tracker.close(0.1).pending == 1
    await_(lambda: not descriptors_below(config().outbox_path.parent))


def test_trouble_is_said_once(config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    """An outage of many attempts is two lines in the log: that it began, that it is over."""
    answers: Any = iter([offline] * 10)

    def answer(upload: Upload) -> Delivery:
        decide = next(answers, None)
        return decide(upload) if decide else Delivery(Outcome.DELIVERED)

    destination = RecordingDestination(answer)
    with caplog.at_level(logging.INFO, logger="tracker"):
        tracker = AgentPerformanceTracker(config(), destination=lambda: destination)
        tracker.log_user_message("s", "m")
        tracker.flush()
        tracker.close()
    assert len(destination.sizes) == 11
    said = [record.getMessage() for record in caplog.records if "upload" in record.getMessage()]
    assert len(said) == 2
    assert "it is unplugged" in said[0]
    assert said[1] == "uploading works again"


def test_a_connection_that_comes_and_goes_does_not_fill_the_log(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Each trouble is told once an hour, however often it is over in between."""
    attempts = 0

    def answer(upload: Upload) -> Delivery:
        nonlocal attempts
        attempts += 1
        return offline(upload) if attempts % 2 else Delivery(Outcome.DELIVERED)

    with caplog.at_level(logging.WARNING, logger="tracker"):
        destination = RecordingDestination(answer)
        with AgentPerformanceTracker(config(), destination=lambda: destination) as tracker:
            for _ in range(10):
                tracker.log_user_message("s", "m")
                assert tracker.flush().pending == 0
    assert attempts == 20
    said = [record for record in caplog.records if "upload" in record.getMessage()]
    assert len(said) == 2


def test_disabled_validates_and_does_nothing(config: MakeConfig, tmp_path: Any) -> None:
    """With `disabled` arguments are still checked, but no file, thread or request is made."""
    before, threads = set(tmp_path.rglob("*")), set(sync_threads())
    with AgentPerformanceTracker(config(disabled=True)) as tracker:
        session_id = tracker.start_conversation("agent-1")
        tracker.log_user_message(session_id, "nowhere to be seen")
        with pytest.raises(ValueError, match="quality_score"):
            tracker.end_conversation(session_id, quality_score=6)
        tracker.end_conversation(session_id, quality_score=5)
        assert tracker.flush() == FlushResult()
        assert set(sync_threads()) <= threads
    assert set(tmp_path.rglob("*")) == before


def test_config_must_be_one() -> None:
    """Giving something else as config says what to give."""
    with pytest.raises(ConfigurationError, match="config is of type dict; give an APIConfig"):
        AgentPerformanceTracker({"api_key": "k"})  # type: ignore[arg-type]  # that is the test


def test_a_full_outbox_is_emptied_when_the_server_is_back(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reaching `max_outbox_bytes` does not stop the uploads that would make room."""
    monkeypatch.setattr(SizeLimit, "check_again_seconds", 0.0)
    monkeypatch.setattr(MemoryBuffer, "retry_seconds", 0.0)
    up = threading.Event()

    def answer(upload: Upload) -> Delivery:
        return Delivery(Outcome.DELIVERED) if up.is_set() else offline(upload)

    destination = RecordingDestination(answer)
    with AgentPerformanceTracker(
        config(max_outbox_bytes=1024 * 1024), destination=lambda: destination
    ) as tracker:
        for number in range(300):
            tracker.log_message("s", "user", f"{number} " + "x" * 5000)
        assert tracker.health().in_memory > 0
        up.set()
        assert tracker.flush(timeout=30).pending == 0
    said = [int(event["data"]["content"].split()[0]) for event in destination.events]
    assert said == list(range(300))


def test_a_receipt_is_not_asked_for_twice(config: MakeConfig) -> None:
    """When the disk fails just as a receipt comes, the receipt is kept; nothing is sent again."""
    asked = threading.Event()

    def answer(_: Upload) -> Delivery:
        other.execute("BEGIN IMMEDIATE")
        asked.set()
        return Delivery(Outcome.DELIVERED)

    destination = RecordingDestination(answer)
    settings = config()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OutboxConnection, "busy_seconds", 0.02)
        tracker = AgentPerformanceTracker(settings, destination=lambda: destination)
        tracker.flush()
        other = sqlite3.connect(settings.outbox_path, isolation_level=None, check_same_thread=False)
        tracker.log_user_message("s", "stored over there")
        assert asked.wait(30)
        assert tracker.flush(timeout=0.5).pending == 1
        other.execute("ROLLBACK")
        other.close()
        assert tracker.flush(timeout=30).pending == 0
        tracker.close()
    assert destination.sizes == [1]


def uploaded(tracker: AgentPerformanceTracker) -> None:
    """Wait until the background thread has sent everything."""
    end = time.monotonic() + 20
    while tracker.health().pending and time.monotonic() < end:
        time.sleep(0.005)
    assert tracker.health().pending == 0


def test_a_flush_after_the_upload_tells_what_was_uploaded(config: MakeConfig) -> None:
    """What the background thread sent since the last flush counts, and counts once."""
    received = RecordingDestination()
    with AgentPerformanceTracker(
        config(flush_interval=0.01), destination=lambda: received
    ) as tracker:
        for expected in (3, 2):
            for _ in range(expected):
                tracker.track("thing.happened")
            uploaded(tracker)
            assert tracker.flush(10) == FlushResult(delivered=expected)
        assert tracker.flush(10) == FlushResult()
        tracker.track("thing.happened")
        uploaded(tracker)
        assert tracker.close(10) == FlushResult(delivered=1)
