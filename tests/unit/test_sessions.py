"""What a tracker knows of conversations: whom they concern, and whether they are over."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tracker import AgentPerformanceTracker
from tracker.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig


@pytest.fixture
def settings(config: MakeConfig) -> APIConfig:
    return config(base_url="http://127.0.0.1:9")  # nobody listens on the discard port


@pytest.fixture
def tracker(settings: APIConfig) -> Iterator[AgentPerformanceTracker]:
    with AgentPerformanceTracker(settings) as opened:
        yield opened


def stored(path: Path) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    try:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM events ORDER BY seq").fetchall()
    finally:
        connection.close()
    return [{**dict(row), "data": json.loads(row["data"])} for row in rows]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "session" in record.getMessage()]


def test_messages_carry_the_agent_and_user_of_their_conversation(
    tracker: AgentPerformanceTracker,
) -> None:
    """Named once at the start, they stand on every event that follows."""
    session = tracker.start_conversation("billing", user_id="u-1")
    tracker.log_user_message(session, "hello")
    tracker.log_tool_call(session, "search", {"q": 1})
    tracker.record_feedback(session, score=4)
    tracker.end_conversation(session, 4.5)
    events = stored(tracker.config.outbox_path)
    assert {(row["agent_id"], row["user_id"], row["session_id"]) for row in events} == {
        ("billing", "u-1", session)
    }


def test_a_conversation_goes_on_after_a_restart(settings: APIConfig) -> None:
    """Agent and user are found in the outbox; how long it took is not claimed to be known."""
    with AgentPerformanceTracker(settings) as first:
        session = first.start_conversation("billing", user_id="u-1")
    with AgentPerformanceTracker(settings) as second:
        second.resume_conversation(session)
        second.end_conversation(session)
    *_, resumed, ended = stored(settings.outbox_path)
    assert (resumed["agent_id"], resumed["user_id"]) == ("billing", "u-1")
    assert (ended["agent_id"], ended["data"]) == ("billing", {})


def test_an_unknown_session_is_stored_and_warned_of_once(
    tracker: AgentPerformanceTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """A forgotten start must not cost a message."""
    for text in ("a", "b", "c"):
        tracker.log_user_message("never-started", text)
    assert warnings(caplog) == [
        (
            "session 'never-started' was never started in this outbox; "
            "events logged to it are stored anyway"
        )
    ]
    assert [row["data"]["content"] for row in stored(tracker.config.outbox_path)] == list("abc")


def test_a_message_after_the_end_is_stored_and_warned_of_once(
    tracker: AgentPerformanceTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """Ended or failed; feedback is expected then and gives no warning."""
    ended, failed = tracker.start_conversation("a"), tracker.start_conversation("a")
    tracker.end_conversation(ended)
    tracker.record_failed_session(failed, "boom")
    tracker.record_feedback(ended, comment="good")
    assert warnings(caplog) == []
    for session in (ended, failed, ended):
        tracker.log_user_message(session, "late")
    assert len(warnings(caplog)) == 2
    assert all("has ended" in line for line in warnings(caplog))
    late = [row for row in stored(tracker.config.outbox_path) if "late" in row["data"].values()]
    assert len(late) == 3


def test_resuming_opens_a_conversation_again(
    tracker: AgentPerformanceTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """After `resume_conversation` messages are as welcome as before."""
    session = tracker.start_conversation("a")
    tracker.end_conversation(session)
    tracker.resume_conversation(session)
    tracker.log_user_message(session, "more")
    assert warnings(caplog) == []


def test_the_end_says_how_long_it_took(tracker: AgentPerformanceTracker) -> None:
    """For a conversation that this process started."""
    session = tracker.start_conversation("a")
    tracker.end_conversation(session, outcome="resolved")
    duration = stored(tracker.config.outbox_path)[-1]["data"]["duration_ms"]
    assert 0 <= duration < 60_000


def test_memory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """However many conversations a process has seen, it remembers so many and no more."""
    sessions = Sessions(None)
    with caplog.at_level(logging.WARNING):
        for number in range(10_100):
            sessions.start(f"s{number}", "agent", None)
    known = [sessions.use(f"s{number}").agent_id for number in (10_099, 100, 99)]
    assert known == ["agent", "agent", None]


def test_a_conversation_in_use_is_remembered(
    tracker: AgentPerformanceTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many others begin meanwhile, its duration is known at its end."""
    monkeypatch.setattr(Sessions, "most", 20)
    used, unused = tracker.start_conversation("a"), tracker.start_conversation("a")
    for _ in range(60):
        tracker.log_user_message(used, "still here")
        tracker.start_conversation("b")
    tracker.end_conversation(used)
    tracker.end_conversation(unused)
    ended = stored(tracker.config.outbox_path)[-2:]
    assert [row["session_id"] for row in ended] == [used, unused]
    assert ["duration_ms" in row["data"] for row in ended] == [True, False]
