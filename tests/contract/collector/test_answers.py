"""The collector answers what the trackers answer: the same names, the same figures."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.support.collector import CollectorClient, CollectorProcess, EventChain
from tests.support.conversations import all_calls, needs_data
from tracker import AgentPerformanceTracker, AgentStatus, Tracker
from tracker.queries.figures import DAY_MS

if TYPE_CHECKING:
    from tests.conftest import MakeConfig
    from tracker import APIConfig

NOON_MS = 1_793_534_400_000
WORDS = ("idle", "busy", "active", "error", "active")


@pytest.fixture
def settings(config: MakeConfig, client: CollectorClient) -> APIConfig:
    """Make a tracker upload to the collector as that client."""
    return config(
        base_url=client.url,
        client_id=client.client_id,
        api_key=client.headers["Authorization"].removeprefix("Bearer "),
        durability="process",
    )


def plain(answer: Any) -> Any:
    """Return what a tracker answered as JSON holds it."""
    return json.loads(json.dumps(answer, default=dataclasses.asdict))


_ERRORS = {
    **dict.fromkeys(("cost_usd", "mean", "mean_ms", "quality_mean"), 1e-12),
    **dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), 0.01),
}


def alike(answer: Any, local: Any) -> bool:
    """Compare; sums and means may differ in the last digit, by the order of adding.

    Percentiles of a rolled-up period may differ by a hundredth.
    """
    if isinstance(local, dict) and isinstance(answer, dict):
        return local.keys() == answer.keys() and all(
            answer[key] == pytest.approx(local[key], rel=_ERRORS[key])
            if key in _ERRORS and local[key] is not None
            else alike(answer[key], local[key])
            for key in local
        )
    if isinstance(local, list) and isinstance(answer, list):
        return len(answer) == len(local) and all(map(alike, answer, local))
    return bool(answer == local)


def check(answer: Any, local: Any) -> None:
    assert alike(answer, plain(local)), f"collector: {answer}\ntracker:   {plain(local)}"


def log_three_days(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Log something of everything on three days; return a moment in each."""
    clock = SimpleNamespace(now=NOON_MS)
    monkeypatch.setattr(time, "time_ns", lambda: clock.now * 1_000_000)
    for day in range(3):
        clock.now = NOON_MS + day * DAY_MS
        log_a_day(tracker, f"d{day}", clock)
    return [NOON_MS + day * DAY_MS for day in range(3)]


def log_a_day(tracker: Tracker, day: str, clock: Any) -> None:
    talk, agents, llm = tracker.performance, tracker.operations, tracker.llm
    sessions = [f"{day}-{name}" for name in ("well", "wrong", "said-so", "resumed", "open", "ünï")]
    for number, session_id in enumerate(sessions):
        clock.now += 7
        agent_id = f"agent-{number % 3}"
        talk.start_conversation(agent_id, user_id=f"user-{number % 2}", session_id=session_id)
        talk.log_system_message(session_id, "Be brief.\0", metadata={"a": [1, None, "é"]})
        talk.log_user_message(session_id, 'What "is" it?\n\\u0000', tokens_used=3 + number)
        clock.now += 131 * number
        talk.log_agent_message(session_id, "It is.", 100.25 * (number + 1), 17, model="m-1")
        talk.log_tool_call(session_id, "find", {"n": number}, result={"ok": True}, duration_ms=1.5)
        talk.log_tool_call(session_id, "fail", None, error="no")
        cost = None if number == 2 else 0.01 * number
        llm.record_usage("acme", f"model-{number % 2}", 10, 2**39, session_id=session_id,
                         agent_id=agent_id, cost_usd=cost, cached_tokens=4)  # fmt: skip
        answer = talk.log_agent_message(session_id, "Is it not?")
        talk.record_score("helpful", number / 3, event_id=answer, comment="hm\0", source="judge")
        talk.record_score("resolved", number > 2, session_id=session_id)
        talk.record_score("topic", f"topic {number % 2}\n", session_id=session_id)
        talk.record_feedback(session_id, score=number, comment="good")
    talk.end_conversation(sessions[0], quality_score=4.5, outcome="resolved")
    talk.record_failed_session(sessions[1], "out of memory")
    talk.end_conversation(sessions[2], quality_score=1, outcome="Failure")
    talk.record_failed_session(sessions[3], "hm")
    talk.resume_conversation(sessions[3])
    talk.end_conversation(sessions[3], quality_score=2.5)
    for number, status in enumerate(AgentStatus(word) for word in WORDS):
        agents.register_agent(f"agent-{number}", name=f"A {number}", version="1.0")
        agents.update_agent_status(f"agent-{number}", status)
        agents.log_activity(f"agent-{number}", "read", duration_ms=12.5, details={"of": day})
        agents.heartbeat("silent")
    agents.log_activity("agent-1", "wrote", session_id=sessions[0], details={"\0": "\0"})
    tracker.track("cart.abandoned", {"items": 3}, session_id=f"{day}-no-conversation")


def test_every_read_is_the_trackers(
    settings: APIConfig, client: CollectorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Field by field, whatever is asked for and left out."""
    with Tracker(settings) as tracker:
        moments = log_three_days(tracker, monkeypatch)
        assert tracker.flush(30).pending == 0
        check_conversations(tracker.performance, client, moments)
        check_metrics(tracker.performance, client, moments)
        check_agents(tracker, client, moments)
        for by in ("model", "agent", "session", "day"):
            for since in (None, moments[1]):
                answer = client.get("/v1/usage", by=by, since=since)["usage"]
                check(answer, tracker.llm.get_usage(by, since=since))
        for group in ("name", "day", "release"):
            for since in (None, moments[1]):
                answer = client.get("/v1/scores", by=group, since=since)["scores"]
                assert answer
                check(answer, tracker.get_scores(group, since=since))


def check_conversations(
    tracker: AgentPerformanceTracker, client: CollectorClient, moments: list[int]
) -> None:
    listed = client.get("/v1/conversations", limit=1000)["conversations"]
    assert len(listed) == 18
    filters: list[dict[str, Any]] = [
        {},
        {"limit": 4},
        {"agent_id": "agent-1"},
        {"user_id": "user-0", "status": "failed"},
        {"status": "open"},
        {"status": "ended", "since": moments[1]},
        {"since": moments[1], "until": moments[2]},
    ]
    for wanted in filters:
        answer = client.get("/v1/conversations", **wanted)["conversations"]
        assert answer, wanted
        check(answer, tracker.list_conversations(**wanted))
    for session_id in [each["session_id"] for each in listed] + ["unknown"]:
        for content, limit in ((True, None), (False, None), (True, 2)):
            answer = client.get("/v1/history", session_id=session_id, include_content=content,
                                limit=limit)  # fmt: skip
            local = tracker.get_conversation_history(session_id, content, limit)
            check(answer["entries"], local)


def check_metrics(
    tracker: AgentPerformanceTracker, client: CollectorClient, moments: list[int]
) -> None:
    filters: list[dict[str, Any]] = [
        {},
        {"agent_id": "agent-1"},
        {"since": moments[1]},
        {"since": moments[0] + 900, "until": moments[2], "agent_id": "agent-2"},
        {"agent_id": "nobody"},
        {"step": "hour"},
    ]
    for wanted in filters:
        answer = client.get("/v1/metrics", **wanted)
        assert answer.pop("next") is None
        check(answer, tracker.get_metrics(**wanted))


def check_agents(tracker: Tracker, client: CollectorClient, moments: list[int]) -> None:
    local = tracker.operations
    for since in (None, moments[2]):
        active = client.get("/v1/agents", since=since, status="active")["agents"]
        assert len(active) == 2
        check(active, local.get_active_agents(since=since))
        check(client.get("/v1/overview", since=since), local.get_operations_overview(since=since))
        for agent_id in (None, "agent-1"):
            answer = client.get("/v1/activities", agent_id=agent_id, since=since, limit=9)
            check(answer["activities"],
                  local.get_recent_activity(agent_id, since=since, limit=9))  # fmt: skip
    for agent in client.get("/v1/agents")["agents"]:
        check(agent, local.get_agent_status(agent["agent_id"]))
    assert client.get("/v1/agents", agent_id="nobody")["agents"] == []


CONTEXTS: list[dict[str, Any]] = [
    {"environment": "prod", "release": "1.0", "tags": {"site": "oslo", "a.\"'$ü": "\\u0000 %s"}},
    {"environment": "prod", "release": "1.1", "tags": {"site": "bergen"}, "odd": "\0"},
    {"environment": "test", "nested": {"environment": "prod", "tags": {"site": "oslo"}}},
]


def log_in_contexts(tracker: Tracker) -> None:
    """Log a conversation of a run in each context, and one without any."""
    for number, items in enumerate([*CONTEXTS, {}]):
        name = f"{number}-ü"
        with tracker.context(**items):
            tracker.start_conversation(
                f"agent-{name}",
                user_id=f"user-{name}",
                session_id=f"session-{name}",
                run_id=f"run-{name}",
            )
            tracker.log_user_message(f"session-{name}", "Hello")
            tracker.llm.record_usage("acme", "m", 1, number, session_id=f"session-{name}")
            tracker.operations.log_activity(f"agent-{name}", "read")


def test_a_trace_is_the_same_tree(settings: APIConfig, client: CollectorClient) -> None:
    """A turn, a span that failed and a tool; an unknown trace is not found."""
    with Tracker(settings) as tracker:
        with tracker.conversation("agent", user_id="user") as c:
            c.user("Where?")
            c.tool("find", {"id": 7}, result="sent", duration_ms=3)
            span = tracker.span("retrieve", input=[1])
            with pytest.raises(ZeroDivisionError), span:
                tracker.track("index.asked", {"times": 1 / 0})
            c.agent("There.")
        assert tracker.flush(30).pending == 0
        found = tracker.get_trace(span.trace_id)
    assert found is not None
    answer = client.get(f"/v1/traces/{span.trace_id.upper()}")
    check(answer, found)
    short = client.get(f"/v1/traces/{span.trace_id}", limit=1)
    assert not short["complete"]
    for unknown, status in (("0" * 31 + "1", 404), ("x", 422)):
        url = f"{client.url}/v1/traces/{unknown}"
        assert requests.get(url, headers=client.headers, timeout=10).status_code == status
    assert "trace_id" not in client.get("/v1/events", limit=1)["events"][0]


def test_what_an_event_was_logged_in_finds_it_everywhere(
    settings: APIConfig, client: CollectorClient
) -> None:
    """Environment, release and tags, in each read of the tracker and in the collector's."""
    with Tracker(settings) as tracker:
        log_in_contexts(tracker)
        assert tracker.flush(30).pending == 0
        searches: list[dict[str, Any]] = [
            *({"environment": "prod"}, {"environment": "test"}, {"release": "1.1"}),
            *({"tags": tags} for tags in (CONTEXTS[0]["tags"], {"site": "oslo"}, {"site": "o"})),
            {"environment": "prod", "tags": {"site": "bergen"}},
        ]
        for wanted in searches:
            asked = {name: value for name, value in wanted.items() if name != "tags"}
            asked["tag"] = [f"{name}={text}" for name, text in wanted.get("tags", {}).items()]
            check_each_read(tracker, client, wanted, asked)


def check_each_read(
    tracker: Tracker, client: CollectorClient, wanted: dict[str, Any], asked: dict[str, Any]
) -> None:
    metrics = client.get("/v1/metrics", **asked)
    assert metrics.pop("next") is None
    check(metrics, tracker.get_metrics(**wanted))
    check(client.get("/v1/usage", **asked)["usage"], tracker.llm.get_usage(**wanted))
    check(client.get("/v1/scores", **asked)["scores"], tracker.get_scores(**wanted))
    listed = client.get("/v1/conversations", **asked)["conversations"]
    check(listed, tracker.list_conversations(**wanted))
    agents = tracker.operations
    activities = client.get("/v1/activities", **asked)["activities"]
    check(activities, agents.get_recent_activity(**wanted))
    check(client.get("/v1/overview", **asked), agents.get_operations_overview(**wanted))
    assert len(client.get("/v1/agents", **asked)["agents"]) == len(listed)
    assert metrics["messages"] == len(activities) == len(listed)
    assert len(client.get("/v1/events", **asked)["events"]) == 4 * len(listed)


@pytest.mark.parametrize(
    ("name", "value", "events"),
    [
        ("run_id", "run-1-ü", 3),
        ("session_id", "session-1-ü", 3),
        ("agent_id", "agent-1-ü", 4),
        ("user_id", "user-1-ü", 3),
        ("type", "llm.used", 4),
        ("type", "conversation.*", 4),
        ("type", "l", 0),
        ("until", 1, 0),
        ("since", 1, 16),
    ],
)
def test_the_collector_finds_events_by_each_other_filter(
    settings: APIConfig, client: CollectorClient, name: str, value: object, events: int
) -> None:
    """In its list of events and in its sums; another client's events never count."""
    with Tracker(settings) as tracker:
        log_in_contexts(tracker)
        assert tracker.flush(30).pending == 0
    found = client.get("/v1/events", **{name: value})["events"]
    assert len(found) == events
    called = client.get("/v1/usage", by="session", **{name: value})["usage"]
    assert len(called) == sum(event["type"] == "llm.used" for event in found)
    said = sum(event["type"] == "message.logged" for event in found)
    assert client.get("/v1/metrics", **{name: value})["messages"] == said


@pytest.mark.parametrize(
    "asked",
    [{"tag": "oslo"}, {"tag": "=oslo"}, {"since": 2, "until": 1}, {"tag": ["a=b"] * 21},
     {"environment": ""}, {"run_id": "x" * 257}, {"tag": "a=\0"}],
)  # fmt: skip
def test_a_filter_that_is_none_is_refused(client: CollectorClient, asked: dict[str, Any]) -> None:
    """By every route that lists or sums events, with what is wrong."""
    for path in ("events", "metrics", "usage", "conversations", "agents", "activities", "overview"):
        answer = requests.get(f"{client.url}/v1/{path}", asked, headers=client.headers, timeout=10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_query")


@needs_data
@pytest.mark.slow
def test_recorded_conversations_are_read_alike(
    settings: APIConfig, client: CollectorClient
) -> None:
    """All 200, each message and tool call of them."""
    with AgentPerformanceTracker(settings) as tracker:
        for call in all_calls():
            call.make(tracker)
        assert tracker.flush(60).pending == 0
        answer = client.get("/v1/metrics")
        assert (answer.pop("next"), answer["conversations"]) == (None, 200)
        check(answer, tracker.get_metrics())
        listed = client.get("/v1/conversations", limit=1000)["conversations"]
        check(listed, tracker.list_conversations(limit=None))
        for each in listed:
            history = client.get("/v1/history", session_id=each["session_id"])["entries"]
            check(history, tracker.get_conversation_history(each["session_id"]))


@pytest.mark.parametrize(
    ("path", "name", "forward"),
    [
        ("/v1/conversations", "conversations", None),
        ("/v1/history", "entries", None),
        ("/v1/activities", "activities", None),
        ("/v1/erasures", "erasures", None),
        ("/v1/agents", "agents", "after"),
        ("/v1/usage", "usage", "offset"),
        ("/v1/scores", "scores", "offset"),
    ],
)
def test_pages_make_up_the_whole(
    client: CollectorClient, path: str, name: str, forward: str | None
) -> None:
    """Each page begins where the one before ended; the last one says so."""
    chain = EventChain()
    sent = []
    for number in range(5):
        session: dict[str, Any] = {"session_id": f"s{number}", "agent_id": f"a{number}"}
        sent += [
            chain.event({}, type="conversation.started", **session),
            chain.event({"role": "user", "content": "x"}),
            chain.event({"activity": f"n{number}"}, type="agent.activity", **session),
            chain.event({"model": f"m{number}", "total_tokens": 1}, type="llm.used"),
            chain.event({"name": f"n{number}", "value": number}, type="score.recorded"),
            chain.event({"subject": "u", "event_ids": []}, type="compliance.erased"),
        ]
    client.send(chain, sent)
    session_id = {"session_id": "session-1"} if path == "/v1/history" else {}
    whole = client.get(path, **session_id)
    assert (len(whole[name]) >= 5, whole["next"]) == (True, None)
    pages: list[list[Any]] = []
    following: dict[str, Any] = {}
    while True:
        page = client.get(path, limit=2, **session_id, **following)
        pages.append(page[name])
        if page["next"] is None:
            break
        following = {forward or "before": page["next"]}
    in_order = pages if forward or path in ("/v1/activities", "/v1/erasures") else pages[::-1]
    assert [row for page in in_order for row in page] == whole[name]
    assert max(map(len, pages)) == 2


def test_a_page_of_long_messages_ends_early(client: CollectorClient) -> None:
    """A thousand messages of a megabyte would be more than anybody can hold."""
    chain = EventChain()
    for _ in range(10):
        text = {"role": "user", "content": "x" * 1_000_000}
        client.send(chain, [chain.event(text)])
    page = client.get("/v1/history", session_id="session-1")
    assert [entry["seq"] for entry in page["entries"]] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    rest = client.get("/v1/history", session_id="session-1", before=page["next"])
    assert ([entry["seq"] for entry in rest["entries"]], rest["next"]) == ([1], None)


def test_days_beyond_the_limit_are_had_by_until(client: CollectorClient) -> None:
    """The newest days come first; the figures in all stay those of the whole."""
    chain = EventChain()
    client.send(chain, [chain.event(timestamp_ms=day * DAY_MS) for day in range(1, 6)])
    whole = client.get("/v1/metrics")
    part = client.get("/v1/metrics", limit=2)
    assert (part["messages"], part["days"]) == (5, whole["days"][3:])
    earlier = client.get("/v1/metrics", until=part["next"])
    assert earlier["days"] == whole["days"][:3]


def test_what_was_erased_has_no_part_in_the_figures(client: CollectorClient) -> None:
    """It is still counted as something that happened, and shown as erased."""
    chain = EventChain()
    told = chain.event({"subject": "u-1", "event_ids": ["x", "y"], "reason": "asked"},
                       type="compliance.erased", timestamp_ms=7)  # fmt: skip
    erased = [chain.event({"erased": True}, type=kind) for kind in KINDS]
    client.send(chain, [told, *erased])
    entries = client.get("/v1/history", session_id="session-1")["entries"]
    assert [(e["role"], e["content"], e["tool_call"], e["erased"]) for e in entries] == [
        (None, None, None, True),
        ("tool", None, None, True),
    ]
    figures = client.get("/v1/metrics")
    assert (figures["messages"], figures["tokens_used"], figures["llm_calls"]) == (1, 0, 1)
    assert (figures["ended"], figures["quality_mean"], figures["outcomes"]) == (1, None, {})
    assert client.get("/v1/usage")["usage"] == []
    assert client.get("/v1/activities")["activities"] == []
    (agent,) = client.get("/v1/agents")["agents"]
    assert (agent["name"], agent["status"]) == (None, None)
    assert client.get("/v1/erasures") == {
        "erasures": [
            {
                "event_id": told["event_id"],
                "timestamp_ms": 7,
                "subject": "u-1",
                "events": 2,
                "reason": "asked",
            }
        ],
        "next": None,
    }


FIGURES = (
    *("tokens_used", "response_time_ms", "content", "role", "metadata", "model", "total_tokens"),
    *("cost_usd", "prompt_tokens", "quality_score", "outcome", "activity", "status", "name"),
)
KINDS = (
    *("message.logged", "llm.used", "conversation.ended", "agent.activity", "agent.registered"),
    *("agent.status_changed", "tool.called"),
)
ODD = [10**400, 2**63, -(2**70), 1.5, 1e300, "7", None, [1], {"a": 1}, "\0", "", {"\0": 1}]


def test_figures_of_any_shape_do_no_harm(client: CollectorClient) -> None:
    """Whatever a client sends is stored; what is no figure counts as none."""
    chain = EventChain()
    sent = []
    for odd in ODD:
        sent += [chain.event(dict.fromkeys(FIGURES, odd), type=kind) for kind in KINDS]
    assert client.send(chain, sent)["accepted"] == len(sent)
    figures = client.get("/v1/metrics")
    assert (figures["messages"], figures["response_time"]["count"]) == (len(ODD), 1)
    assert (figures["tokens_used"], figures["unpriced"]) == (1, len(ODD) - 1)
    for path in ("/v1/usage", "/v1/conversations", "/v1/activities", "/v1/agents", "/v1/overview"):
        client.get(path)
    assert len(client.get("/v1/history", session_id="session-1")["entries"]) == 2 * len(ODD)


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/v1/history", {}),
        ("/v1/history", {"session_id": ""}),
        ("/v1/history", {"session_id": "\0"}),
        ("/v1/history", {"session_id": "x" * 257}),
        ("/v1/conversations", {"status": "over"}),
        ("/v1/conversations", {"limit": 1001}),
        ("/v1/agents", {"status": "asleep"}),
        ("/v1/activities", {"limit": 0}),
        ("/v1/activities", {"since": -1}),
        ("/v1/usage", {"by": "user"}),
        ("/v1/scores", {"by": "user"}),
        ("/v1/usage", {"offset": 2**63}),
        ("/v1/metrics", {"since": 2, "until": 1}),
        ("/v1/metrics", {"until": 2**63}),
        ("/v1/erasures", {"before": "x"}),
    ],
)
def test_what_cannot_be_asked_is_said(
    client: CollectorClient, path: str, parameters: dict[str, Any]
) -> None:
    """422 in the protocol's form, naming the argument."""
    answer = requests.get(client.url + path, headers=client.headers, params=parameters, timeout=10)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "invalid_query"
    assert error["message"].split(":")[0] in {*parameters, "session_id"}


def test_clients_do_not_read_one_another(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """Whatever is asked for, only the key's own client's events answer it."""
    chain, other = EventChain(), either_collector.client(f"client-{uuid.uuid4()}")
    client.send(chain, chain.events(3))
    assert client.get("/v1/metrics")["messages"] == 3
    assert other.get("/v1/metrics")["messages"] == 0
    assert other.get("/v1/conversations")["conversations"] == []
    assert other.get("/v1/history", session_id="session-1")["entries"] == []
    for path in ("/v1/metrics", "/v1/events", "/v1/outboxes", "/v1/conversations/session-1"):
        with pytest.raises(requests.HTTPError, match="403"):
            other.get(path, client_id=client.client_id)
    with pytest.raises(requests.HTTPError, match="403"):
        other.get("/v1/clients")


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the time at which it was made."""
    for outbox in answer.get("outboxes", ()):
        del outbox["checked_at_ms"]
    return answer


def test_an_operator_reads_every_client(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """By a parameter or the header; all that the client can read, and the clients themselves."""
    chain = EventChain()
    client.send(chain, chain.events(3))
    operator = CollectorClient(
        either_collector.url, client.client_id, either_collector.create_key(None)
    )
    paths = ("/v1/metrics", "/v1/events", "/v1/outboxes")
    by_header = {path: timeless(operator.get(path)) for path in paths}
    del operator.headers["X-Client-ID"]
    named = {"client_id": client.client_id}
    for path, said in by_header.items():
        assert timeless(operator.get(path, **named)) == said == timeless(client.get(path))
    assert operator.get("/v1/conversations/session-1", **named) == client.conversation("session-1")
    assert operator.get("/v1/ping") == {"protocol": 1}
    listed: list[str] = []
    after: str | None = ""
    while after is not None:
        page = operator.get("/v1/clients", limit=2, after=after)
        listed, after = [*listed, *page["clients"]], page["next"]
    assert {client.client_id, either_collector.client_id} <= set(listed)
    assert (len(set(listed)), "" in listed) == (len(listed), False)
    for headers, status, code in (
        ({}, 400, "client_required"),
        ({"X-Client-ID": "another"}, 403, "client_mismatch"),
    ):
        parameters = named if headers else {}
        answer = requests.get(f"{either_collector.url}/v1/metrics", timeout=10, params=parameters,
                              headers={**operator.headers, **headers})  # fmt: skip
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_operator_sends_nothing(
    either_collector: CollectorProcess, client: CollectorClient
) -> None:
    """Not in its own name, which it has not, and in no client's; nor does a client lose an event.

    403 makes an SDK that was given the wrong key keep everything.
    """
    chain = EventChain()
    operator = CollectorClient(
        either_collector.url, client.client_id, either_collector.create_key(None)
    )
    answer = operator.post(chain.batch(chain.events(1), client.client_id))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "operator_key")
    assert client.events() == []
