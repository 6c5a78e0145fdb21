"""`Mapper`: what it makes of an event does not depend on what it did before."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.conversations import calls_of, needs_data, read_conversations
from tests.support.mapped import CLIENT, Rows, encoded, logged, mapper, spans
from tests.support.otlp import attributes
from tests.support.traced import traced
from tracker.events import VOCABULARY
from tracker.otlp.mapper import Mapper

if TYPE_CHECKING:
    from pathlib import Path

    from tracker import Tracker


def play(tracker: Tracker) -> None:
    """Log two conversations that take turns, one of which is continued after its end."""
    one = tracker.start_conversation("agent_1", user_id="user_1")
    two = tracker.start_conversation("agent_2")
    tracker.log_system_message(one, "Be kind.")
    for number in range(4):
        tracker.log_user_message(one, f"Question {number}")
        tracker.log_user_message(two, "First half")
        tracker.llm.record_usage("openai", "gpt-4o", 900, 120, session_id=one)
        tracker.log_tool_call(one, "find", {"n": number}, result=[number])
        tracker.log_user_message(two, "second half")
        tracker.log_agent_message(one, f"Answer {number}", tokens_used=9)
        tracker.record_feedback(one, score=number)
        tracker.log_agent_message(two, "Both halves, then.")
    tracker.end_conversation(one, quality_score=4.5)
    tracker.log_user_message(two, "Still there?")
    tracker.record_failed_session(two, "it broke")
    tracker.resume_conversation(one)
    tracker.log_user_message(one, "One more thing")
    tracker.log_agent_message(one, "Yes?")
    tracker.end_conversation(one)
    with traced(tracker) as otel, tracker.conversation("agent_3"):
        for number in range(3):
            given = {
                "openinference.span.kind": "LLM",
                "input.value": f"Question {number}",
                "output.value": f"Answer {number}",
            }
            otel.start_span("model", attributes=given).end()
    tracker.track("cart.abandoned", {"items": 3})


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `play` logs."""
    return logged(tmp_path_factory.mktemp("play"), play)


def test_a_mapper_that_is_restarted_at_every_event_sends_the_same_bytes(
    events: list[dict[str, Any]],
) -> None:
    """As a process that is killed between any two requests does."""
    whole = encoded(events, mapper(events))
    parts = [encoded([event], mapper(events))[0] for event in events]
    assert parts == whole


@needs_data
def test_the_recorded_conversations_are_the_same_from_wherever_they_are_sent(
    tmp_path: Path,
) -> None:
    """Twenty of them, interleaved, and each event also sent by a mapper that knows nothing."""
    calls = [calls_of(n, each) for n, each in enumerate(read_conversations(20))]

    def log(tracker: Tracker) -> None:
        order = random.Random(7)  # noqa: S311 - a shuffle
        left = [list(each) for each in calls]
        while left:
            chosen = order.choice(left)
            chosen.pop(0).make(tracker)
            left = [each for each in left if each]

    found = logged(tmp_path, log)
    whole = encoded(found, mapper(found))
    assert len(whole) == sum(map(len, calls))
    step = 7
    parts = [encoded([event], mapper(found))[0] for event in found[::step]]
    assert parts == whole[::step]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=12))
def test_batches_that_are_sent_again_in_any_order_are_the_same(
    events: list[dict[str, Any]], batches: list[tuple[int, int]]
) -> None:
    """After a refused batch, a bisect, `dead retry` or `resend`, by the same mapper."""
    whole = encoded(events, mapper(events))
    again = mapper(events)
    for start, count in batches:
        assert encoded(events[start : start + count], again) == whole[start : start + count]


def test_an_outbox_without_gaps_is_not_read_again(events: list[dict[str, Any]]) -> None:
    """Sent in order, each conversation is looked up once; that is what a drain costs."""
    rows = Rows(events)
    spans(events, Mapper(CLIENT, {}, rows, logs=False))
    assert rows.reads == 3


def test_an_event_that_had_no_room_in_a_batch_is_not_read_again(
    events: list[dict[str, Any]],
) -> None:
    """It is made a span of once more, the same one, from what is in memory."""
    rows = Rows(events)
    by = Mapper(CLIENT, {}, rows, logs=False)
    once = encoded(events, Mapper(CLIENT, {}, Rows(events), logs=False))
    twice = []
    for event in events:
        first = encoded([event], by)
        twice += encoded([event], by)
        assert twice[-1:] == first
    assert twice == once
    assert rows.reads == 3


def test_what_was_erased_is_not_sent_from_memory(tmp_path: Path) -> None:
    """The question was erased after it was sent, and before the answer was."""

    def log(tracker: Tracker) -> None:
        session = tracker.start_conversation("agent", user_id="user_7")
        tracker.log_user_message(session, "My number is 4711")

    found = logged(tmp_path, log)
    rows = Rows(found)
    by = Mapper(CLIENT, {}, rows, logs=False)
    spans(found, by)
    erased = [{**event, "data": {"erased": True}, "user_id": None} for event in found]
    answer = {**found[1], "seq": 4, "event_id": "0" * 32}
    answer["data"] = {"role": "agent", "content": "Noted."}
    said = {**found[1], "seq": 3, "type": "compliance.erased", "data": {}, "session_id": None}
    rows.events = [*erased, said, answer]
    assert "4711" not in str(spans([answer], by))


@pytest.mark.parametrize("kind", ["otel.span", "otel.log"])
@pytest.mark.parametrize("logs", [False, True])
def test_what_came_in_and_was_erased_is_a_marker_and_no_fault(
    events: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, *, kind: str, logs: bool
) -> None:
    """Else each erasure would be followed by a warning of an event without its fields."""
    erased = {**events[0], "type": kind, "data": {"erased": True}, "user_id": None}
    by = mapper([erased], logs=logs)
    by.begin()
    [(_, message)] = by.messages(erased)
    assert attributes(message.attributes)["tracker.erased"] is True
    assert not caplog.records


TYPES = [
    *sorted(VOCABULARY),
    *("function.observed", "score.recorded", "log.recorded"),
    *("otel.log", "otel.span", "cart.abandoned"),
]
FIELDS = [
    *("role", "content", "name", "arguments", "result", "error", "duration_ms", "metadata"),
    *("score", "value", "severity", "attributes", "erased", "target_trace_id", "resource"),
    *("trace_id", "observed", "@bytes"),
]
VALUES = st.recursive(
    st.sampled_from([None, True, "user", "agent", "", 0, 2**70, -1.5, "\0", "ü"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "text", "url"]), inner)
    ),
    max_leaves=4,
)
TRACES = [
    {"trace_id": "a" * 32, "span_id": "a" * 16, "turn": True},
    {"trace_id": "a" * 32, "span_id": "a" * 16},
    {"trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": "c" * 16},
    {"trace_id": "A" * 32, "span_id": "b" * 16},
    {"trace_id": "0" * 32, "span_id": "b" * 16},
    {"trace_id": 1},
    "x",
]
ODD_EVENTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(TYPES),
        "session_id": st.sampled_from([None, "s-1", "s-2"]),
        "agent_id": st.sampled_from([None, "a"]),
        "user_id": st.none(),
        "timestamp_ms": st.integers(-(2**62), 2**62),
        "data": st.dictionaries(st.sampled_from(FIELDS), VALUES),
    },
    optional={"trace": st.sampled_from(TRACES)},
)


@given(st.lists(ODD_EVENTS, max_size=15), st.booleans())
def test_no_event_whatever_it_says_stops_the_ones_after_it(
    made: list[dict[str, Any]], logs: bool
) -> None:
    """Each becomes a message, with fields of any type: a newer version may have logged them."""
    events = [
        {**event, "seq": seq, "event_id": f"01990f5a-7c1e-7b0e-9f43-{seq:012}"}
        for seq, event in enumerate(made, 1)
    ]
    by = mapper(events, logs=logs)
    by.begin()
    for event in events:
        messages = by.messages(event)
        assert messages
        for _, message in messages:
            assert message.SerializeToString()


def test_context_becomes_the_resource(tmp_path: Path) -> None:
    """What holds for a process is said once, in the names of the conventions."""

    def log(tracker: Tracker) -> None:
        with tracker.context(environment="prod", release="1.4.2", tags={"site": "oslo"}, shift=3):
            tracker.track("cart.abandoned")

    [event] = logged(tmp_path, log)
    [(source, _)] = mapper([event]).messages(event)
    assert source.resource["attributes"] == {
        "service.name": CLIENT,
        "deployment.environment.name": "prod",
        "service.version": "1.4.2",
        "tracker.tag.site": "oslo",
        "tracker.context.shift": 3,
    }


def test_times_that_receivers_cannot_store_are_clamped_and_say_so(tmp_path: Path) -> None:
    """A device without a clock may log in any year."""
    [event] = logged(tmp_path, lambda tracker: tracker.track("cart.abandoned"))
    [span] = spans([{**event, "timestamp_ms": 10**14}])
    assert span.end_time_unix_nano == 9_223_372_036_854_000_000
    assert attributes(span.attributes)["tracker.time.clamped"] is True


@pytest.mark.parametrize("logs", [False, True])
def test_so_are_those_of_spans_and_records_that_came_in(tmp_path: Path, logs: bool) -> None:
    """They keep their ids, by which the others of their trace know them."""
    event, *_ = logged(tmp_path, lambda tracker: tracker.track("cart.abandoned"))
    place = {"trace_id": "0a" * 16, "span_id": "0b" * 8, "resource": {"attributes": {}}}
    told = [{"name": "login", "time": str(10**20)}]
    span = {
        **place,
        "name": "step",
        "kind": "internal",
        "start": "-5",
        "end": str(2**64),
        "events": told,
    }
    record = {**place, "time": "-1", "observed": str(2**63)}
    by = mapper([event], logs=logs)
    for kind, data in (("otel.span", span), ("otel.log", record)):
        [(_, made)] = by.messages({**event, "type": kind, "data": data})
        message: Any = made
        assert message.trace_id.hex() == "0a" * 16
        assert attributes(message.attributes)["tracker.time.clamped"] is True
        if kind == "otel.span":
            assert message.span_id.hex() == "0b" * 8
            assert message.start_time_unix_nano == 0
            assert message.end_time_unix_nano == message.events[0].time_unix_nano == 2**63 - 1
        elif logs:
            assert (message.time_unix_nano, message.observed_time_unix_nano) == (0, 2**63 - 1)
