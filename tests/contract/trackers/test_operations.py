"""Agents' operations as an application logs and reads them, over the real outbox."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tracker import (
    AgentOperationsTracker,
    AgentStatus,
    OperationsOverview,
    OutboxError,
    TrackerClosedError,
)
from tracker.client import Client
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeConfig


@pytest.fixture
def tracker(
    config: MakeConfig, destination: RecordingDestination
) -> Iterator[AgentOperationsTracker]:
    """An open tracker that uploads to `destination`."""
    with AgentOperationsTracker(config(), destination=lambda: destination) as tracker:
        yield tracker


def changes(tracker: AgentOperationsTracker, destination: RecordingDestination) -> list[Any]:
    """Return previous and new status of each change, in order."""
    assert tracker.flush().pending == 0
    return [
        (event["data"].get("previous_status"), event["data"]["status"])
        for event in destination.events
        if event["type"] == "agent.status_changed"
    ]


forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_child(work: Callable[[], object]) -> None:
    """Do it in a forked process, and wait for that to end well."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_every_field_is_delivered(
    tracker: AgentOperationsTracker, destination: RecordingDestination
) -> None:
    """Each method's event has its type, its agent and what was given; nothing else."""
    tracker.register_agent(
        "a", name="Ann", version="1.2", capabilities=("search", "mail"), metadata={"x": 1}
    )
    tracker.update_agent_status("a", "busy", metadata={"why": "work"})
    tracker.log_activity("a", "indexed", duration_ms=1.239, details=[1, None], session_id="s")
    tracker.heartbeat("a", metadata={"load": 0.5})
    tracker.register_agent("b")
    tracker.heartbeat("b")
    tracker.flush()
    assert [(event["type"], event["agent_id"], event["data"]) for event in destination.events] == [
        ("agent.registered", "a", {"name": "Ann", "version": "1.2",
                                   "capabilities": ["search", "mail"], "metadata": {"x": 1}}),
        ("agent.status_changed", "a", {"status": "busy", "metadata": {"why": "work"}}),
        ("agent.activity", "a", {"activity": "indexed", "duration_ms": 1.24, "details": [1, None]}),
        ("agent.heartbeat", "a", {"metadata": {"load": 0.5}}),
        ("agent.registered", "b", {}),
        ("agent.heartbeat", "b", {}),
    ]  # fmt: skip
    assert destination.events[2]["session_id"] == "s"


def test_the_previous_status_is_filled_in(
    tracker: AgentOperationsTracker, destination: RecordingDestination
) -> None:
    """Each change names the one before it, of the same agent; the first one names none."""
    tracker.update_agent_status("a", "active")
    tracker.update_agent_status("b", AgentStatus.ERROR)
    tracker.update_agent_status("a", AgentStatus.BUSY)
    tracker.update_agent_status("a", "busy")
    assert changes(tracker, destination) == [
        (None, "active"), (None, "error"), ("active", "busy"), ("busy", "busy"),
    ]  # fmt: skip


def test_trackers_on_one_outbox_share_what_they_know(
    tracker: AgentOperationsTracker, destination: RecordingDestination, config: MakeConfig
) -> None:
    """A change by another tracker of the process is the previous one."""
    with AgentOperationsTracker(config()) as other:
        tracker.update_agent_status("a", "active")
        other.update_agent_status("a", "idle")
        tracker.update_agent_status("a", "error")
    assert changes(tracker, destination)[-1] == ("idle", "error")


def test_the_previous_status_outlives_the_process(
    config: MakeConfig, destination: RecordingDestination
) -> None:
    """What this process does not know is looked up in the outbox, delivered or not."""
    with AgentOperationsTracker(config(), destination=RecordingDestination) as first:
        first.update_agent_status("a", "idle")
        first.update_agent_status("a", "busy")
        first.update_agent_status("b", "error")
    with AgentOperationsTracker(config(), destination=lambda: destination) as second:
        second.update_agent_status("a", "active")
        assert changes(second, destination) == [("busy", "active")]


@forks
def test_a_forked_child_looks_an_agents_status_up(
    tracker: AgentOperationsTracker, destination: RecordingDestination
) -> None:
    """A child trusts the outbox, not its parent's memory."""
    tracker.update_agent_status("a", "idle")
    in_child(lambda: tracker.update_agent_status("a", "error"))  # which the parent cannot know
    in_child(lambda: tracker.update_agent_status("a", "busy"))
    assert changes(tracker, destination) == [(None, "idle"), ("idle", "error"), ("error", "busy")]


@forks
def test_a_forked_child_does_not_wait_for_a_change_under_way(
    config: MakeConfig, destination: RecordingDestination
) -> None:
    """Nobody in the child ends what another thread of the parent had begun at the fork."""
    held, release = threading.Event(), threading.Event()

    def hold(text: str) -> str:
        if text == "held":
            held.set()
            release.wait(30)
        return text

    with AgentOperationsTracker(
        config(redactors=[hold]), destination=lambda: destination
    ) as tracker:
        tracker.update_agent_status("a", "idle")
        change = {"metadata": {"note": "held"}}
        thread = threading.Thread(
            target=tracker.update_agent_status, args=("a", "error"), kwargs=change
        )
        thread.start()
        assert held.wait(30)
        in_child(lambda: tracker.update_agent_status("a", "busy"))
        release.set()
        thread.join()
        assert changes(tracker, destination)[:2] == [(None, "idle"), ("idle", "busy")]


def test_threads_name_each_others_changes(
    tracker: AgentOperationsTracker, destination: RecordingDestination
) -> None:
    """However threads interleave, each change names the one stored just before it."""

    def change(status: AgentStatus) -> None:
        for _ in range(20):
            tracker.update_agent_status("a", status)

    threads = [threading.Thread(target=change, args=(status,)) for status in AgentStatus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = changes(tracker, destination)
    assert len(found) == 80
    assert [previous for previous, _ in found] == [None, *(status for _, status in found[:-1])]


def test_a_status_that_was_not_stored_is_not_remembered(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change that could not be stored, the next one names what is in the outbox."""
    destination = RecordingDestination()
    settings = config(on_error="raise")

    def fail(*_: Any) -> Any:
        raise OutboxError("disk full")

    with AgentOperationsTracker(settings, destination=lambda: destination) as tracker:
        tracker.update_agent_status("a", "idle")
        with monkeypatch.context() as patch:
            patch.setattr(Client, "record", fail)
            with pytest.raises(OutboxError, match="disk full"):
                tracker.update_agent_status("a", "error")
        tracker.update_agent_status("a", "busy")
        assert changes(tracker, destination) == [(None, "idle"), ("idle", "busy")]


def test_a_failed_look_up_loses_no_event(
    tracker: AgentOperationsTracker,
    destination: RecordingDestination,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the outbox cannot be read, the change is stored without the previous status."""

    def fail(*_: Any) -> Any:
        raise OutboxError("cannot read")

    with monkeypatch.context() as patch:
        patch.setattr(Client, "read", fail)
        tracker.update_agent_status("a", "idle")
        with pytest.raises(OutboxError, match="cannot read"):
            tracker.get_agent_status("a")
    assert changes(tracker, destination) == [(None, "idle")]


def test_an_agents_state(tracker: AgentOperationsTracker) -> None:
    """The newest registration and status count; an agent never heard of is None."""
    assert tracker.get_agent_status("a") is None
    tracker.register_agent("a", name="Old", version="1")
    tracker.register_agent("a", name="Ann")
    state = tracker.get_agent_status("a")
    assert state is not None
    assert (state.name, state.version, state.status, state.status_at_ms) == (
        "Ann", None, None, None,
    )  # fmt: skip
    tracker.update_agent_status("a", "active")
    tracker.update_agent_status("a", "busy")
    tracker.heartbeat("a")
    state = tracker.get_agent_status("a")
    assert state is not None
    assert state.status is AgentStatus.BUSY
    assert state.previous_status is AgentStatus.ACTIVE
    assert state.status_at_ms is not None
    assert state.last_seen_ms >= state.status_at_ms


def test_active_agents_are_those_that_say_active(tracker: AgentOperationsTracker) -> None:
    """Only the status `active` counts, in the order of ids, and if heard of since."""
    for agent_id, status in (("c", "active"), ("a", "active"), ("b", "busy"), ("d", "idle")):
        tracker.update_agent_status(agent_id, status)  # type: ignore[arg-type]  # mypy sees str
    tracker.heartbeat("e")
    found = tracker.get_active_agents()
    assert [agent.agent_id for agent in found] == ["a", "c"]
    newest = max(agent.last_seen_ms for agent in found)
    assert tracker.get_active_agents(since=newest + 60_000) == []
    assert "c" in [one.agent_id for one in tracker.get_active_agents(since=found[1].last_seen_ms)]


def test_recent_activity_is_newest_first(tracker: AgentOperationsTracker) -> None:
    """At most `limit` activities come, of one agent or of all, with all that was logged."""
    tracker.log_activity("a", "one")
    event_id = tracker.log_activity("b", "two", duration_ms=3, details={"n": 1}, session_id="s")
    tracker.log_activity("a", "three")
    tracker.heartbeat("a")
    assert [one.activity for one in tracker.get_recent_activity()] == ["three", "two", "one"]
    assert [one.activity for one in tracker.get_recent_activity(limit=1)] == ["three"]
    (two,) = tracker.get_recent_activity("b")
    assert (two.event_id, two.agent_id, two.session_id) == (event_id, "b", "s")
    assert (two.duration_ms, two.details) == (3.0, {"n": 1})
    assert tracker.get_recent_activity(since=two.timestamp_ms + 60_000) == []


def test_the_overview_counts_everything(tracker: AgentOperationsTracker) -> None:
    """Agents are counted by their status now, and what was logged by kind."""
    tracker.register_agent("a")
    tracker.update_agent_status("b", "busy")
    tracker.update_agent_status("b", "idle")
    tracker.update_agent_status("c", "error")
    tracker.log_activity("b", "x")
    tracker.heartbeat("b")
    tracker.heartbeat("c")
    found = tracker.get_operations_overview()
    assert found == OperationsOverview(3, 0, 1, 0, 1, 1, 1, 3, 2, found.last_seen_ms)
    assert found.last_seen_ms is not None
    later = tracker.get_operations_overview(since=found.last_seen_ms + 60_000)
    assert later == OperationsOverview(3, 0, 1, 0, 1, 1, 0, 0, 0, found.last_seen_ms)


def test_disabled_reads_nothing(config: MakeConfig) -> None:
    """With `disabled` logging does nothing and every read is empty."""
    with AgentOperationsTracker(config(disabled=True)) as tracker:
        tracker.update_agent_status("a", "active")
        assert tracker.get_agent_status("a") is None
        assert tracker.get_active_agents() == []
        assert tracker.get_recent_activity() == []
        assert tracker.get_operations_overview() == OperationsOverview(
            0, 0, 0, 0, 0, 0, 0, 0, 0, None
        )


def test_a_closed_tracker_refuses_calls(config: MakeConfig) -> None:
    """After close, logging and reading raise TrackerClosedError."""
    tracker = AgentOperationsTracker(config(), destination=RecordingDestination)
    tracker.close()
    for call in (
        lambda: tracker.register_agent("a"),
        lambda: tracker.update_agent_status("a", "idle"),
        lambda: tracker.log_activity("a", "x"),
        lambda: tracker.heartbeat("a"),
        lambda: tracker.get_agent_status("a"),
        tracker.get_active_agents,
        tracker.get_recent_activity,
        tracker.get_operations_overview,
    ):
        with pytest.raises(TrackerClosedError, match="this AgentOperationsTracker was closed"):
            call()
