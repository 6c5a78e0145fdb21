"""The description of the collector's API at ``/openapi.json``."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import requests
from pydantic import TypeAdapter

from tests.support.collector import CollectorClient, CollectorProcess
from tests.support.device_tree import DeviceTree
from tracker.collector import models
from tracker.collector.batch import ReceivedEvent
from tracker.queries.agents import OperationsOverview
from tracker.queries.traces import Trace

ANSWERS: dict[str, Any] = {
    "/healthz": models.Health,
    "/readyz": models.Health,
    "/v1/ping": models.Ping,
    "/v1/events": models.EventPage,
    "/v1/conversations/{session_id}": models.Session,
    "/v1/outboxes": models.Outboxes,
    "/v1/outboxes/{outbox_id}/chain": models.ChainPage,
    "/v1/outboxes/{outbox_id}/checkpoints": models.CheckpointPage,
    "/v1/outboxes/{outbox_id}/consistency": models.Consistency,
    "/v1/outboxes/{outbox_id}/proof": models.Inclusion,
    "/v1/clients": models.Clients,
    "/v1/history": models.History,
    "/v1/traces/{trace_id}": Trace,
    "/v1/conversations": models.Conversations,
    "/v1/agents": models.Agents,
    "/v1/activities": models.Activities,
    "/v1/overview": OperationsOverview,
    "/v1/usage": models.Usage,
    "/v1/scores": models.Scores,
    "/v1/metrics": models.MetricsPage,
    "/v1/erasures": models.Erasures,
    "/v1/rejections": models.Rejections,
}
OTHERS = {"/v1/witness-key": "text/plain", "/v1/evidence": "application/zip"}
"""Routes that answer with something other than JSON."""
OTLP = {"/v1/traces": "TracesAnswer", "/v1/logs": "LogsAnswer"}
"""Routes that speak OTLP, in JSON and protobuf."""
OPEN = {"/healthz", "/readyz", "/v1/witness-key"}
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("conversation.started", {}),
    ("message.logged", {"role": "user", "content": "x", "metadata": {"a": 1}, "tokens_used": 3}),
    ("tool.called", {"name": "find", "arguments": [1], "duration_ms": 1.5}),
    ("conversation.ended", {"quality_score": 4.5, "outcome": "resolved"}),
    ("agent.status_changed", {"status": "busy"}),
    ("agent.activity", {"activity": "read", "details": {"of": 1}}),
    ("score.recorded", {"name": "helpful", "value": 4}),
    ("llm.used", {"model": "m", "total_tokens": 5, "cost_usd": 0.5}),
    ("compliance.erased", {"subject": "u", "event_ids": ["x"]}),
]


@pytest.fixture
def client(shared_collector: CollectorProcess) -> CollectorClient:
    """Of a collector on SQLite alone: the description is the same on either database."""
    return shared_collector.client(f"client-{uuid.uuid4()}")


@pytest.fixture(scope="module")
def described(shared_collector: CollectorProcess) -> Any:
    return requests.get(f"{shared_collector.url}/openapi.json", timeout=10).json()


def test_every_route_is_described(described: Any) -> None:
    """With what it answers, refusals too, and the key that it needs."""
    paths = described["paths"]
    assert set(paths) == {*ANSWERS, *OTHERS, *OTLP}
    for path, routes in paths.items():
        for method, route in routes.items():
            answers = route["responses"]
            content = answers["200"]["content"]
            if path in OTHERS:
                assert [*content] == [OTHERS[path]], path
            else:
                assert "$ref" in content["application/json"]["schema"], path
            assert ("security" in route, "401" in answers) == (path not in OPEN,) * 2
            for status, answer in answers.items():
                if status != "200":
                    schema = answer["content"]["application/json"]["schema"]
                    error = "OTLPStatus" if path in OTLP else "Refusal"
                    assert schema == {"$ref": f"#/components/schemas/{error}"}, (path, method)
                if path in OTLP:
                    assert "application/x-protobuf" in answer["content"], (path, status)
    sent = paths["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    event = sent["properties"]["events"]["items"]
    assert set(event["required"]) == set(ReceivedEvent._fields) - {"context", "trace", "seal"}


def test_answers_are_as_described(
    shared_collector: CollectorProcess, client: CollectorClient
) -> None:
    """Answers are written without the models; so they are held against them here."""
    chain = DeviceTree()
    sent = [chain.event(data, type=type_) for type_, data in EVENTS]
    trace = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"}
    inner = {"span_id": "00f067aa0ba902b8", "parent_span_id": trace["span_id"]}
    sent.append(chain.event({"name": "a", "duration_ms": 1.5}, type="span.recorded", trace=trace))
    sent.append(chain.event({"x": 1}, type="cart.changed", trace={**trace, **inner}))
    sent.append(chain.head())
    sent.append({**chain.event(), "type": ""})
    receipt = client.send(chain, sent)
    TypeAdapter(models.Receipt).validate_json(json.dumps(receipt), strict=True)
    operator = CollectorClient(client.url, client.client_id, shared_collector.create_key(None))
    for path, model in ANSWERS.items():
        asked = path.replace("{session_id}", "session-1").replace("{outbox_id}", chain.outbox_id)
        asked = asked.replace("{trace_id}", trace["trace_id"])
        answer = operator.get(asked, session_id="session-1", old=1, new=2, seq=1, size=2)
        found = TypeAdapter(model).validate_json(json.dumps(answer), strict=True)
        names = set(model.__dataclass_fields__)
        assert (set(answer), type(found)) == (names, model), path
        answer.pop("hours", None)  # or days: see `step`
        lists = [value for value in answer.values() if isinstance(value, list)]
        assert all(lists), f"{path} was not filled"
