"""The 200 recorded conversations of ``../shared/data``, as calls of the public API."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from tracker import AgentPerformanceTracker

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "airline_conversations.jsonl.gz"

needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="the recorded conversations are not beside this checkout"
)


class Call(NamedTuple):
    """One call of a tracker's method, and the type of event that it must become."""

    method: str
    arguments: dict[str, Any]
    type: str

    def make(self, tracker: AgentPerformanceTracker) -> str:
        """Make the call and return what it returned."""
        returned: str = getattr(tracker, self.method)(**self.arguments)
        return returned

    @property
    def expected_data(self) -> dict[str, Any]:
        """The data that must arrive, but for fields that the tracker adds itself."""
        hidden = ("session_id", "agent_id", "user_id")
        data = {name: value for name, value in self.arguments.items() if name not in hidden}
        if self.method == "log_message":
            data = {"role": data["role"], "content": data["content"]}
        return {name: value for name, value in data.items() if value is not None}


def read_conversations(most: int | None = None) -> list[dict[str, Any]]:
    """Return the recorded conversations, at most so many."""
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for _, line in zip(range(most or 10**9), lines, strict=False)]


def calls_of(number: int, conversation: dict[str, Any]) -> list[Call]:
    """Return the calls that log one recorded conversation.

    A tool's answer is the result of its call; a message that only calls tools has no content.
    """
    session = {"session_id": f"conversation-{number}"}
    results = {
        message["tool_call_id"]: message["content"]
        for message in conversation["messages"]
        if message["role"] == "tool"
    }
    calls = [
        Call(
            "start_conversation",
            {**session, "agent_id": "airline-agent", "metadata": {"trial": conversation["trial"]}},
            "conversation.started",
        )
    ]
    roles = {"user": "user", "assistant": "agent", "system": "system"}
    for message in conversation["messages"]:
        if message["role"] in roles and message["content"] is not None:
            said = {"role": roles[message["role"]], "content": message["content"]}
            calls.append(Call("log_message", {**session, **said}, "message.logged"))
        for tool in message.get("tool_calls") or ():
            called = {
                "name": tool["function"]["name"],
                "arguments": json.loads(tool["function"]["arguments"]),
                "result": results.get(tool["id"]),
                "call_id": tool["id"],
            }
            calls.append(Call("log_tool_call", {**session, **called}, "tool.called"))
    score = 5.0 if conversation["reward"] == 1.0 else 1.0
    calls.append(
        Call("end_conversation", {**session, "quality_score": score}, "conversation.ended")
    )
    return calls


def all_calls(most: int | None = None) -> list[Call]:
    """Return the calls that log the recorded conversations one after the other."""
    return [
        call
        for number, conversation in enumerate(read_conversations(most))
        for call in calls_of(number, conversation)
    ]
