"""Metered links, as an application, its health endpoint and an operator meet them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import call, call_json, process
from tests.support.uploads import state_of, wait_until
from tracker import APIConfig, Tracker
from tracker.sync.destination import Delivery, Outcome, Upload
from tracker.sync.http import HTTPDestination
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from tests.conftest import MakeConfig
    from tests.support.server import ScriptedServer

    Make: TypeAlias = Callable[..., tuple[Tracker, RecordingDestination]]


def closed() -> str:
    """Return a window that is closed now, and for some hours."""
    hour = time.localtime().tm_hour
    return f"{(hour + 4) % 24:02}:00-{(hour + 6) % 24:02}:00"


@pytest.fixture
def tracked(config: MakeConfig) -> Iterator[Make]:
    """Make trackers with these settings, and the destination that their events reach."""
    made: list[Tracker] = []

    def make(**settings: Any) -> tuple[Tracker, RecordingDestination]:
        received = RecordingDestination()
        made.append(Tracker(config(**settings), destination=lambda: received))
        return made[-1], received

    yield make
    for tracker in made:
        tracker.close(timeout=0)


@pytest.mark.parametrize("timeout", [20.0, None])
def test_a_flush_in_a_closed_window_returns_at_once(tracked: Make, timeout: float | None) -> None:
    """A program that flushes after each piece of work neither waits for the night nor sends."""
    tracker, received = tracked(upload_window=closed())
    tracker.track("thing.happened")
    start = time.monotonic()
    assert tracker.flush(timeout).pending == 1
    assert tracker.flush(timeout).pending == 1
    assert tracker.close(timeout=10).pending == 1
    assert time.monotonic() - start < 8.0
    assert received.sizes == []


def test_health_says_why_it_waits(tracked: Make) -> None:
    """And until when; a wait by a setting is no failure."""
    window = closed()
    tracker, _ = tracked(upload_window=window)
    tracker.track("thing.happened")
    tracker.flush()
    health = tracker.health()
    assert health.ok
    assert health.waits_because == f"outside the upload window ({window})"
    assert health.waits_until_ms is not None
    assert 0 < health.waits_until_ms / 1000 - time.time() <= 4 * 3600
    assert (health.pending, health.paused_because, health.last_error) == (1, None, None)


def test_status_and_doctor_say_it_too(tracked: Make) -> None:
    """In text and in JSON; and what sends the events all the same."""
    window = closed()
    tracker, _ = tracked(upload_window=window)
    tracker.track("thing.happened")
    tracker.flush()
    path = tracker.config.outbox_path
    shown = call("--outbox", path, "status").stdout
    assert f"waits because  outside the upload window ({window})\nnext attempt   " in shown
    found = call_json("--outbox", path, "status")
    assert found["waits_because"] == f"outside the upload window ({window})"
    assert (found["paused_because"], found["next_attempt_ms"] > 0) == (None, True)
    shown = call("--outbox", path, "doctor").stdout
    assert f"waits by a setting: outside the upload window ({window}), until " in shown
    assert "tracker-sync flush --now" in shown


def test_a_function_that_fails_shows_as_a_failure(tracked: Make) -> None:
    """`health().ok` is what an operator watches, and this needs one."""
    tracker, received = tracked(may_upload=lambda: 1 / 0)
    tracker.track("thing.happened")
    assert tracker.flush().pending == 1
    wait_until(lambda: not tracker.health().ok, "the failure is noted")
    assert "may_upload raised ZeroDivisionError" in str(tracker.health().paused_because)
    assert received.sizes == []


def test_a_function_that_hangs_shows_as_a_failure(
    tracked: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that uploads cannot say it itself; logging goes on meanwhile."""
    monkeypatch.setattr("tracker.sync.permission.PATIENCE_SECONDS", 0.05)
    going_on = threading.Event()

    def may_upload() -> bool:
        return going_on.wait(60)

    tracker, received = tracked(may_upload=may_upload)
    tracker.track("thing.happened")
    wait_until(lambda: not tracker.health().ok, "the silence is noted")
    assert "may_upload has not returned" in str(tracker.health().paused_because)
    tracker.track("thing.happened")
    going_on.set()
    assert tracker.flush().pending == 0
    assert tracker.health().ok
    assert len(received.events) == 2


def test_permission_is_asked_in_the_thread_that_uploads(tracked: Make) -> None:
    """The application's own threads never wait for it; and a flush asks again at once."""
    answers = [False, True]
    names: list[str] = []

    def may_upload() -> bool:
        names.append(threading.current_thread().name)
        return answers.pop(0)

    tracker, received = tracked(may_upload=may_upload)
    tracker.track("thing.happened")
    wait_until(lambda: tracker.health().waits_because is not None, "the no is noted")
    assert received.sizes == []
    assert tracker.flush().pending == 0
    assert names == ["tracker-sync"] * 2
    assert tracker.health().waits_because is None


def test_a_critical_event_goes_out_within_seconds(tracked: Make) -> None:
    """With all that was committed before it."""
    tracker, received = tracked(upload_window=closed(), upload_outside_window="security.critical")
    tracker.track("thing.happened")
    tracker.flush()
    tracker.security.report_event("access_denied", "high")
    tracker.security.report_event("tamper_detected", "critical")
    wait_until(lambda: len(received.events) == 3, "the critical event is sent")
    tracker.track("thing.happened")
    assert tracker.flush().pending == 1
    kinds = [event["data"].get("kind") for event in received.events]
    assert kinds == [None, "access_denied", "tamper_detected"]


def test_an_operator_can_send_all_the_same(
    config: MakeConfig, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flush --now` makes the application that uploads send, which keeps its window otherwise."""
    settings = config(base_url=scripted_server.url, upload_window=closed())
    monkeypatch.setenv("SDK_API_KEY", settings.api_key)
    with Tracker(settings) as tracker:
        tracker.track("thing.happened")
        assert tracker.flush().pending == 1
        wait_until(lambda: state_of(settings).waits_because is not None, "the wait is noted")
        flush = ("--outbox", settings.outbox_path, "flush")
        start = time.monotonic()
        code, said, _ = process(*flush)
        assert (code, "tracker-sync flush --now" in said) == (1, True)
        assert time.monotonic() - start < 30, "it waits for nothing that will not come"
        assert scripted_server.requests == []
        code, said, _ = process(*flush, "--now", "--timeout", "30")
        assert (code, said) == (0, "1 event delivered, 0 pending, 0 dead\n")
        tracker.track("thing.happened")
        assert tracker.flush().pending == 1


def test_a_flush_by_command_obeys_the_window_unless_told_otherwise(
    config: MakeConfig, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why nothing was sent and what sends it; the exit code is that of pending events."""
    settings = config(base_url=scripted_server.url, upload_window=closed())
    with Tracker(settings) as tracker:
        tracker.track("thing.happened")
    monkeypatch.setenv("SDK_API_KEY", settings.api_key)
    monkeypatch.setenv("SDK_UPLOAD_WINDOW", closed())
    start = time.monotonic()
    done = call("--outbox", settings.outbox_path, "flush")
    assert time.monotonic() - start < 20, "it waits for nothing that will not come"
    assert done.exit_code == 1
    assert "0 events delivered, 1 pending, 0 dead\nuploads wait: outside the upload window" in (
        done.stdout
    )
    assert "tracker-sync flush --now" in done.stdout
    assert scripted_server.requests == []
    done = call("--outbox", settings.outbox_path, "flush", "--now")
    assert (done.exit_code, done.stdout) == (0, "1 event delivered, 0 pending, 0 dead\n")


def test_a_wait_for_the_rate_ends_at_once_when_the_application_does(tracked: Make) -> None:
    """Whatever is owed; the rest is sent after the next start."""
    tracker, received = tracked(upload_bytes_per_second=1, batch_max_events=1)
    for _ in range(2):
        tracker.track("thing.happened")
    wait_until(lambda: tracker.health().waits_because is not None, "the wait is noted")
    assert len(received.events) == 1
    start = time.monotonic()
    assert tracker.close(timeout=20).pending == 1
    assert time.monotonic() - start < 5.0
    wait_until(lambda: received.closed, "the thread has ended")


def test_a_flush_waits_for_the_rate(tracked: Make) -> None:
    """Its pauses are short, and what is sent is what was asked for."""
    tracker, received = tracked(upload_bytes_per_second=1_000, batch_max_events=1)
    for _ in range(3):
        tracker.track("thing.happened")
    assert tracker.flush(timeout=30).pending == 0
    assert received.sizes == [1, 1, 1]
    assert state_of(tracker.config).waits_because is None


def test_a_failure_is_no_wait_whatever_it_says(config: MakeConfig) -> None:
    """A destination of one's own may give any cause."""
    failing = RecordingDestination(lambda _: Delivery(Outcome.UNAVAILABLE, "held: by customs"))
    with Tracker(config(), destination=lambda: failing) as tracker:
        tracker.track("thing.happened")
        wait_until(lambda: not tracker.health().ok, "the failure is noted")
        assert tracker.health().paused_because == "held: by customs"


def test_what_is_counted_is_what_went_over_the_wire(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """The compressed body and its headers, not the events as they are stored."""
    destination = HTTPDestination(config(base_url=scripted_server.url), "outbox")
    event = b'{"event_id":"1","data":{"content":"' + b"again " * 10_000 + b'"}}'
    sizes = [destination.send(Upload(["1"], [event])).sent_bytes or 0 for _ in range(2)]
    destination.close()
    bodies = [int(each.headers["content-length"]) for each in scripted_server.requests]
    assert bodies[0] <= sizes[0]
    assert bodies[1] < sizes[1] < bodies[1] + 1_000 < len(event) / 10


def test_a_server_that_is_not_there_was_sent_nothing(config: MakeConfig) -> None:
    """A device without a network does not use up its rate."""
    destination = HTTPDestination(config(base_url="http://127.0.0.1:9"), "outbox")
    assert destination.send(Upload(["1"], [b"{}"])).sent_bytes == 0
    destination.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"upload_window": "22-6"}, "give spans of local time"),
        ({"upload_window": 22}, "upload_window"),
        ({"upload_bytes_per_second": 0}, "upload_bytes_per_second"),
        ({"upload_bytes_per_second": "fast"}, "upload_bytes_per_second"),
        ({"may_upload": True}, "may_upload"),
        ({"upload_outside_window": "all"}, "upload_outside_window"),
    ],
)
def test_impossible_settings_fail_at_construction(settings: dict[str, Any], said: str) -> None:
    """And say which one."""
    with pytest.raises(ValueError, match=said):
        APIConfig(api_key="-", client_id="-", **settings)
