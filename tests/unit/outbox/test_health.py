"""`health()`: the figures of every tracker, cheap and never raising for trouble."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support import opened
from tracker import AgentPerformanceTracker, Health, Tracker, TrackerClosedError
from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.sync.destination import Delivery, Outcome
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeConfig


def test_the_figures_add_up_and_tell_the_trouble(config: MakeConfig) -> None:
    """What is pending, since when, and why it waits."""
    away = RecordingDestination(lambda _: Delivery(Outcome.UNAVAILABLE, cause="nobody answers"))
    with Tracker(config(), destination=lambda: away) as tracker:
        for _ in range(3):
            tracker.track("thing.happened")
        tracker.flush(0.5)
        found = tracker.health()
        assert tracker.llm.health().pending == 3
    assert (found.enabled, found.durability, found.accepted) == (True, "full", 3)
    assert (found.pending, found.delivered, found.dead, dict(found.discarded)) == (3, 0, 0, {})
    assert found.oldest_pending_age is not None
    assert 0 <= found.oldest_pending_age < 60
    assert found.paused_because == found.last_error == "nobody answers"
    assert found.last_error_ms is not None
    assert found.last_error_ms <= time.time() * 1000
    assert not found.ok


def test_all_is_well(config: MakeConfig) -> None:
    """After a receipt."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        tracker.track("thing.happened")
        tracker.flush(10)
        found = tracker.health()
    assert found.ok
    assert (found.pending, found.delivered, found.oldest_pending_age) == (0, 1, None)
    assert found.last_success_ms is not None
    assert (found.storage_error, found.in_memory, found.damaged_sets) == (None, 0, ())


def test_storage_trouble_is_told_and_not_raised(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in memory, and what that could not hold; when all is written, it is over."""
    settings = config(memory_buffer_events=2)
    with Tracker(settings, destination=RecordingDestination) as tracker:
        with monkeypatch.context() as patch:
            writer = opened.client_of(settings.outbox_path).outbox.connections.writer

            def fail(*_: object) -> None:
                raise OutboxError("the disk is broken")

            patch.setattr(writer, "append", fail)
            patch.setattr(writer, "run", fail)
            for _ in range(5):
                tracker.track("thing.happened")
            found = tracker.health()
        assert found.storage_error == "the disk is broken"
        assert (found.in_memory, found.accepted, dict(found.discarded)) == (
            2,
            3,
            {"memory_buffer": 3},
        )
        assert not found.ok
        tracker.flush(10)
        after = tracker.health()
    assert (after.accepted, after.delivered, after.in_memory) == (5, 2, 0)
    assert dict(after.discarded) == {"memory_buffer": 3}
    assert after.storage_error is None


@pytest.mark.parametrize(
    "succeed",
    [
        lambda outbox: outbox.append(make_event("thing.happened", {})),
        lambda outbox: outbox.append_all([make_event("thing.happened", {})]),
        lambda outbox: outbox.run(lambda _: None),
    ],
    ids=["append", "append_all", "run"],
)
def test_trouble_that_is_over_is_told_no_more(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch, succeed: Callable[[Outbox], object]
) -> None:
    """With ``on_error="raise"`` nothing waits in memory whose writing would say so."""
    with closing(Outbox(config(on_error="raise"))) as outbox:
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise OutboxError("the disk is broken")

            patch.setattr(outbox.connections.writer, "append", fail)
            with pytest.raises(OutboxError):
                outbox.append(make_event("thing.happened", {}))
        assert outbox.health().storage_error == "the disk is broken"
        succeed(outbox)
        assert outbox.health().storage_error is None


def test_a_disabled_tracker_says_so(config: MakeConfig) -> None:
    """And nothing else."""
    with AgentPerformanceTracker(config(disabled=True)) as tracker:
        assert tracker.health() == Health(enabled=False)
    with pytest.raises(TrackerClosedError):
        tracker.health()
