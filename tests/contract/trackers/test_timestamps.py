"""`timestamp=`: events of earlier keep their own time; what is measured is not measured then."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.settings import quick
from tracker import Tracker, ValidationError
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MOMENT = datetime(2021, 3, 4, 5, 6, 7, 891_999, tzinfo=timezone(timedelta(hours=2)))
MOMENT_MS = 1_614_827_167_891

CALLS: dict[str, Callable[[Tracker, Any], object]] = {
    "track": lambda t, when: t.track("a.b", timestamp=when),
    "start": lambda t, when: t.start_conversation("a", timestamp=when),
    "resume": lambda t, when: t.resume_conversation("s", timestamp=when),
    "message": lambda t, when: t.log_message("s", "tool", "x", timestamp=when),
    "user": lambda t, when: t.log_user_message("s", "x", timestamp=when),
    "agent": lambda t, when: t.log_agent_message("s", "x", timestamp=when),
    "system": lambda t, when: t.log_system_message("s", "x", timestamp=when),
    "tool": lambda t, when: t.log_tool_call("s", "x", timestamp=when),
    "end": lambda t, when: t.end_conversation("s", timestamp=when),
    "failed": lambda t, when: t.record_failed_session("s", "x", timestamp=when),
    "feedback": lambda t, when: t.record_feedback("s", score=1, timestamp=when),
    "register": lambda t, when: t.operations.register_agent("a", timestamp=when),
    "status": lambda t, when: t.operations.update_agent_status("a", "busy", timestamp=when),
    "activity": lambda t, when: t.operations.log_activity("a", "x", timestamp=when),
    "heartbeat": lambda t, when: t.operations.heartbeat("a", timestamp=when),
    "usage": lambda t, when: t.llm.record_usage("p", "m", 1, 1, timestamp=when),
    "security": lambda t, when: t.security.report_event("x", "low", timestamp=when),
    "audit": lambda t, when: t.compliance.record_audit("x", "y", timestamp=when),
    "acknowledge": lambda t, when: t.compliance.acknowledge("x", "y", timestamp=when),
}


@pytest.fixture
def received() -> RecordingDestination:
    return RecordingDestination()


@pytest.fixture
def tracker(tmp_path: Path, received: RecordingDestination) -> Iterator[Tracker]:
    with Tracker(quick(tmp_path), destination=lambda: received) as made:
        yield made


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("when", [MOMENT, MOMENT_MS])
def test_every_logging_call_takes_the_time_of_its_event(
    tracker: Tracker, received: RecordingDestination, name: str, when: datetime | int
) -> None:
    CALLS[name](tracker, when)
    tracker.flush()
    assert received.events[-1]["timestamp_ms"] == MOMENT_MS


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "when", [datetime(2021, 3, 4), -1, 2**60, True, "2021-03-04", 1.5, MOMENT.date()]
)
def test_a_wrong_time_is_named_and_nothing_is_stored(
    tracker: Tracker, received: RecordingDestination, name: str, when: object
) -> None:
    with pytest.raises(ValidationError, match="timestamp"):
        CALLS[name](tracker, when)
    tracker.flush()
    assert received.events == []


def test_seq_stays_the_order_of_the_calls(tracker: Tracker, received: RecordingDestination) -> None:
    for day in (3, 1, 2):
        tracker.track("a.b", timestamp=MOMENT_MS + day)
    tracker.flush()
    assert [event["timestamp_ms"] - MOMENT_MS for event in received.events] == [3, 1, 2]
    assert [event["seq"] for event in received.events] == [1, 2, 3]


def test_an_imported_conversation_has_its_own_times(
    tracker: Tracker, received: RecordingDestination
) -> None:
    session = tracker.start_conversation("a", timestamp=MOMENT_MS)
    tracker.log_user_message(session, "hello", timestamp=MOMENT_MS + 100)
    tracker.end_conversation(session, timestamp=MOMENT_MS + 90_000)
    (whole,) = tracker.list_conversations()
    assert (whole.started_at_ms, whole.last_at_ms) == (MOMENT_MS, MOMENT_MS + 90_000)
    tracker.flush()
    assert received.events[-1]["data"] == {"duration_ms": 90_000}


def test_between_now_and_then_no_duration_is_made_up(
    tracker: Tracker, received: RecordingDestination
) -> None:
    session = tracker.start_conversation("a", timestamp=MOMENT_MS)
    tracker.end_conversation(session)
    session = tracker.start_conversation("a")
    tracker.end_conversation(session, timestamp=MOMENT_MS)
    tracker.flush()
    ended = [event for event in received.events if event["type"] == "conversation.ended"]
    assert [event["data"] for event in ended] == [{}, {}]


def test_in_a_block_no_response_time_is_measured_for_an_earlier_message(
    tracker: Tracker, received: RecordingDestination
) -> None:
    with tracker.conversation("a") as c:
        c.user("hello", timestamp=MOMENT)
        c.agent("hi", timestamp=MOMENT)
        c.agent("hi", response_time_ms=5, timestamp=MOMENT)
        c.system("brief", timestamp=MOMENT)
        c.tool("search", result=1, timestamp=MOMENT)
        with c.tool("search", timestamp=MOMENT):
            pass
        c.feedback(score=1, timestamp=MOMENT)
        c.agent("now")
    tracker.flush()
    within = received.events[1:-2]
    assert {event["timestamp_ms"] for event in within} == {MOMENT_MS}
    assert [event["data"].get("response_time_ms") for event in within[:3]] == [None, None, 5]
    assert received.events[-2]["data"]["response_time_ms"] >= 0
