"""Metrics of what was logged through the public API."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from tracker import AgentPerformanceTracker, ValidationError

if TYPE_CHECKING:
    from tests.conftest import MakeConfig


def test_metrics_are_there_at_once_and_after_a_restart(config: MakeConfig) -> None:
    """Offline; for one agent and for all; within a span of time and outside it."""
    settings = config(base_url="http://127.0.0.1:9")
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    with AgentPerformanceTracker(settings) as tracker:
        for agent_id, score in (("a", 4.0), ("a", 2.5), ("b", 5.0)):
            session_id = tracker.start_conversation(agent_id)
            tracker.log_user_message(session_id, "Well?", tokens_used=1)
            tracker.log_agent_message(session_id, "Well.", score * 100, 10)
            tracker.log_tool_call(session_id, "look", None)
            tracker.end_conversation(session_id, score)
        broken = tracker.start_conversation("b")
        tracker.record_failed_session(broken, "out of memory")
        at_once = tracker.get_metrics()
    with AgentPerformanceTracker(settings) as tracker:
        assert tracker.get_metrics() == at_once
        assert tracker.get_metrics(since=before).messages == 6
        assert tracker.get_metrics(until=before).conversations == 0
        of_a = tracker.get_metrics("a")
        with pytest.raises(ValidationError, match="since: has no time zone"):
            tracker.get_metrics(since=datetime.now())
    assert (at_once.conversations, at_once.ended, at_once.failed) == (4, 3, 1)
    assert (at_once.success_rate, at_once.tokens_used, at_once.tool_calls) == (0.75, 33, 3)
    assert at_once.quality_distribution == {1: 0, 2: 0, 3: 1, 4: 1, 5: 1}
    assert (at_once.response_time.p50_ms, at_once.response_time.p99_ms) == (400, 500)
    assert sum(day.messages for day in at_once.days) == 6
    assert (of_a.conversations, of_a.quality_mean, of_a.failed) == (2, 3.25, 0)
