"""What OpenTelemetry recorded, in the reads of an outbox and of a collector on either database."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import pytest
from opentelemetry.trace import StatusCode, set_span_in_context

from tests.contract.otel.conftest import Traced
from tests.support.cli import call, fill
from tracker import Tracker, canonical
from tracker.events import make_event

if TYPE_CHECKING:
    from tests.conftest import MakeConfig
    from tests.contract.otel.conftest import MakeTraced
    from tests.support.collector import CollectorClient

NOON_NS = 1_793_534_400_000_000_000
BY: tuple[Literal["model", "agent", "session", "day"], ...] = ("model", "agent", "session", "day")
CHAT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 5,
}
LLM: dict[str, Any] = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-4o-2024",
    "llm.token_count.prompt": 10,
    "llm.token_count.completion": 5,
    "llm.token_count.prompt_details.cache_read": 4,
    "llm.cost.total": 0.25,
}


def sums(traced: Traced) -> dict[str | None, tuple[int, int, int]]:
    """Return calls, prompt and completion tokens of each model."""
    return {
        one.key: (one.calls, one.prompt_tokens, one.completion_tokens)
        for one in traced.tracker.llm.get_usage()
    }


@pytest.mark.parametrize(
    ("attributes", "used"),
    [
        (CHAT, (1, 10, 5)),
        (LLM, (1, 10, 5)),
        ({**CHAT, "gen_ai.operation.name": "embeddings"}, (1, 10, 5)),
        ({**LLM, "openinference.span.kind": "EMBEDDING"}, (1, 10, 5)),
        (
            {
                "openinference.span.kind": "EMBEDDING",
                "embedding.model_name": "gpt-4o-2024",
                "llm.token_count.prompt": 8,
                "llm.token_count.total": 8,
            },
            (1, 8, 0),
        ),
        (
            {
                "llm.request.type": "completion",
                "gen_ai.request.model": "gpt-4o-2024",
                "gen_ai.usage.prompt_tokens": 7,
                "gen_ai.usage.completion_tokens": 1,
            },
            (1, 7, 1),
        ),
        ({**CHAT, "gen_ai.operation.name": "invoke_agent"}, None),
        ({**LLM, "openinference.span.kind": "CHAIN"}, None),
        ({**CHAT, "gen_ai.usage.input_tokens": "10", "gen_ai.usage.output_tokens": -1}, None),
        ({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-2024"}, None),
    ],
)
def test_a_span_of_a_model_is_a_model_call(
    traced: Traced, attributes: dict[str, Any], used: tuple[int, int, int] | None
) -> None:
    """By the names of each convention; an agent's span repeats what its models used."""
    traced.span(attributes=attributes)
    assert sums(traced) == ({} if used is None else {"gpt-4o-2024": used})


def test_spans_inside_one_another_count_once(traced: Traced) -> None:
    """The innermost with tokens do, however far inside, and whichever ends first."""
    within = traced.otel.start_as_current_span
    with within("agent"):
        with within("framework", attributes=CHAT), within("retry"):
            late = traced.otel.start_span("client", attributes=LLM)
            traced.span("no tokens", attributes={"gen_ai.operation.name": "chat"})
        late.end()
        traced.span("another", attributes=CHAT)
    assert sums(traced) == {"gpt-4o-2024": (2, 20, 10)}
    (one,) = traced.tracker.llm.get_usage()
    assert (one.cached_tokens, one.cost_usd, one.unpriced) == (4, 0.25, 1)


def test_usage_that_the_application_logs_replaces_the_span_around_it(traced: Traced) -> None:
    """It knows the price; usage logged elsewhere is of another call."""
    with traced.otel.start_as_current_span("chat", attributes=CHAT):
        traced.tracker.llm.record_usage("openai", "own", 11, 6, cost_usd=1.5)
    traced.tracker.llm.record_usage("openai", "own", 1, 1)
    traced.span(attributes=CHAT)
    assert sums(traced) == {"own": (2, 12, 7), "gpt-4o-2024": (1, 10, 5)}


def test_two_processors_count_a_span_once(make_traced: MakeTraced) -> None:
    """The same span is stored twice then."""
    traced = make_traced()
    traced.provider.add_span_processor(traced.processor)
    traced.span(attributes=CHAT)
    assert len(traced.data()) == 2
    assert sums(traced) == {"gpt-4o-2024": (1, 10, 5)}


def work(tracker: Tracker, traced: Traced) -> None:
    """Let instrumented and own code work side by side."""
    with tracker.conversation("a-1", user_id="u-1", session_id="s-1"):
        tracker.log_user_message(content="Well?")
        with traced.otel.start_as_current_span("framework", attributes=CHAT):
            traced.span("client", attributes=LLM)
        with traced.otel.start_as_current_span("chat", attributes=CHAT):
            tracker.llm.record_usage("openai", "own", 11, 6, cost_usd=1.5)
        tracker.log_agent_message(content="Well.")
    traced.span(attributes={**LLM, "agent.name": "a-2", "llm.model_name": "mini"})
    traced.span("POST", attributes={"http.request.method": "POST"})


def test_a_collector_counts_the_same(config: MakeConfig, client: CollectorClient) -> None:
    """On SQLite and on PostgreSQL, by each key, and filtered."""
    settings = config(base_url=client.url, api_key=client.api_key, client_id=client.client_id)
    with Tracker(settings) as tracker:
        traced = Traced(tracker)
        work(tracker, traced)
        assert tracker.flush().pending == 0
        local = {by: tracker.llm.get_usage(by) for by in BY}
        metrics = tracker.performance.get_metrics("a-1")
        (conversation,) = tracker.performance.list_conversations()
        traced.provider.shutdown()
    assert [one.key for one in local["model"]] == ["own", "gpt-4o-2024", "mini"]
    assert {one.key: one.calls for one in local["agent"]} == {"a-1": 2, "a-2": 1}
    for by, usage in local.items():
        assert client.get("/v1/usage", by=by)["usage"] == [asdict(one) for one in usage], by
    assert (metrics.llm_calls, metrics.llm_tokens, metrics.cost_usd) == (2, 32, 1.75)
    assert sum(day.llm_calls for day in metrics.days) == 2
    assert (conversation.cost_usd, conversation.unpriced) == (1.75, 0)
    told = client.get("/v1/metrics", agent_id="a-1")
    assert (told["llm_calls"], told["llm_tokens"], told["cost_usd"]) == (2, 32, 1.75)
    (one,) = client.get("/v1/conversations")["conversations"]
    assert (one["cost_usd"], one["unpriced"]) == (1.75, 0)
    of_s = client.get("/v1/usage", by="model", session_id="s-1")["usage"]
    assert [one["key"] for one in of_s] == ["own", "gpt-4o-2024"]


ODD = (
    *(None, True, -1, 2**70, 1e300, "7", "\0", [7], {"@double": "nan"}, {"a": {"b": 7}}),
    *("x" * 10_000, "'; DROP TABLE events; --"),
)


def test_odd_attributes_do_no_harm(config: MakeConfig, client: CollectorClient) -> None:
    """Whatever they are, the reads answer, the same everywhere; what is damaged counts nothing."""
    settings = config(base_url=client.url, api_key=client.api_key, client_id=client.client_id)
    odd = [{**CHAT, name: value} for value in ODD for name in CHAT]
    given = [*odd, *ODD, *(dict.fromkeys(CHAT, value) for value in ODD)]
    events = []
    for number, attributes in enumerate(given):
        ids = canonical.encode({"span_id": f"{number:016x}", "trace_id": f"{number % 7 + 1:032x}"})
        names = ("attributes", "start", "end", "name", "status", "events")
        data = dict.fromkeys(names, attributes)
        events.append(make_event("otel.span", data, trace=ids))
    fill(settings, events)
    with Tracker(settings) as tracker:
        assert tracker.flush().pending == 0
        local = tracker.llm.get_usage()
        traces = [tracker.performance.get_trace(f"{number:032x}") for number in range(1, 8)]
    assert sum(one.calls for one in local) > len(ODD)
    assert client.get("/v1/usage")["usage"] == [asdict(one) for one in local]
    for number, trace in enumerate(traces, 1):
        assert trace is not None
        told = client.get(f"/v1/traces/{number:032x}")
        assert [s["span_id"] for s in told["spans"]] == [s.span_id for s in trace.spans]


def test_damaged_rows_do_no_harm(traced: Traced) -> None:
    """They count nothing; the others do."""
    for _ in range(5):
        traced.span(attributes=CHAT)
    with closing(sqlite3.connect(traced.path)) as connection:
        for seq, data in enumerate(("{", b"\xff", "[1]", '{"attributes":{"a":1e999}}'), 1):
            connection.execute("UPDATE events SET data = ? WHERE seq = ?", (data, seq))
        connection.commit()
    assert sums(traced) == {"gpt-4o-2024": (1, 10, 5)}
    assert traced.tracker.performance.get_metrics().llm_calls == 1


def test_a_trace_shows_spans_of_opentelemetry(make_traced: MakeTraced) -> None:
    """With their own times, to the nanosecond, their status and what raised, and what is inside."""
    traced = make_traced(options={"started": True})
    with suppress(KeyError), traced.otel.start_as_current_span("agent") as outer:
        with traced.tracker.span("own"):
            pass
        traced.otel.start_span("chat", start_time=NOON_NS + 7).end(NOON_NS + 2_000_009)
        raise KeyError("x")
    under_way = traced.otel.start_span("under way", context=set_span_in_context(outer))
    found = traced.tracker.performance.get_trace(f"{outer.get_span_context().trace_id:032x}")
    under_way.end()
    assert found is not None
    (agent,) = found.spans
    inside = {span.name: span for span in agent.children}
    own, chat, open_one = inside["own"], inside["chat"], inside["under way"]
    assert (agent.kind, agent.name, agent.status) == ("otel", "agent", "error")
    assert (agent.error, agent.error_type) == ("KeyError: 'x'", "KeyError")
    assert "KeyError: 'x'" in (agent.traceback or "")
    assert (own.kind, own.start, len(inside)) == ("span", None, 3)
    assert (chat.start, chat.end) == (str(NOON_NS + 7), str(NOON_NS + 2_000_009))
    assert (chat.started_at_ms, chat.duration_ms, chat.status) == (NOON_NS // 10**6, 2.0, None)
    assert (open_one.kind, open_one.end, open_one.duration_ms) == ("otel", None, None)
    shown = call("--outbox", traced.path, "trace", found.trace_id)
    assert shown.exit_code == 0
    for line in ("agent", "own", "chat", "under way", "4 spans", "KeyError: 'x'"):
        assert line in shown.stdout, line


def parts(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


ASKED = [parts("system", "Be brief."), parts("user", "Hm?"), parts("assistant", "Hm."),
         parts("user", "Where is it?")]  # fmt: skip
CALL = {"role": "assistant", "parts": [{"type": "tool_call", "id": "c-1", "name": "find"}]}
GEN_AI = {
    **CHAT,
    "gen_ai.input.messages": json.dumps([*ASKED, CALL, {"role": "tool", "parts": []}]),
    "gen_ai.output.messages": json.dumps([parts("assistant", "At home.")]),
}
OPEN_INFERENCE = {
    **LLM,
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.contents.0.message_content.type": "image",
    "llm.input_messages.0.message.contents.1.message_content.type": "text",
    "llm.input_messages.0.message.contents.1.message_content.text": "Where is it?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "At home.",
    "output.value": '{"id":"r-1"}',
    "output.mime_type": "application/json",
}
OLDER = {
    "llm.request.type": "chat",
    "gen_ai.request.model": "gpt-4o-2024",
    "llm.usage.total_tokens": 15,
    "gen_ai.prompt.0.role": "user",
    "gen_ai.prompt.0.content": '[{"type":"text","text":"Where is it?"}]',
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "At home.",
}
PLAIN = {**LLM, "input.value": "Where is it?", "output.value": "At home."}


def test_a_transcript_says_why_a_tool_failed(traced: Traced) -> None:
    """As the trace does: by its status, or by the exception that was recorded."""
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "find"}
    with traced.tracker.conversation("a", session_id="s-1"):
        for message, recorded in (("lost", True), (None, True), (None, False)):
            with traced.otel.start_as_current_span("find", attributes=tool) as span:
                if recorded:
                    span.record_exception(KeyError("order 7"))
                span.set_status(StatusCode.ERROR, message)
    calls = [
        entry.tool_call for entry in traced.tracker.performance.get_conversation_history("s-1")
    ]
    assert [call and call.error for call in calls] == ["lost", "'order 7'", "error"]


@pytest.mark.parametrize("attributes", [GEN_AI, OPEN_INFERENCE, OLDER, PLAIN])
def test_a_conversation_has_what_spans_tell(
    config: MakeConfig, client: CollectorClient, attributes: dict[str, Any]
) -> None:
    """Question, answer and tool call, each once, by the names of each convention."""
    settings = config(base_url=client.url, api_key=client.api_key, client_id=client.client_id)
    within = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "find"}
    called = {"gen_ai.tool.call.id": "c-1", "gen_ai.tool.call.arguments": '{"id":7}'}
    with Tracker(settings) as tracker:
        traced = Traced(tracker)
        with tracker.conversation("a", session_id="s-1"):
            with traced.otel.start_as_current_span("tool", attributes={"tool.name": "x"}) as tool:
                tool.set_attributes({**within, **called, "gen_ai.tool.call.result": "sent"})
            with traced.otel.start_as_current_span("framework", attributes=attributes):
                start = time.time_ns()
                span = traced.otel.start_span("client", attributes=attributes, start_time=start)
                span.end(start + 7_000_000)
            traced.span("agent", attributes={**attributes, "gen_ai.operation.name": "create_agent"})
        whole = tracker.performance.get_conversation_history("s-1")
        bare = tracker.performance.get_conversation_history("s-1", include_content=False)
        last = tracker.performance.get_conversation_history("s-1", limit=1)
        assert tracker.flush().pending == 0
        traced.provider.shutdown()
    use, said = whole
    assert (use.role, use.type) == ("tool", "otel.span")
    assert use.tool_call is not None
    assert (use.tool_call.name, use.tool_call.call_id) == ("find", "c-1")
    assert (use.tool_call.arguments, use.tool_call.result) == ({"id": 7}, "sent")
    assert (said.role, said.prompt, said.content) == ("agent", "Where is it?", "At home.")
    assert (said.model, said.tokens_used, said.response_time_ms) == ("gpt-4o-2024", 15, 7)
    assert [(entry.prompt, entry.content) for entry in bare] == [(None, None)] * 2
    assert last == (said,)
    told = client.get("/v1/history", session_id="s-1")["entries"]
    assert [(e["event_id"], e["prompt"], e["content"]) for e in told] == [
        (entry.event_id, entry.prompt, entry.content) for entry in whole
    ]
    shown = call("--outbox", settings.outbox_path, "conversation", "s-1").stdout
    assert shown.count("Where is it?") == shown.count("At home.") == 1


def test_what_the_application_logs_is_the_transcript(traced: Traced) -> None:
    """Spans would repeat it: each role that is logged is not taken from them."""
    tool = {"openinference.span.kind": "TOOL", "tool.name": "find"}
    for session_id in ("question", "answer", "tool"):
        with traced.tracker.conversation("a", session_id=session_id) as c:
            if session_id != "tool":
                c.user("Where?") if session_id == "question" else c.agent("Here.")
            else:
                c.tool("find", {}, result=1)
            traced.span(attributes=PLAIN)
            traced.span(attributes=tool)
    read = traced.tracker.performance.get_conversation_history
    found = {
        session_id: [(e.type, e.prompt, e.content) for e in read(session_id)]
        for session_id in ("question", "answer", "tool")
    }
    assert found == {
        "question": [
            ("message.logged", None, "Where?"),
            ("otel.span", None, "At home."),
            ("otel.span", None, None),
        ],
        "answer": [("message.logged", None, "Here."), ("otel.span", None, None)],
        "tool": [("tool.called", None, None), ("otel.span", "Where is it?", "At home.")],
    }


def test_odd_messages_do_no_harm(config: MakeConfig, client: CollectorClient) -> None:
    """Whatever they are, the conversation can be read, here and there."""
    settings = config(base_url=client.url, api_key=client.api_key, client_id=client.client_id)
    halved = '[{"role":"user","content":"\\ud800\\u0000"}]'
    tool = {"openinference.span.kind": "TOOL", "input.value": "{}", "output.value": "[]"}
    odd = (
        *ODD,
        halved,
        "[",
        '["a",{"role":7,"parts":{"a":1}},[[]]]',
        [None, {"role": "user"}],
        "[]",
    )
    events = [
        make_event(
            "otel.span", {"attributes": {**attributes, name: value}}, session_id="s-1",
            trace=canonical.encode({"span_id": f"{number:016x}", "trace_id": "1" * 32}),
        )
        for number, (attributes, name, value) in enumerate(
            (attributes, name, value)
            for attributes in (GEN_AI, OPEN_INFERENCE, OLDER, PLAIN, tool)
            for name in attributes
            for value in odd
        )
    ]  # fmt: skip
    fill(settings, [*events, make_event("conversation.started", {}, session_id="s-1")])
    with Tracker(settings) as tracker:
        history = tracker.performance.get_conversation_history("s-1")
        assert tracker.flush().pending == 0
    assert len(history) > len(odd)
    told = client.get("/v1/history", session_id="s-1", limit=1_000)["entries"]
    assert [e["event_id"] for e in told] == [entry.event_id for entry in history][-len(told) :]
    for options in ((), ("--json",)):
        assert (
            call("--outbox", settings.outbox_path, "conversation", "s-1", *options).exit_code == 0
        )


def test_a_session_that_only_spans_name_can_be_read(traced: Traced) -> None:
    """By its id; it was never opened, so that no list waits for its end."""
    traced.span(attributes={**PLAIN, "session.id": "s-7"})
    assert traced.tracker.performance.list_conversations() == ()
    shown = call("--outbox", traced.path, "conversation", "s-7")
    assert shown.exit_code == 0
    assert "At home." in shown.stdout
