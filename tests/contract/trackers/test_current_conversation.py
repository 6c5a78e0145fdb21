"""What is logged inside a conversation's block belongs to it, by whichever tracker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tracker import AgentPerformanceTracker, Tracker, ValidationError
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeConfig


class Recorded:
    """A tracker, and what it delivered but for the conversations' own events."""

    def __init__(self, config: MakeConfig) -> None:
        self.destination = RecordingDestination()
        self.tracker = Tracker(config(), destination=lambda: self.destination)

    @property
    def concerned(self) -> list[tuple[Any, ...]]:
        self.tracker.flush()
        return [
            (event["session_id"], event["agent_id"], event["user_id"])
            for event in self.destination.events
            if not event["type"].startswith("conversation.")
        ]


@pytest.fixture
def recorded(config: MakeConfig) -> Iterator[Recorded]:
    opened = Recorded(config)
    with opened.tracker:
        yield opened


def track(tracker: Tracker, **ids: Any) -> None:
    tracker.track("cart.abandoned", {"items": 3}, **ids)


def use_a_model(tracker: Tracker, **ids: Any) -> None:
    tracker.llm.record_usage("openai", "gpt-4o", 9, 1, **ids)


def report(tracker: Tracker, **ids: Any) -> None:
    tracker.security.report_event("access_denied", "low", **ids)


def act(tracker: Tracker, **ids: Any) -> None:
    tracker.operations.log_activity("agent-1", "looked it up", **ids)


CALLS = pytest.mark.parametrize("call", [track, use_a_model, report, act])


@CALLS
def test_inside_a_block_no_session_id_is_needed(
    recorded: Recorded, call: Callable[..., object]
) -> None:
    """An explicit None is as good as none: wrappers hand it on."""
    with recorded.tracker.performance.conversation("agent-1", user_id="user-1") as c:
        call(recorded.tracker)
        call(recorded.tracker, session_id=None)
    assert recorded.concerned == [(c.session_id, "agent-1", "user-1")] * 2


@CALLS
def test_a_session_that_is_given_is_the_one(
    recorded: Recorded, call: Callable[..., object]
) -> None:
    """Nothing of the current conversation is mixed into it."""
    performance = recorded.tracker.performance
    performance.start_conversation("agent-1", user_id="user-2", session_id="other")
    with performance.conversation("agent-9", user_id="user-9"):
        call(recorded.tracker, session_id="other")
    assert recorded.concerned == [("other", "agent-1", "user-2")]


@CALLS
def test_outside_of_any_block_there_is_no_session(
    recorded: Recorded, call: Callable[..., object]
) -> None:
    """Also after a block was left."""
    with recorded.tracker.performance.conversation("agent-9", user_id="user-9"):
        pass
    call(recorded.tracker)
    ((session_id, agent_id, user_id),) = recorded.concerned
    assert (session_id, user_id) == (None, None)
    assert agent_id in (None, "agent-1")


def test_agent_and_user_that_are_given_stay(recorded: Recorded) -> None:
    """A conversation may have several agents."""
    with recorded.tracker.performance.conversation("agent-1", user_id="user-1") as c:
        track(recorded.tracker, agent_id="agent-2", user_id="user-2")
        recorded.tracker.operations.log_activity("agent-2", "helped")
    assert recorded.concerned == [
        (c.session_id, "agent-2", "user-2"),
        (c.session_id, "agent-2", "user-1"),
    ]


def test_each_task_has_a_current_conversation_of_its_own(recorded: Recorded) -> None:
    """Two conversations at once in one thread are not mixed up."""

    async def converse(number: int) -> str:
        agent, user = f"agent-{number}", f"user-{number}"
        async with recorded.tracker.performance.conversation(agent, user_id=user) as c:
            await asyncio.sleep(0)
            track(recorded.tracker)
        return c.session_id

    async def both() -> list[str]:
        return list(await asyncio.gather(converse(1), converse(2)))

    first, second = asyncio.run(both())
    assert sorted(recorded.concerned, key=str) == sorted(
        [(first, "agent-1", "user-1"), (second, "agent-2", "user-2")], key=str
    )


def test_what_concerns_an_agent_alone_has_no_session(recorded: Recorded) -> None:
    """Registration, status and heartbeat; and a report on other conversations."""
    operations, performance = recorded.tracker.operations, recorded.tracker.performance
    with performance.conversation("agent-1", user_id="user-1"):
        operations.register_agent("agent-1")
        operations.update_agent_status("agent-1", "busy")
        operations.heartbeat("agent-1")
        recorded.tracker.security.report_unclosed_sessions(older_than=0)
    assert recorded.concerned == [(None, "agent-1", None)] * 3 + [(None, None, None)]


def test_a_text_taken_for_the_session_id_is_explained(config: MakeConfig) -> None:
    """Inside a block what comes first is still the session id: the error says what to do."""
    tracker: Any = AgentPerformanceTracker(config(), destination=RecordingDestination)
    calls: list[tuple[Any, str]] = [
        (lambda: tracker.log_user_message("Hello!"), "content="),
        (lambda: tracker.log_message("user"), "content="),
        (lambda: tracker.log_tool_call("search", {"q": 1}), "name="),
        (lambda: tracker.record_failed_session("boom"), "error_message="),
        (lambda: tracker.end_conversation(4.5), "quality_score="),
    ]
    with tracker.conversation("a"):
        for call, advice in calls:
            with pytest.raises(ValidationError, match=f"by keyword.*{advice}"):
                call()
    for call, _ in calls:
        with pytest.raises(ValidationError) as outside:
            call()
        assert "by keyword" not in str(outside.value)
    tracker.close()
