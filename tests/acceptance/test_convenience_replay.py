"""The recorded conversations, logged with blocks and decorators: nothing is lost by convenience."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.conversations import DATA, needs_data, read_conversations
from tracker import AgentPerformanceTracker, current_conversation
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeConfig

pytestmark = needs_data

Recorded = dict[str, Any]


def score(conversation: Recorded) -> float:
    return 5.0 if conversation["reward"] == 1.0 else 1.0


def tools_of(message: Recorded) -> list[tuple[str, Any, str]]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]), call["id"])
        for call in message.get("tool_calls") or ()
    ]


def answers_of(conversation: Recorded) -> dict[str, str]:
    return {
        m["tool_call_id"]: m["content"] for m in conversation["messages"] if m["role"] == "tool"
    }


def by_blocks(tracker: AgentPerformanceTracker, number: int, conversation: Recorded) -> None:
    """Log with `c.user`, `c.agent`, `c.system` and `c.tool`, both as a block and at once."""
    answers = answers_of(conversation)
    with tracker.conversation("airline", session_id=f"s{number}") as c:
        say = {"user": c.user, "assistant": c.agent, "system": c.system}
        for message in conversation["messages"]:
            if message["role"] in say and message["content"] is not None:
                say[message["role"]](message["content"])
            for index, (name, arguments, call_id) in enumerate(tools_of(message)):
                if (number + index) % 2:
                    c.tool(name, arguments, result=answers.get(call_id), call_id=call_id)
                else:
                    with c.tool(name, arguments, call_id=call_id) as call:
                        call.result = answers.get(call_id)
        c.end(quality_score=score(conversation))


def by_decorators(tracker: AgentPerformanceTracker, number: int, conversation: Recorded) -> None:
    """Log from inside observed functions, which are the conversation and its turns."""
    answers = answers_of(conversation)

    @tracker.observe(capture_input=False)
    def turn(message: Recorded) -> None:
        roles = {"user": "user", "assistant": "agent", "system": "system"}
        if message["role"] in roles and message["content"] is not None:
            tracker.log_message(role=roles[message["role"]], content=message["content"])
        for name, arguments, call_id in tools_of(message):
            tracker.log_tool_call(
                name=name, arguments=arguments, result=answers.get(call_id), call_id=call_id
            )

    @tracker.observe(agent_id="airline", capture_input=False)
    def converse() -> None:
        for message in conversation["messages"]:
            turn(message)
        c = current_conversation()
        assert c is not None
        c.end(quality_score=score(conversation))

    converse()


def plain_count() -> Counter[str]:
    """Count what the file holds, by reading it with nothing of this project's."""
    count: Counter[str] = Counter()
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        for line in lines:
            conversation = json.loads(line)
            count["conversations"] += 1
            count["successes"] += conversation["reward"] == 1.0
            for message in conversation["messages"]:
                count["tools"] += len(message.get("tool_calls") or ())
                if message["role"] != "tool" and message["content"] is not None:
                    count[message["role"]] += 1
    return count


def history_of(conversation: Recorded) -> list[tuple[Any, ...]]:
    answers = answers_of(conversation)
    history: list[tuple[Any, ...]] = []
    for message in conversation["messages"]:
        if message["role"] != "tool" and message["content"] is not None:
            role = "agent" if message["role"] == "assistant" else message["role"]
            history.append((role, message["content"]))
        history += [
            (name, arguments, call_id, answers.get(call_id))
            for name, arguments, call_id in tools_of(message)
        ]
    return history


def delivered_history(events: list[Recorded]) -> list[tuple[Any, ...]]:
    history: list[tuple[Any, ...]] = []
    for data in (e["data"] for e in events if e["type"] in ("message.logged", "tool.called")):
        if "role" in data:
            history.append((data["role"], data["content"]))
        else:
            history.append((data["name"], data["arguments"], data["call_id"], data.get("result")))
    return history


@pytest.mark.slow
@pytest.mark.parametrize("replay", [by_blocks, by_decorators])
def test_the_same_history_counts_and_success_rate(
    config: MakeConfig, replay: Callable[[AgentPerformanceTracker, int, Recorded], None]
) -> None:
    """All 200, by either form, are what a plain count of the file says, word for word."""
    destination, conversations = RecordingDestination(), read_conversations()
    settings = config(durability="process")
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        for number, conversation in enumerate(conversations):
            replay(tracker, number, conversation)
        assert tracker.flush(60).pending == 0

    sessions: dict[str, list[Recorded]] = {}
    for event in destination.events:
        if event["type"] == "integrity.checkpoint":
            continue
        sessions.setdefault(event["session_id"], []).append(event)
    for conversation, events in zip(conversations, sessions.values(), strict=True):
        assert events[0]["type"] == "conversation.started"
        assert events[-1]["type"] == "conversation.ended"
        assert delivered_history(events) == history_of(conversation)
        assert {event["agent_id"] for event in events} == {"airline"}

    roles = Counter(e["data"].get("role") for e in destination.events)
    types = Counter(e["type"] for e in destination.events)
    scores = [e["data"].get("quality_score") for e in destination.events]
    assert plain_count() == {
        "conversations": types["conversation.started"],
        "successes": scores.count(5.0),
        "tools": types["tool.called"],
        "user": roles["user"],
        "assistant": roles["agent"],
        "system": roles["system"],
    }
    assert types["conversation.ended"] == 200
    assert types["conversation.failed"] == 0
    observed = sum(len(c["messages"]) + 1 for c in conversations)
    assert types["function.observed"] == (observed if replay is by_decorators else 0)
