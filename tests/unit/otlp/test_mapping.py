"""Events as spans: conversations are sessions, turns are traces, and every span has its place."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.mapped import CLIENT, logged, spans
from tests.support.otlp import attributes
from tests.support.traced import traced
from tracker.otlp import ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tracker import Tracker

ERROR = 2


def said(span: Span) -> dict[str, Any]:
    """Return a span's attributes."""
    return attributes(span.attributes)


def one(found: list[Span], name: str) -> Span:
    """Return the span of this name, of which there is one."""
    [span] = [each for each in found if each.name == name]
    return span


def sent(folder: Path, log: Callable[[Tracker], object]) -> list[Span]:
    """Return the spans of what a function logs."""
    return spans(logged(folder, log))


# --- turns ----------------------------------------------------------------------------------------


def by_ids(tracker: Tracker) -> None:
    """Log a conversation by its id, outside of any block."""
    session = tracker.start_conversation("agent_1", user_id="user_7")
    tracker.log_user_message(session, "Where is order 7?")
    tracker.log_tool_call(session, "find_order", {"id": 7}, result={"sent": True}, duration_ms=250)
    tracker.llm.record_usage(
        "openai", "gpt-4o", 900, 120, session_id=session, latency_ms=830, cached_tokens=5
    )
    tracker.log_agent_message(session, "On its way.", tokens_used=9)
    tracker.record_feedback(session, score=4, comment="nice", source="reviewer")
    tracker.end_conversation(session, quality_score=4.5, outcome="resolved")


def in_a_block(tracker: Tracker) -> None:
    """Log the same in a block."""
    with tracker.conversation("agent_1", user_id="user_7") as c:
        c.user("Where is order 7?")
        with c.tool("find_order", {"id": 7}) as call:
            call.result = {"sent": True}
        tracker.llm.record_usage("openai", "gpt-4o", 900, 120, latency_ms=830, cached_tokens=5)
        c.agent("On its way.", tokens_used=9)
        tracker.record_feedback(c.session_id, score=4, comment="nice", source="reviewer")
        c.end(quality_score=4.5, outcome="resolved")


@pytest.mark.parametrize("log", [by_ids, in_a_block])
def test_a_turn_is_a_trace_whose_root_is_the_answer(
    tmp_path: Path, log: Callable[[Tracker], None]
) -> None:
    """From the user's message to the agent's, with what happened in between inside it."""
    found = sent(tmp_path, log)
    root = one(found, "invoke_agent agent_1")
    inside = [each for each in found if each.trace_id == root.trace_id and each is not root]
    names = {"message user", "execute_tool find_order", "chat gpt-4o", "feedback"}
    assert {each.name for each in inside} >= names
    assert all(each.parent_span_id == root.span_id for each in inside)
    assert root.parent_span_id == b""
    asked = one(found, "message user")
    assert root.start_time_unix_nano == asked.start_time_unix_nano <= root.end_time_unix_nano


@pytest.mark.parametrize("log", [by_ids, in_a_block])
def test_the_root_of_a_turn_says_what_was_asked_and_answered(
    tmp_path: Path, log: Callable[[Tracker], None]
) -> None:
    """In the names of both conventions, since receivers read one or the other."""
    about = said(one(sent(tmp_path, log), "invoke_agent agent_1"))
    assert about["input.value"] == "Where is order 7?"
    assert about["output.value"] == "On its way."
    assert about["openinference.span.kind"] == "AGENT"
    assert about["gen_ai.operation.name"] == "invoke_agent"
    [question] = json.loads(about["gen_ai.input.messages"])
    assert question == {
        "role": "user",
        "parts": [{"type": "text", "content": "Where is order 7?"}],
    }
    [answer] = json.loads(about["gen_ai.output.messages"])
    assert answer["role"] == "assistant"
    assert about["tracker.tokens_used"] == 9
    assert "gen_ai.usage.output_tokens" not in about, "the model's own figure counts"


def test_every_span_of_a_conversation_is_of_its_session_and_user(tmp_path: Path) -> None:
    """Receivers group by these."""
    for span in sent(tmp_path, by_ids):
        about = said(span)
        assert about["session.id"] == about["gen_ai.conversation.id"]
        assert about["user.id"] == "user_7"
        assert about["gen_ai.agent.id"] == "agent_1"
        assert about["tracker.event.id"]


def test_a_model_call_and_a_tool_call_are_spans_of_their_length(tmp_path: Path) -> None:
    """They end when they are logged, and began as long before as they say."""
    found = sent(tmp_path, by_ids)
    chat, tool = one(found, "chat gpt-4o"), one(found, "execute_tool find_order")
    assert chat.end_time_unix_nano - chat.start_time_unix_nano == 830_000_000
    assert tool.end_time_unix_nano - tool.start_time_unix_nano == 250_000_000
    assert said(chat)["gen_ai.usage.input_tokens"] == 900
    assert said(chat)["gen_ai.usage.cache_read.input_tokens"] == 5
    assert said(tool)["gen_ai.tool.call.arguments"] == '{"id":7}'
    assert said(tool)["gen_ai.tool.call.result"] == '{"sent":true}'


def test_the_root_of_a_conversation_has_its_first_question_and_its_score(tmp_path: Path) -> None:
    """It goes from the start to the end, in a trace of its own."""
    found = sent(tmp_path, by_ids)
    root = one(found, "conversation agent_1")
    assert root.parent_span_id == b""
    assert said(root)["input.value"] == "Where is order 7?"
    assert said(root)["output.value"] == "On its way."
    [evaluation] = root.events
    assert evaluation.name == "gen_ai.evaluation.result"
    assert attributes(evaluation.attributes) == {
        "gen_ai.evaluation.name": "quality_score",
        "gen_ai.evaluation.score.value": 4.5,
    }
    assert one(found, "conversation.started").parent_span_id == root.span_id


def test_a_turn_that_is_never_answered_has_a_root_in_the_end(tmp_path: Path) -> None:
    """When its conversation fails, so does the turn."""

    def log(tracker: Tracker) -> None:
        session = tracker.start_conversation("agent_1")
        tracker.log_user_message(session, "Hello?")
        tracker.record_failed_session(session, "the model is away")

    root = one(sent(tmp_path, log), "invoke_agent agent_1")
    assert said(root)["tracker.turn.answered"] is False
    assert (root.status.code, root.status.message) == (ERROR, "the model is away")


def a_model(tracker: Tracker, asked: str, answered: str) -> None:
    """Record a call of a model, as an instrumentor does, in the current conversation."""
    with traced(tracker) as otel:
        for name, said in (("tool", ""), ("text", answered)):
            messages = [{"role": "assistant", "parts": [{"type": name, "content": said}]}]
            given = {
                "gen_ai.operation.name": "chat",
                "gen_ai.input.messages": json.dumps([{"role": "user", "content": asked}]),
                "gen_ai.output.messages": json.dumps(messages),
            }
            otel.start_span("chat m", attributes=given).end()


def test_the_roots_show_what_spans_tell_where_no_message_is_logged(tmp_path: Path) -> None:
    """As transcripts do: so a receiver shows the first input of an agent under an instrumentor."""

    def log(tracker: Tracker) -> None:
        with tracker.conversation("agent_1"):
            a_model(tracker, "Where is order 7?", "On its way.")
            a_model(tracker, "And order 8?", "Lost.")

    found = sent(tmp_path, log)
    for name in ("invoke_agent agent_1", "conversation agent_1"):
        about = said(one(found, name))
        assert (about["input.value"], about["output.value"]) == ("Where is order 7?", "Lost.")
        assert "tracker.turn.answered" not in about
    assert "Lost." in said(one(found, "invoke_agent agent_1"))["gen_ai.output.messages"]


def test_what_is_logged_goes_before_what_spans_tell(tmp_path: Path) -> None:
    """Both of question and answer, each by itself."""

    def log(tracker: Tracker) -> None:
        with tracker.conversation("agent_1") as c:
            c.user("Logged?")
            a_model(tracker, "Told?", "Told.")
        with tracker.conversation("agent_2") as c:
            c.user("Logged?")
            a_model(tracker, "Told?", "Told.")
            c.agent("Logged.")

    found = sent(tmp_path, log)
    for agent, answer in (("agent_1", "Told."), ("agent_2", "Logged.")):
        for name in ("invoke_agent", "conversation"):
            about = said(one(found, f"{name} {agent}"))
            assert (about["input.value"], about["output.value"]) == ("Logged?", answer)


def test_later_messages_belong_to_the_turn_that_was_answered(tmp_path: Path) -> None:
    """A second answer is part of the first one's turn; the next question opens another."""

    def log(tracker: Tracker) -> None:
        session = tracker.start_conversation("agent_1")
        tracker.log_user_message(session, "One?")
        tracker.log_agent_message(session, "First.")
        tracker.log_agent_message(session, "And more.")
        tracker.log_user_message(session, "Two?")
        tracker.log_agent_message(session, "Second.")

    found = sent(tmp_path, log)
    first, second = (each for each in found if each.name == "invoke_agent agent_1")
    more = one(found, "message agent")
    assert more.trace_id == first.trace_id != second.trace_id
    assert more.parent_span_id == first.span_id


def test_a_span_of_the_application_surrounds_what_is_logged_in_it(tmp_path: Path) -> None:
    """One trace has the application's spans and its messages, with the ids that were logged."""

    def log(tracker: Tracker) -> None:
        with (
            tracker.span("request", input="GET /") as span,
            tracker.conversation("agent_1") as c,
        ):
            c.user("Hello?")
            c.agent("Hi!")
            span.output = "200"

    found = sent(tmp_path, log)
    assert len({each.trace_id for each in found}) == 1
    request = one(found, "request")
    conversation = one(found, "conversation agent_1")
    turn = one(found, "invoke_agent agent_1")
    assert request.parent_span_id == b""
    assert conversation.parent_span_id == request.span_id
    assert turn.parent_span_id == conversation.span_id
    assert said(request)["output.value"] == "200"


def test_an_observed_function_that_fails_is_a_span_that_failed(tmp_path: Path) -> None:
    """With the type of the exception."""

    def log(tracker: Tracker) -> None:
        @tracker.observe
        def fetch() -> None:
            raise LookupError("no such order")

        with pytest.raises(LookupError):
            fetch()

    [span] = sent(tmp_path, log)
    assert span.name.endswith("fetch")
    assert span.status.code == ERROR
    assert said(span)["error.type"] == "LookupError"


def test_an_event_without_a_conversation_is_a_trace_by_itself(tmp_path: Path) -> None:
    """With its fields, objects as JSON text."""
    found = logged(tmp_path, lambda tracker: tracker.track("cart.abandoned", {"items": {"a": 1}}))
    [span] = spans(found)
    assert span.trace_id.hex() == ids.trace_of_event(CLIENT, found[0]["event_id"])
    assert said(span)["tracker.items"] == '{"a":1}'


def test_a_severe_security_event_is_an_error(tmp_path: Path) -> None:
    """So it is found where people look for errors."""
    [span] = sent(tmp_path, lambda t: t.security.report_event("access_denied", "critical"))
    assert (span.name, span.status.code) == ("security.reported", ERROR)
    assert said(span)["openinference.span.kind"] == "GUARDRAIL"


def test_a_score_is_an_evaluation(tmp_path: Path) -> None:
    """A number is a value, anything else a label; a trace that it names is where it is sent."""
    base = logged(tmp_path, lambda tracker: tracker.track("cart.abandoned"))[0]
    target = "ab" * 16
    score = {**base, "type": "score.recorded", "trace": None}
    del score["trace"]
    number, label = (
        {**score, "data": {"name": "tone", "value": value, "target_trace_id": target}}
        for value in (0.5, "rude")
    )
    for event, field, value in ((number, "value", 0.5), (label, "label", "rude")):
        [span] = spans([event])
        assert span.name == "score tone"
        assert span.trace_id.hex() == target
        [evaluation] = span.events
        assert attributes(evaluation.attributes)[f"gen_ai.evaluation.score.{field}"] == value


def test_pictures_are_named_in_messages_and_never_sent(tmp_path: Path) -> None:
    """As they are stored: by media type, size and digest, or by their address."""

    def log(tracker: Tracker) -> None:
        session = tracker.start_conversation("agent_1")
        url = {"url": "https://x.example/a.png"}
        parts = [{"type": "text", "text": "This?"}, {"type": "image_url", "image_url": url}]
        tracker.log_message(session, "user", parts)
        tracker.log_agent_message(session, "A cat.")

    about = said(one(sent(tmp_path, log), "invoke_agent agent_1"))
    [question] = json.loads(about["gen_ai.input.messages"])
    assert question["parts"] == [
        {"type": "text", "content": "This?"},
        {"type": "uri", "modality": "image", "uri": "https://x.example/a.png"},
    ]


# --- any course of events -------------------------------------------------------------------------

SESSIONS = ("s-1", "s-2")
STEPS = st.sampled_from(
    [
        *("start", "resume", "user", "agent", "system", "tool", "usage", "feedback", "end"),
        *("fail", "span", "track", "security", "observe"),
    ]
)
WHERE = st.sampled_from(["by id", "in a span", "in a block", "in a block in a span"])
COURSE = st.lists(
    st.tuples(st.sampled_from(SESSIONS), WHERE, st.lists(STEPS, max_size=6)), max_size=5
)


def take(tracker: Tracker, session: str, step: str) -> None:
    """Make one call about a conversation."""
    calls: dict[str, Callable[[], object]] = {
        "start": lambda: tracker.start_conversation("agent_1", session_id=session),
        "resume": lambda: tracker.resume_conversation(session),
        "user": lambda: tracker.log_user_message(session, "?"),
        "agent": lambda: tracker.log_agent_message(session, "!"),
        "system": lambda: tracker.log_system_message(session, "."),
        "tool": lambda: tracker.log_tool_call(session, "find", {}),
        "usage": lambda: tracker.llm.record_usage("p", "m", 1, 1, session_id=session),
        "feedback": lambda: tracker.record_feedback(session, score=1),
        "end": lambda: tracker.end_conversation(session),
        "fail": lambda: tracker.record_failed_session(session, "it broke"),
        "track": lambda: tracker.track("cart.abandoned", session_id=session),
        "security": lambda: tracker.security.report_event("access_denied", "low"),
        "observe": tracker.observe(lambda: None),
        "span": lambda: tracker.span("step").__enter__().__exit__(None, None, None),
    }
    calls[step]()


def play(tracker: Tracker, course: list[tuple[str, str, list[str]]]) -> None:
    """Log a course of events."""
    for session, where, steps in course:
        if where == "by id":
            for step in steps:
                take(tracker, session, step)
        elif where == "in a span":
            with tracker.span("around"):
                for step in steps:
                    take(tracker, session, step)
        elif where == "in a block":
            with tracker.conversation("agent_1", session_id=session):
                for step in steps:
                    take(tracker, session, step)
        else:
            with tracker.span("around"), tracker.conversation("agent_1", session_id=session):
                for step in steps:
                    take(tracker, session, step)


@settings(max_examples=30)
@given(COURSE)
def test_any_course_of_events_makes_spans_that_fit_together(
    course: list[tuple[str, str, list[str]]],
) -> None:
    """Each event is a span, no id is used twice, and a span and its parent are in one trace.

    Only the root of a conversation is sent again, with a later end, if it goes on after its end.
    """
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        events = logged(Path(folder), lambda tracker: play(tracker, course))
    found = spans(events)
    assert {said(span)["tracker.event.id"] for span in found} == {e["event_id"] for e in events}
    once = [each for each in found if each.name.split(" ")[0] != "conversation"]
    roots = {each.span_id for each in found} - {each.span_id for each in once}
    assert len({each.span_id for each in once}) == len(once)
    assert not roots & {each.span_id for each in once}
    traces = {each.span_id: each.trace_id for each in found}
    for span in found:
        if span.parent_span_id in traces:
            assert traces[span.parent_span_id] == span.trace_id
        assert span.parent_span_id != span.span_id


@settings(max_examples=30)
@given(COURSE)
def test_once_every_conversation_has_ended_no_span_lacks_its_parent(
    course: list[tuple[str, str, list[str]]],
) -> None:
    """So no trace is shown as in progress for ever."""

    def log(tracker: Tracker) -> None:
        play(tracker, course)
        for session in SESSIONS:
            take(tracker, session, "end")

    with tempfile.TemporaryDirectory() as folder:
        found = spans(logged(Path(folder), log))
    known = {each.span_id for each in found}
    missing = [
        each.name for each in found if each.parent_span_id and each.parent_span_id not in known
    ]
    assert missing == []
