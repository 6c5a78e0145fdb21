"""Fields of the wrong type or size count the same, whichever database the collector has."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.collector import CollectorClient, EventChain

MESSAGE = ("tokens_used", "response_time_ms")
MODEL_CALL = (
    *("total_tokens", "prompt_tokens", "completion_tokens", "cached_tokens"),
    *("cache_write_tokens", "cost_usd"),
)
NO_FIGURE: dict[str, Any] = {
    "text": "7",
    "empty text": "",
    "infinity as text": "1e400",
    "odd text": "3\0\\u0000",
    "true": True,
    "false": False,
    "null": None,
    "list": [3],
    "list of lists": [[3]],
    "object": {"a": 3},
    "negative": -1,
    "part of a negative": -0.5,
    "beyond its bound": 10**13,
    "beyond 64 bits": 2**63,
    "beyond a float": 10**400,
    "large float": 1e300,
}


def send(client: CollectorClient, figure: Any, text: Any) -> None:
    """Send one event of each kind, every figure and every text of it as given."""
    chain, session_id = EventChain(), f"session-{uuid.uuid4()}"
    kinds = {
        "message.logged": dict.fromkeys(MESSAGE, figure),
        "llm.used": {**dict.fromkeys(MODEL_CALL, figure), "model": text},
        "conversation.ended": {"quality_score": figure, "outcome": text},
        "agent.registered": {"name": text, "version": text},
        "agent.status_changed": {"status": text, "previous_status": text},
        "agent.activity": {"activity": "work", "duration_ms": figure},
    }
    events = [
        chain.event(data, type=kind, session_id=session_id, agent_id=session_id)
        for kind, data in kinds.items()
    ]
    assert client.send(chain, events)["accepted"] == len(events)


@pytest.mark.parametrize("odd", NO_FIGURE.values(), ids=NO_FIGURE.keys())
def test_what_is_no_figure_counts_as_not_given(client: CollectorClient, odd: Any) -> None:
    """Beside figures that are, which are summed all the same."""
    send(client, 2, "busy")
    send(client, odd, None if isinstance(odd, str) else odd)
    metrics = client.get("/v1/metrics")
    for found in (metrics, *metrics["days"]):
        assert (found["messages"], found["tokens_used"]) == (2, 2)
        assert (found["response_time"]["count"], found["response_time"]["mean_ms"]) == (1, 2)
        assert (found["llm_calls"], found["llm_tokens"]) == (2, 2)
        assert (found["cost_usd"], found["unpriced"]) == (2, 1)
        assert (found["quality_count"], found["quality_mean"]) == (1, 2)
        assert (found["ended"], found["outcomes"]) == (2, {"busy": 1})
    for by in ("model", "agent", "session", "day"):
        (usage,) = client.get("/v1/usage", by=by)["usage"]
        assert (usage["calls"], usage["cost_usd"], usage["unpriced"]) == (1, 2, 0)
        assert {usage[name] for name in MODEL_CALL} == {2}
    good, bad = client.get("/v1/conversations")["conversations"]
    names = ("tokens_used", "cost_usd", "unpriced", "quality_score", "outcome")
    assert [good[name] for name in names] == [2, 2, 0, 2, "busy"]
    assert [bad[name] for name in names] == [0, None, 1, None, None]
    agents = {agent["agent_id"]: agent for agent in client.get("/v1/agents")["agents"]}
    told = ("name", "version", "status", "previous_status")
    assert [agents[good["session_id"]][name] for name in told] == ["busy"] * 4
    assert [agents[bad["session_id"]][name] for name in told] == [None] * 4
    took = [activity["duration_ms"] for activity in client.get("/v1/activities")["activities"]]
    assert took == [None, 2]


@pytest.mark.parametrize("odd", NO_FIGURE.values(), ids=NO_FIGURE.keys())
def test_one_odd_figure_leaves_the_others_of_its_call(client: CollectorClient, odd: Any) -> None:
    """A call whose tokens are known counts, with or without its cost."""
    chain = EventChain()
    figures = {**dict.fromkeys(MODEL_CALL, odd), "total_tokens": 2.75, "model": odd}
    client.send(chain, [chain.event(figures, type="llm.used")])
    (usage,) = client.get("/v1/usage")["usage"]
    expected = {**dict.fromkeys(MODEL_CALL, 0), "total_tokens": 2, "cost_usd": None}
    assert {name: usage[name] for name in MODEL_CALL} == expected
    assert (usage["calls"], usage["unpriced"]) == (1, 1)
    named = odd.replace("\0", "\ufffd") if isinstance(odd, str) else None
    assert usage["key"] == named


def test_long_and_odd_texts_are_answered_alike(client: CollectorClient) -> None:
    """Cut to a bound, so that answers have one; no NUL, which one of the databases cannot hold."""
    long, odd = "é" * 4_000, 'a\0b\\u0000\\\0"\n'
    send(client, 2, long)
    send(client, 2, odd)
    expected = {"é" * 1_000, odd.replace("\0", "\ufffd")}
    assert client.get("/v1/metrics")["outcomes"].keys() == expected
    assert {each["key"] for each in client.get("/v1/usage")["usage"]} == expected
    conversations = client.get("/v1/conversations")["conversations"]
    assert {each["outcome"] for each in conversations} == expected
    agents = client.get("/v1/agents")["agents"]
    assert {each["name"] for each in agents} == {each["version"] for each in agents} == expected


def test_a_client_that_makes_up_outcomes_gets_the_most_frequent(client: CollectorClient) -> None:
    """Of every day and in all, so that an answer has a bound."""
    chain = EventChain()
    outcomes = [f"outcome-{number}" for number in range(300)] + ["well"] * 2
    kind = "conversation.ended"
    client.send(chain, [chain.event({"outcome": name}, type=kind) for name in outcomes])
    metrics = client.get("/v1/metrics")
    for found in (metrics, *metrics["days"]):
        assert len(found["outcomes"]) == 100
        assert found["outcomes"]["well"] == 2
