"""Usage as an application logs and reads it, over the real outbox."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from tracker import AgentPerformanceTracker, LLMTracker, LLMUsage, Tracker, TrackerClosedError
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from tests.conftest import MakeConfig


def test_usage_by_each_key(config: MakeConfig) -> None:
    """What was recorded a moment ago is summed by model, agent, session and day."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        session = tracker.performance.start_conversation("agent-1", session_id="s1")
        tracker.llm.record_usage("p", "m1", 10, 5, session_id=session, cost_usd=0.25)
        tracker.llm.record_usage("p", "m2", 100, 50, agent_id="agent-2", cached_tokens=40)
        tracker.llm.record_usage("q", "m1", 1, 1, session_id=session, cost_usd=0.5)
        assert tracker.llm.get_usage() == [
            LLMUsage("m2", 1, 100, 50, 150, 40, None, 1),
            LLMUsage("m1", 2, 11, 6, 17, 0, 0.75, 0),
        ]
        assert [one.key for one in tracker.llm.get_usage("agent")] == ["agent-2", "agent-1"]
        assert [one.key for one in tracker.llm.get_usage(by="session")] == [None, "s1"]
        (day,) = tracker.llm.get_usage(by="day")
        assert day == LLMUsage(day.key, 3, 111, 56, 167, 40, 0.75, 1)
        assert day.key is not None
        said = datetime.fromisoformat(f"{day.key}T00:00:00+00:00")
        assert timedelta(0) <= datetime.now(timezone.utc) - said < timedelta(days=1, minutes=5)


def test_since_takes_a_datetime_or_milliseconds(config: MakeConfig) -> None:
    """Both say the same point in time, in any time zone; the future holds nothing."""
    with LLMTracker(config(), destination=RecordingDestination) as tracker:
        tracker.record_usage("p", "m", 1, 1)
        past = datetime.now(timezone(timedelta(hours=9))) - timedelta(minutes=10)
        future = past + timedelta(hours=1)
        for since, calls in (
            (past, [1]),
            (int(past.timestamp() * 1000), [1]),
            (future, []),
            (int(future.timestamp() * 1000), []),
        ):
            assert [one.calls for one in tracker.get_usage(since=since)] == calls


def test_the_conversation_names_agent_and_user(config: MakeConfig) -> None:
    """Usage for a conversation carries its agent and user, unless another agent is named."""
    destination = RecordingDestination()
    with AgentPerformanceTracker(config(), destination=lambda: destination) as performance:
        session = performance.start_conversation("agent-1", user_id="user-1")
        with LLMTracker(config()) as tracker:
            tracker.record_usage("p", "m", 1, 1, session_id=session)
            tracker.record_usage("p", "m", 1, 1, session_id=session, agent_id="helper")
    assert [
        (event["agent_id"], event["session_id"], event["user_id"])
        for event in destination.events[1:]
    ] == [("agent-1", session, "user-1"), ("helper", session, "user-1")]


def test_disabled_reads_nothing(config: MakeConfig) -> None:
    """With `disabled` recording does nothing and there is no usage."""
    with LLMTracker(config(disabled=True)) as tracker:
        tracker.record_usage("p", "m", 1, 1)
        assert tracker.get_usage() == []


def test_a_closed_tracker_refuses_calls(config: MakeConfig) -> None:
    """After close, recording and reading raise TrackerClosedError."""
    tracker = LLMTracker(config(), destination=RecordingDestination)
    tracker.close()
    for call in (lambda: tracker.record_usage("p", "m", 1, 1), tracker.get_usage):
        with pytest.raises(TrackerClosedError, match="this LLMTracker was closed"):
            call()
