"""The host's tests freeze clocks: whatever waits still ends, and nothing is put off for good."""

from __future__ import annotations

import datetime
import threading
import time
from typing import TYPE_CHECKING

import pytest
from freezegun import freeze_time

from tests.support.collector import free_port
from tests.support.server import ScriptedServer, answer, receipt
from tracker import AgentPerformanceTracker
from tracker.sync.destination import Outcome, Upload
from tracker.sync.http import HTTPDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeConfig

LONG = 30.0
"""Seconds: a wait that takes as long goes by a clock that stands."""

DATES = ("1970-01-02", "2020-01-01", "2100-01-01")


def ends(call: Callable[[], object]) -> bool:
    """Make the call in a thread of its own, for it may never end; tell whether it did."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(LONG)
    return not thread.is_alive()


@pytest.mark.parametrize("date", DATES)
def test_flush_and_close_keep_their_bounds(config: MakeConfig, date: str) -> None:
    """With nobody who answers, for their time is up."""

    def use() -> None:
        with freeze_time(date):
            tracker = AgentPerformanceTracker(config(base_url=f"http://127.0.0.1:{free_port()}"))
            tracker.start_conversation("agent-1")
            assert tracker.flush(timeout=0.3).pending == 1
            assert tracker.close(timeout=0.3).pending == 1

    assert ends(use)


@pytest.mark.parametrize("date", DATES)
def test_events_are_delivered_and_failures_tried_again(
    config: MakeConfig, scripted_server: ScriptedServer, date: str
) -> None:
    """Pauses after a failure, the time that events wait for company, and rates go on."""
    scripted_server.script(answer(503), answer(503))
    settings = config(
        base_url=scripted_server.url, flush_interval=0.05, requests_per_minute=600, backoff_cap=0.2
    )

    def use() -> None:
        with freeze_time(date), AgentPerformanceTracker(settings) as tracker:
            for _ in range(3):
                tracker.start_conversation("agent-1")
                scripted_server.wait_for(len(scripted_server.requests) + 1)
            assert tracker.flush(timeout=LONG).pending == 0

    assert ends(use)
    assert len(scripted_server.delivered) == 3


@pytest.mark.parametrize(("hours", "frozen"), [(-1, 12), (3, 4)], ids=["open", "closed"])
def test_a_metered_link_goes_by_real_time(
    config: MakeConfig, scripted_server: ScriptedServer, hours: int, frozen: int
) -> None:
    """Its window opens by the clock of the device, and the pause for its rate ends."""
    begins = time.localtime(time.time() + hours * 3600).tm_hour
    settings = config(
        base_url=scripted_server.url,
        upload_window=f"{begins:02}:00-{(begins + 3) % 24:02}:00",
        upload_bytes_per_second=5_000,
        batch_max_events=1,
    )
    pending = []

    def use() -> None:
        stands_at = datetime.datetime.now() + datetime.timedelta(days=-1, hours=frozen)
        with freeze_time(stands_at), AgentPerformanceTracker(settings) as tracker:
            for _ in range(3):
                tracker.start_conversation("agent-1")
            pending.append(tracker.flush(timeout=LONG).pending)

    assert ends(use)
    assert pending == [0 if hours < 0 else 3]


def test_a_server_that_drips_is_given_up(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """The total time of a request is real time."""
    scripted_server.script(receipt(body_pause=0.5))
    destination = HTTPDestination(config(base_url=scripted_server.url, total_timeout=0.3), "o")
    outcomes = []

    def send() -> None:
        with freeze_time("2020-01-01"):
            outcomes.append(
                destination.send(Upload(["e"], [b'{"event_id":"e","data":{}}'])).outcome
            )

    assert ends(send)
    destination.close()
    assert outcomes == [Outcome.TIMED_OUT]


def test_nothing_is_put_off_until_a_clock_comes_that_was_only_a_tests(config: MakeConfig) -> None:
    """An outbox that was opened under a clock of the future is watched after it, too."""
    settings = config()
    with freeze_time("2100-01-01"):
        tracker = AgentPerformanceTracker(settings, destination=None)
        tracker.start_conversation("agent-1")
    settings.outbox_path.unlink()
    end = time.monotonic() + LONG
    while not settings.outbox_path.exists():
        assert time.monotonic() < end, "nobody has noticed that the outbox is gone"
        tracker.start_conversation("agent-1")
    tracker.close(0)


def test_a_host_that_has_replaced_sleep_is_not_kept_busy(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests that make `time.sleep` do nothing must not turn a wait into a busy loop."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    tracker = AgentPerformanceTracker(config(base_url=f"http://127.0.0.1:{free_port()}"))
    tracker.start_conversation("agent-1")
    assert tracker.flush(timeout=0.2).pending == 1
    tracker.close(0)
    assert not slept
