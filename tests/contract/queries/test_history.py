"""Reading back what was logged through the public API, the recorded conversations included."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.conversations import calls_of, needs_data, read_conversations
from tracker import AgentPerformanceTracker, APIConfig, OutboxError, TrackerClosedError
from tracker.queries.history import ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig

OFFLINE = "http://127.0.0.1:9"


@pytest.fixture
def tracker(config: MakeConfig) -> Iterator[AgentPerformanceTracker]:
    with AgentPerformanceTracker(config(base_url=OFFLINE)) as tracker:
        yield tracker


def test_a_history_is_there_at_once(tracker: AgentPerformanceTracker) -> None:
    """Offline, while the conversation goes on."""
    session_id = tracker.start_conversation("agent-1", user_id="user-1")
    tracker.log_user_message(session_id, "Where is my order?")
    event_id = tracker.log_tool_call(session_id, "find", {"id": 7}, error="gone", call_id="c")
    tracker.log_agent_message(session_id, "I do not know.", 12.5, 9, model="m-1")
    question, call, answer = tracker.get_conversation_history(session_id)
    assert (question.role, question.content) == ("user", "Where is my order?")
    assert call.event_id == event_id
    assert call.tool_call == ToolCall("find", {"id": 7}, error="gone", call_id="c")
    assert (answer.response_time_ms, answer.tokens_used, answer.model) == (12.5, 9, "m-1")
    (conversation,) = tracker.list_conversations(status="open")
    assert (conversation.session_id, conversation.user_id) == (session_id, "user-1")
    assert tracker.get_conversation_history(session_id, False, 1)[0].content is None


def test_after_close_nothing_is_read(config: MakeConfig) -> None:
    """As with every other method."""
    tracker = AgentPerformanceTracker(config(base_url=OFFLINE))
    tracker.close()
    for read in (
        lambda: tracker.get_conversation_history("s"),
        tracker.list_conversations,
        tracker.get_metrics,
    ):
        with pytest.raises(TrackerClosedError):
            read()


def test_a_disabled_tracker_has_no_past() -> None:
    """And needs no outbox to say so."""
    with AgentPerformanceTracker(APIConfig(disabled=True)) as tracker:
        tracker.log_user_message("s", "unheard")
        assert tracker.get_conversation_history("s") == ()
        assert tracker.list_conversations() == ()
        assert tracker.get_metrics().messages == 0


def test_an_outbox_that_is_gone_is_told(tracker: AgentPerformanceTracker) -> None:
    """As the package's own error, until a new one has taken its place."""
    path = tracker.config.outbox_path
    moved = path.rename(path.with_name("moved"))
    with contextlib.suppress(OutboxError):
        assert tracker.get_conversation_history("s") == ()
    moved.rename(path)


# --- The 200 recorded conversations --------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    return read_conversations()


@pytest.fixture(scope="module")
def replayed(
    recorded: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentPerformanceTracker]:
    """A tracker to which all of them were logged, with the outcome that the reward says."""
    folder: Path = tmp_path_factory.mktemp("replayed")
    settings = APIConfig(
        api_key="unused",
        client_id="client",
        base_url=OFFLINE,
        outbox_path=folder / "outbox.sqlite3",
        durability="process",
    )
    with AgentPerformanceTracker(settings) as tracker:
        for number, conversation in enumerate(recorded):
            *calls, end = calls_of(number, conversation)
            for call in calls:
                call.make(tracker)
            outcome = "success" if conversation["reward"] == 1.0 else "failure"
            tracker.end_conversation(**end.arguments, outcome=outcome)
        yield tracker


def plainly(conversation: dict[str, Any]) -> list[tuple[str, str | None]]:
    """What was said and called in a recorded conversation: role and text, or tool and its name."""
    said: list[tuple[str, str | None]] = []
    for message in conversation["messages"]:
        role = {"assistant": "agent"}.get(message["role"], message["role"])
        if role != "tool" and message["content"] is not None:
            said.append((role, message["content"]))
        said += [("tool", call["function"]["name"]) for call in message.get("tool_calls") or ()]
    return said


@needs_data
def test_the_recorded_conversations_come_back_as_they_were(
    recorded: list[dict[str, Any]], replayed: AgentPerformanceTracker
) -> None:
    """Every word and every tool call, in order."""
    assert len(recorded) == 200
    for number, conversation in enumerate(recorded):
        history = replayed.get_conversation_history(f"conversation-{number}")
        assert [
            (entry.role, entry.content if entry.tool_call is None else entry.tool_call.name)
            for entry in history
        ] == plainly(conversation)


@needs_data
def test_the_recorded_conversations_are_counted_as_the_file_says(
    recorded: list[dict[str, Any]], replayed: AgentPerformanceTracker
) -> None:
    """Conversations, messages, tool calls, and success where the reward is 1."""
    said = [plainly(conversation) for conversation in recorded]
    tools = sum(role == "tool" for entries in said for role, _ in entries)
    won = sum(conversation["reward"] == 1.0 for conversation in recorded)
    metrics = replayed.get_metrics()
    assert (metrics.conversations, metrics.open) == (200, 0)
    assert (metrics.ended, metrics.failed) == (won, 200 - won)
    assert metrics.success_rate == won / 200
    assert metrics.outcomes == {"failure": 200 - won, "success": won}
    assert metrics.tool_calls == tools
    assert metrics.messages == sum(map(len, said)) - tools
    assert metrics.quality_distribution == {1: 200 - won, 2: 0, 3: 0, 4: 0, 5: won}


@needs_data
def test_the_recorded_conversations_are_listed(
    recorded: list[dict[str, Any]], replayed: AgentPerformanceTracker
) -> None:
    """In the order they began, each with its own figures; failed ones by their reward."""
    listed = replayed.list_conversations(limit=None)
    assert [found.session_id for found in listed] == [f"conversation-{n}" for n in range(200)]
    for conversation, found in zip(recorded, listed, strict=True):
        entries = plainly(conversation)
        tools = sum(role == "tool" for role, _ in entries)
        assert (found.messages, found.tool_calls) == (len(entries) - tools, tools)
    failed = replayed.list_conversations(status="failed", limit=None)
    assert [found.session_id for found in failed] == [
        f"conversation-{n}" for n in range(200) if recorded[n]["reward"] != 1.0
    ]
