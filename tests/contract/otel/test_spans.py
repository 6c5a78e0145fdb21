"""Spans of OpenTelemetry as events in a real outbox."""

from __future__ import annotations

import base64
import logging
import math
import multiprocessing
import os
import random
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from tests.contract.otel.conftest import Traced, rows
from tracker import AsyncTracker, Tracker, ValidationError
from tracker.otel import OutboxSpanExporter, OutboxSpanProcessor
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from tests.conftest import MakeConfig
    from tests.contract.otel.conftest import MakeTraced

OPENAI = "sk-proj-" + "aB3" * 20
REMOTE = SpanContext(
    0xA1B2, 0xC3D4, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("v", "1")])
)


def test_a_span_is_stored_with_all_that_it_has(traced: Traced) -> None:
    """Times, kind, attributes, events, links, status, where it comes from: as plain JSON."""
    parent = trace.set_span_in_context(trace.NonRecordingSpan(REMOTE))
    span = traced.otel.start_span(
        "chat gpt-4o",
        context=parent,
        kind=SpanKind.CLIENT,
        attributes={"i": 1, "f": 1.0, "b": True, "t": ("x", "y"), "nan": math.nan},
        links=[Link(REMOTE, {"why": "retry"})],
        start_time=1_790_000_000_123_456_789,
    )
    span.add_event("token", {"n": 7}, timestamp=1_790_000_000_200_000_001)
    span.set_status(Status(StatusCode.ERROR, "too slow"))
    span.end(1_790_000_000_987_654_321)
    (row,) = traced.rows()
    where = span.get_span_context()
    ids = {
        "trace_id": f"{0xA1B2:032x}",
        "span_id": f"{where.span_id:016x}",
        "parent_span_id": f"{0xC3D4:016x}",
    }
    assert row.trace == ids
    assert row.data == {
        **ids,
        "parent_is_remote": True,
        "trace_state": "v=1",
        "name": "chat gpt-4o",
        "kind": "client",
        "start": "1790000000123456789",
        "end": "1790000000987654321",
        "attributes": {"i": 1, "f": 1.0, "b": True, "t": ["x", "y"], "nan": {"@double": "nan"}},
        "events": [{"name": "token", "time": "1790000000200000001", "attributes": {"n": 7}}],
        "links": [
            {
                "trace_id": ids["trace_id"],
                "span_id": ids["parent_span_id"],
                "trace_state": "v=1",
                "is_remote": True,
                "attributes": {"why": "retry"},
            }
        ],
        "status": {"code": "error", "message": "too slow"},
        "resource": {"attributes": {"service.name": "kiosk"}},
        "scope": {"name": "a.library", "version": "1.2"},
    }
    assert isinstance(row.data["attributes"]["f"], float)


def test_what_a_span_dropped_by_its_limits_is_counted(make_traced: MakeTraced) -> None:
    """As OpenTelemetry counts it."""
    traced = make_traced()
    provider = TracerProvider(
        span_limits=SpanLimits(max_attributes=1, max_events=1, max_links=1), shutdown_on_exit=False
    )
    provider.add_span_processor(traced.processor)
    span = provider.get_tracer("x").start_span("s", links=[Link(REMOTE), Link(REMOTE)])
    for number in range(3):
        span.set_attribute(f"a{number}", number)
        span.add_event(f"e{number}")
    span.end()
    (data,) = traced.data()
    assert [data[f"dropped_{part}"] for part in ("attributes", "events", "links")] == [2, 2, 1]


def test_a_span_is_on_disk_when_it_has_ended(traced: Traced) -> None:
    """Another connection reads it at once."""
    for number in range(5):
        traced.span(f"step {number}")
        assert [data["name"] for data in traced.data()][number] == f"step {number}"


def test_spans_that_are_not_sampled_are_not_stored(traced: Traced) -> None:
    """As the specification asks for."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(traced.processor)
    provider.get_tracer("x").start_span("unsampled").end()
    assert traced.data() == []


# --- conversations -------------------------------------------------------------------------------


def test_a_span_in_a_conversation_has_its_ids(traced: Traced) -> None:
    """As attributes, for any backend, and in the event's envelope."""
    with traced.tracker.conversation("agent_1", user_id="user_7") as c:
        traced.span()
    (row,) = traced.rows()
    assert (row.agent_id, row.session_id, row.user_id) == ("agent_1", c.session_id, "user_7")
    assert row.data["attributes"] == {
        "gen_ai.conversation.id": c.session_id,
        "session.id": c.session_id,
        "user.id": "user_7",
        "gen_ai.agent.id": "agent_1",
    }


@pytest.mark.parametrize("key", ["gen_ai.conversation.id", "session.id", "langfuse.session.id"])
def test_ids_that_a_span_has_come_before_those_of_the_conversation(
    traced: Traced, key: str
) -> None:
    """Whoever made the span knows better."""
    given = {key: "s-1", "enduser.id": "u-1", "gen_ai.agent.id": "a-1"}
    with traced.tracker.conversation("agent_1", user_id="user_7"):
        traced.span(attributes=given)
    (row,) = traced.rows()
    assert (row.agent_id, row.session_id, row.user_id) == ("a-1", "s-1", "u-1")
    assert row.data["attributes"] == given


@pytest.mark.parametrize(
    ("resource", "settings", "expected"),
    [
        ({"service.version": "2.1"}, {}, {"release": "2.1"}),
        ({"deployment.environment.name": "live", "deployment.environment": "old"}, {},
         {"environment": "live"}),
        ({"deployment.environment": "live", "service.version": "2.1"}, {"release": "2.2"},
         {"environment": "live", "release": "2.2"}),
        ({"deployment.environment.name": "", "service.version": 7}, {}, None),
        ({"service.version": OPENAI}, {"tags": {"a": "b"}},
         {"release": "[secret:openai_key:long]", "tags": {"a": "b"}}),
    ],
)  # fmt: skip
def test_a_resource_says_environment_and_release_where_the_tracker_does_not(
    make_traced: MakeTraced,
    resource: dict[str, Any],
    settings: dict[str, Any],
    expected: dict[str, Any] | None,
) -> None:
    """So that the filters of reads and commands find spans; a block's come before both."""
    traced = make_traced(options={"started": True}, **settings)
    provider = TracerProvider(resource=Resource(resource), shutdown_on_exit=False)
    provider.add_span_processor(traced.processor)
    provider.get_tracer("x").start_span("step").end()
    with traced.tracker.context(release="block"):
        provider.get_tracer("x").start_span("step").end()
    found = [row.context for row in traced.rows()]
    assert found == [expected] * 2 + [{**(expected or {}), "release": "block"}] * 2


def test_spans_can_be_left_as_they_are(make_traced: MakeTraced) -> None:
    """With `conversation=False`."""
    traced = make_traced(options={"conversation": False})
    with traced.tracker.conversation("agent_1"):
        traced.span()
    (row,) = traced.rows()
    assert (row.session_id, "attributes" in row.data) == (None, False)


@pytest.mark.parametrize("value", ["", "x" * 257, 5, True, ("a", "b"), "a\0b"])
def test_what_can_be_no_id_is_an_attribute_only(traced: Traced, value: Any) -> None:
    """The next name that holds one counts."""
    traced.span(attributes={"gen_ai.conversation.id": value, "session.id": "s-2"})
    (row,) = traced.rows()
    assert row.session_id == "s-2"


def test_an_event_logged_inside_a_span_belongs_to_it(traced: Traced) -> None:
    """So that one trace shows an application's spans and its messages."""
    with traced.otel.start_as_current_span("outer") as span:
        traced.tracker.track("cart.abandoned")
    (event,) = traced.rows("cart.abandoned")
    assert event.trace is not None
    assert event.trace["span_id"] == f"{span.get_span_context().span_id:016x}"


# --- nothing raises ------------------------------------------------------------------------------


def test_odd_values_are_stored(traced: Traced) -> None:
    """Each in a form that JSON and OTLP have."""
    traced.span(
        "a\ud800b",
        attributes={
            "surrogate": "x\ud800y",
            "huge": 2**70,
            "infinite": -math.inf,
            "key\ud800": 1,
        },
    )
    (data,) = traced.data()
    assert data["name"] == "a\\ud800b"
    assert data["attributes"] == {
        "surrogate": "x\\ud800y",
        "huge": str(2**70),
        "infinite": {"@double": "-inf"},
        "key\\ud800": 1,
    }


def test_a_span_that_is_too_large_is_cut_and_says_so(traced: Traced) -> None:
    """The longest text first; short ones, ids and figures stay whole."""
    prompt = "q" * (2 << 20)
    traced.span(
        attributes={
            "gen_ai.input.messages": prompt,
            "gen_ai.output.messages": "a" * 1_000,
            "gen_ai.usage.input_tokens": 500_000,
        }
    )
    (data,) = traced.data()
    kept = data["attributes"]["gen_ai.input.messages"]
    (missing,) = re.findall(r"q\[cut: (\d+) characters\]$", kept)
    assert len(prompt) - int(missing) == kept.count("q") > (1 << 20) // 4
    assert data["attributes"]["gen_ai.output.messages"] == "a" * 1_000
    assert data["attributes"]["gen_ai.usage.input_tokens"] == 500_000
    assert data["dropped_attributes"] == 1


def test_a_secret_where_a_text_is_cut_leaves_no_part_of_itself(traced: Traced) -> None:
    """It is masked before."""
    text = "x " * 260_000 + OPENAI
    for shift in range(0, 70, 7):
        traced.span(attributes={"text": "y" * shift + text + " z" * 400_000})
    stored = " ".join(data["attributes"]["text"] for data in traced.data())
    assert "sk-proj-" not in stored
    assert "aB3aB3" not in stored


def test_a_span_that_cannot_be_cut_to_fit_keeps_its_skeleton(make_traced: MakeTraced) -> None:
    """Place, times, model, usage, and the first of the rest; what is missing is counted."""
    traced = make_traced(max_event_bytes=8_192)
    limits = SpanLimits(max_events=SpanLimits.UNSET, max_span_attributes=SpanLimits.UNSET)
    provider = TracerProvider(
        span_limits=limits,
        resource=Resource({"service.name": "kiosk", **{f"r{n}": "x" * 99 for n in range(99)}}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(traced.processor)
    tracer = provider.get_tracer("x", "2", attributes={f"s{n}": "x" * 99 for n in range(99)})
    span = tracer.start_span("s", attributes={f"a{n}": n for n in range(5_000)})
    span.set_attributes({"gen_ai.request.model": "gpt-4o", "gen_ai.usage.output_tokens": 7})
    for number in range(10_000):
        span.add_event(f"event {number}")
    span.end()
    (data,) = traced.data()
    model = {"gen_ai.request.model": "gpt-4o", "gen_ai.usage.output_tokens": 7}
    events, attributes = data["events"], {**data["attributes"]}
    assert {name: attributes.pop(name) for name in model} == model
    assert attributes == {f"a{n}": n for n in range(len(attributes))}
    assert [each["name"] for each in events] == [f"event {n}" for n in range(len(events))]
    assert len(attributes) > 100
    assert len(events) > 20
    assert data["dropped_attributes"] + len(attributes) == 5_000
    assert data["dropped_events"] + len(events) == 10_000
    assert data["resource"] == {"attributes": {"service.name": "kiosk"}}
    assert data["scope"] == {"name": "x", "version": "2"}
    assert int(data["end"]) >= int(data["start"]) > 0


def test_a_span_after_the_tracker_was_closed_costs_the_application_nothing(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted, where another tracker of the outbox shows it, and logged once."""
    with Tracker(config(), destination=RecordingDestination) as other:
        traced = Traced(Tracker(config()))
        traced.tracker.close()
        for _ in range(3):
            traced.span()
        assert other.health().otel_dropped == 3
        assert traced.data() == []
    assert caplog.text.count("is not stored, and more may follow: TrackerClosedError") == 1


def test_spans_after_shutdown_are_refused_and_the_tracker_stays_open(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    """Shutting down twice is once."""
    traced.span("before")
    traced.processor.shutdown()
    traced.processor.shutdown()
    traced.span("after")
    traced.span("after")
    traced.tracker.track("cart.abandoned")
    assert [data["name"] for data in traced.data()] == ["before"]
    assert traced.tracker.health().otel_dropped == 2
    assert caplog.text.count("it was shut down") == 1


@pytest.mark.parametrize("on_error", ["raise", "degrade"])
def test_a_disk_that_fails_costs_the_application_nothing(
    make_traced: MakeTraced, on_error: str
) -> None:
    """A span is counted, or kept in memory, as `on_error` says of events."""
    traced = make_traced(online=False, on_error=on_error, max_outbox_bytes=1 << 20)
    for number in range(100):
        traced.span(attributes={"text": f"{number} " * 30_000})
    health = traced.tracker.health()
    assert len(traced.data()) < 100
    assert len(traced.data()) + health.otel_dropped + health.in_memory == 100
    assert (health.otel_dropped > 0) is (on_error == "raise")
    if health.in_memory:
        assert not traced.processor.force_flush()


def test_a_failing_hook_costs_the_application_nothing(make_traced: MakeTraced) -> None:
    """Not even one that ends in an endless recursion."""

    def endless(text: str) -> str:
        return endless(text)

    traced = make_traced(redactors=[endless])
    traced.span("secret word")
    (data,) = traced.data()
    assert data["name"] == "[redaction failed]"


def test_an_interrupt_reaches_the_application(make_traced: MakeTraced) -> None:
    """Ctrl-C is nobody's failure."""

    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    traced = make_traced(redactors=[interrupted])
    with pytest.raises(KeyboardInterrupt):
        traced.span("step")


def test_a_redactor_that_makes_spans_does_not_call_itself(make_traced: MakeTraced) -> None:
    """What runs on behalf of a span is not traced."""
    found: list[Traced] = []

    def redact(text: str) -> str:
        found[0].span("of the redactor")
        return text

    found.append(make_traced(redactors=[redact]))
    found[0].span("of the application")
    found[0].tracker.track("cart.abandoned", {"a": "b"})
    assert [data["name"] for data in found[0].data()] == ["of the application"]


def test_a_disabled_tracker_stores_and_counts_nothing(make_traced: MakeTraced) -> None:
    """It costs nothing, and a flush has nothing to wait for."""
    traced = make_traced(disabled=True, options={"started": True})
    traced.span()
    assert traced.processor.force_flush()
    assert not traced.path.exists()
    assert traced.tracker.health().otel_dropped == 0


@pytest.mark.parametrize("given", [None, 5, Tracker, AsyncTracker])
def test_what_is_no_tracker_is_refused_at_once(config: MakeConfig, given: Any) -> None:
    """Every span would be lost otherwise."""
    made: Any = given(config(disabled=True)) if given is AsyncTracker else given
    with pytest.raises(ValidationError, match="tracker: is of type"):
        OutboxSpanProcessor(made)


def test_a_flush_waits_for_uploads_only_if_asked_to(make_traced: MakeTraced) -> None:
    """At exit, a dead network must not delay anybody."""
    traced = make_traced(online=False)
    traced.span()
    assert traced.processor.force_flush(30_000)
    assert not OutboxSpanProcessor(traced.tracker, flush_uploads=True).force_flush(100)


def test_a_flush_that_waits_says_that_all_is_delivered(traced: Traced) -> None:
    """The destination has it then."""
    traced.span()
    assert OutboxSpanProcessor(traced.tracker, flush_uploads=True).force_flush(10_000)
    assert traced.tracker.health().pending == 0


# --- what holds for every event ---


def test_the_applications_hook_sees_spans_and_may_drop_them(make_traced: MakeTraced) -> None:
    """Like any other event, whether they come one by one or in a batch."""

    def hook(event: dict[str, Any]) -> dict[str, Any] | None:
        return None if event["data"].get("name") == "noise" else event

    traced = make_traced(before_record=hook)
    traced.span("noise")
    traced.span("step")
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for name in ("noise", "exported"):
        provider.get_tracer("x").start_span(name).end()
    exporter = OutboxSpanExporter(traced.tracker)
    assert exporter.export(memory.get_finished_spans()) is SpanExportResult.SUCCESS
    assert [data["name"] for data in traced.data()] == ["step", "exported"]
    assert traced.tracker.health().otel_dropped == 0


def test_an_erasure_reaches_the_spans_of_a_user(traced: Traced) -> None:
    """Those that name the user, and those of the user's conversations."""
    with traced.tracker.conversation("agent_1", user_id="user_7") as c:
        traced.span(attributes={"gen_ai.input.messages": "of user 7"})
    traced.span(attributes={"session.id": c.session_id, "note": "of the same conversation"})
    traced.span(attributes={"user.id": "user_8", "note": "of another user"})
    traced.tracker.compliance.erase_subject("user_7", reason="asked for")
    assert [data.get("attributes", {}).get("note") for data in traced.data()] == [
        None,
        None,
        "of another user",
    ]
    assert [data == {"erased": True} for data in traced.data()] == [True, True, False]


def erased(traced: Traced, user: str = "user_7") -> set[str]:
    """Return the names of the spans whose data is gone after an erasure."""
    before = [row.data["name"] for row in traced.rows()]
    traced.tracker.compliance.erase_subject(user)
    assert traced.tracker.security.verify_integrity().ok
    pairs = zip(before, traced.rows(), strict=True)
    return {name for name, row in pairs if row.data == {"erased": True}}


def test_an_erasure_reaches_all_of_a_trace_in_which_no_other_user_occurs(traced: Traced) -> None:
    """Where the request names the user, and the conversation is named by spans inside it only."""
    with traced.otel.start_as_current_span("request", attributes={"user.id": "user_7"}):
        with traced.otel.start_as_current_span("agent", attributes={"session.id": "s-1"}):
            traced.span("model", attributes={"gen_ai.input.messages": "of user 7"})
        traced.tracker.track("app.noted", {"name": "noted", "text": "of user 7"})
    traced.span("later", attributes={"session.id": "s-1"})
    traced.span("stranger", attributes={"session.id": "s-2"})
    assert erased(traced) == {"request", "agent", "model", "later"}
    (noted,) = traced.rows("app.noted")
    assert noted.data == {"erased": True}


def test_an_erasure_looks_into_every_trace_of_many(make_traced: MakeTraced) -> None:
    """Turns of conversations are traces too, most of which have no spans."""
    traced = make_traced(options={"conversation": False})
    with traced.tracker.conversation("agent_1", user_id="user_7") as c:
        for number in range(150):
            c.user(f"Question {number}")
            c.agent("Answer")
    for number in range(3):
        with traced.otel.start_as_current_span("named", attributes={"user.id": "user_7"}):
            traced.span(f"inside {number}")
    traced.span("stranger")
    assert erased(traced) == {"named", "inside 0", "inside 1", "inside 2"}


def test_an_erasure_keeps_others_in_a_trace_of_several_users(traced: Traced) -> None:
    """What is in a span of the user goes, and what is around it; not what is beside it."""
    session = {"session.id": "nightly"}
    with traced.otel.start_as_current_span("batch", attributes=session):
        for user in ("user_7", "user_8"):
            with traced.otel.start_as_current_span(f"of {user}", attributes={"user.id": user}):
                traced.span(f"model of {user}")
        traced.span("summary")
    traced.span("another night", attributes=session)
    assert erased(traced) == {"batch", "of user_7", "model of user_7"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"enduser.id": "7"},
        {"user.id": "another", "enduser.id": "7"},
        {"user.id": 7},
        {"user.id": "", "langfuse.user.id": "7"},
    ],
)
def test_an_erasure_reaches_a_span_that_names_the_user_in_any_way(
    traced: Traced, attributes: dict[str, Any]
) -> None:
    """Also if the event itself is another user's, or has none since the value can be no id."""
    traced.span("named", attributes=attributes)
    traced.span("similar", attributes={"user.id": "77", "note": "7"})
    assert erased(traced, "7") == {"named"}


def test_an_erasure_reaches_what_a_span_told_later(make_traced: MakeTraced) -> None:
    """The start of a span that got its user afterwards, and a user named by an event of it."""
    traced = make_traced(options={"started": True})
    span = traced.otel.start_span("told")
    span.set_attribute("user.id", "user_7")
    span.end()
    span = traced.otel.start_span("in an event")
    span.add_event("login", {"enduser.id": "user_7"})
    span.end()
    traced.span("other")
    before = traced.rows()
    traced.tracker.compliance.erase_subject("user_7")
    gone = [each.data["name"] for each, row in zip(before, traced.rows(), strict=True)
            if row.data == {"erased": True}]  # fmt: skip
    assert sorted(gone) == ["in an event", "in an event", "told", "told"]


# --- threads and forks ---------------------------------------------------------------------------


def test_spans_of_many_threads_are_all_stored(traced: Traced) -> None:
    """Each once."""

    def work(number: int) -> None:
        for step in range(50):
            traced.span(f"{number}-{step}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [data["name"] for data in traced.data()]
    assert sorted(names) == sorted(f"{number}-{step}" for number in range(8) for step in range(50))


def test_forked_children_go_on(make_traced: MakeTraced) -> None:
    """While a thread of the parent ends spans: each is stored once, under an id of its own."""
    traced = make_traced(options={"started": True})
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            traced.span("of the parent")

    def child(number: int) -> None:
        for step in range(20):
            traced.span(f"child {number}-{step}")
        os._exit(0)

    thread = threading.Thread(target=work)
    thread.start()
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=child, args=(number,)) for number in range(4)]
    for each in children:
        each.start()
    for each in children:
        each.join(60)
    stop.set()
    thread.join()
    found = [data for data in traced.data() if data["name"].startswith("child")]
    assert len(found) == 80 == len({data["span_id"] for data in found})
    starts = [row.data for row in traced.rows("otel.span_started")]
    runs = {data["name"].partition("-")[0]: data["run"] for data in starts}
    assert len(set(runs.values())) == len(runs) == 5


# --- masks and capture ---------------------------------------------------------------------------


def test_a_secret_is_masked_wherever_it_stands(config: MakeConfig) -> None:
    """Name, attributes and their names, events, links, status, trace state, resource, scope."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        provider = TracerProvider(
            resource=Resource({"command": f"run --key {OPENAI}"}), shutdown_on_exit=False
        )
        provider.add_span_processor(OutboxSpanProcessor(tracker))
        library = provider.get_tracer("lib", attributes={"token": OPENAI})
        link = SpanContext(1, 2, is_remote=True, trace_state=TraceState([("k", OPENAI)]))
        span = library.start_span(
            f"call {OPENAI}",
            attributes={
                "text": OPENAI,
                "gen_ai.input.messages": f'[{{"content": "use {OPENAI}"}}]',
                "http.request.header.authorization": ("Bearer abcdef0123456789abcdef",),
                "db.password": "hunter2-hunter2",
                OPENAI: 1,
                "bytes": OPENAI.encode(),
            },
            links=[Link(link, {"text": OPENAI})],
        )
        span.add_event(OPENAI, {"text": OPENAI})
        span.set_status(Status(StatusCode.ERROR, f"refused {OPENAI}"))
        span.end()
        path = tracker.config.outbox_path
        (row,) = rows(path)
    text = repr(row.data)
    assert "aB3aB3" not in text
    assert "YUIz" not in text  # the same in base64
    assert "abcdef0123" not in text
    assert "hunter2" not in text
    assert text.count("[secret:openai_key:long]") == 12
    assert row.data["redactions"]["openai_key"] == 10  # those in resource and scope were before


def test_ids_and_times_are_never_masked(make_traced: MakeTraced) -> None:
    """Digits of a card number among them: 10,000 random ones, with masks for personal data."""
    traced = make_traced(redaction="pii", durability="process")
    source = random.Random(7)  # noqa: S311 - the same each time
    ids = set()
    for number in range(2_500):
        # All digits, as of cards and phones, which is the worst that can be drawn.
        drawn = [int(str(source.randrange(10**15, 10**16)), 16) for _ in range(4)]
        first, second = (
            SpanContext(drawn[0], drawn[1], is_remote=False),
            SpanContext(drawn[2], drawn[3], is_remote=False),
        )
        ids |= {f"{each:x}" for each in drawn}
        parent = trace.set_span_in_context(
            trace.NonRecordingSpan(
                SpanContext(drawn[0], drawn[1], is_remote=False, trace_flags=TraceFlags(1))
            )
        )
        traced.span(f"step {number}", context=parent, links=[Link(first), Link(second)],
                    start_time=source.randrange(10**18, 2 * 10**18))  # fmt: skip
    stored = repr([[row.data, row.trace] for row in traced.rows()])
    assert "[pii:" not in stored
    assert "[secret:" not in stored
    assert all(each in stored for each in ids)


def test_a_resource_is_masked_once(make_traced: MakeTraced) -> None:
    """It stands in each event, and is the same each time."""
    seen: list[str] = []

    def count(text: str) -> str:
        seen.append(text)
        return text

    traced = make_traced(redactors=[count])
    otel = traced.otel
    for _ in range(20):
        otel.start_span("step").end()
    assert seen.count("kiosk") == 1
    assert seen.count("a.library") == 1
    assert seen.count("step") == 20


WORDS = ["Ulaanbaatar", "Ouagadougou", "Reykjavik"]


def test_without_capture_no_word_of_content_is_stored(make_traced: MakeTraced) -> None:
    """Ids, names, models, tokens and times are kept; of content, the sizes."""
    traced = make_traced(capture_content=False)
    secret = " and ".join(WORDS)
    span = traced.otel.start_span(
        "chat gpt-4o",
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.input.messages": secret,
            "gen_ai.output.messages": (secret, secret),
            "gen_ai.system_instructions": secret,
            "gen_ai.tool.call.arguments": secret,
            "gen_ai.prompt.0.content": secret,
            "input.value": secret,
            "output.value": secret,
            "llm.input_messages.0.message.content": secret,
            "llm.prompts.0": secret,
            "retrieval.documents.0.document.content": secret,
            "traceloop.entity.input": secret,
            "pydantic_ai.all_messages": secret,
            "ai.prompt.messages": secret,
            "db.query.text": secret,
            "url.full": f"https://example.com/{secret}",
            "http.request.body.content": secret,
            "of.my.own": f"{secret} " * 10,
            "short.of.my.own": "kept",
        },
    )
    span.record_exception(ValueError(secret))
    span.set_status(Status(StatusCode.ERROR, secret))
    span.end()
    (data,) = traced.data()
    assert not [word for word in WORDS if word in repr(data)]
    kept = data["attributes"]
    assert kept["gen_ai.request.model"] == "gpt-4o"
    assert kept["gen_ai.usage.input_tokens"] == 12
    assert kept["short.of.my.own"] == "kept"
    assert kept["gen_ai.input.messages"] == f"[not captured: {len(secret)} characters]"
    assert kept["gen_ai.output.messages"] == "[not captured: 2 items]"
    assert data["events"][0]["attributes"]["exception.type"] == "ValueError"
    assert data["name"] == "chat gpt-4o"
    assert data["resource"] == {"attributes": {"service.name": "kiosk"}}
    traced.tracker.close()
    for file in traced.path.parent.glob(f"{traced.path.name}*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not [word for word in WORDS if word.encode() in content]


@pytest.mark.parametrize(
    "name",
    [
        "content", "message", "error.message", "crewai.task.description", "crewai.agent.backstory",
        "crew_tasks", "gcp.vertex.agent.tool_call_args", "mlflow.chat.messages", "ai.prompt",
        "ai.prompt.tools", "ai.response.toolCalls", "ai.values", "haystack.component.input",
        "gen_ai.openai.request.instructions", "llm.request.functions.0.parameters", "metadata",
        "langfuse.trace.metadata.note", "db.chroma.query.where", "milvus.search.data",
        "tool.result", "pinecone.query.filter", "system_prompt", "gen_ai.response.text",
        "app.toolInput",
    ],
)  # fmt: skip
def test_without_capture_a_short_text_is_content_by_the_last_word_of_its_name(
    make_traced: MakeTraced, name: str
) -> None:
    """In attributes and in those of events, where older instrumentors have the messages."""
    traced = make_traced(capture_content=False)
    span = traced.otel.start_span("s", attributes={name: WORDS[0], f"x.{name}": [WORDS[1]]})
    span.add_event("gen_ai.user.message", {name: WORDS[2], "raw": WORDS[0].encode()})
    span.end()
    (data,) = traced.data()
    told: Any = span
    # Older versions of OpenTelemetry make a text of it, which is short and has no such name.
    text = not isinstance(told.events[0].attributes["raw"], bytes)
    assert [word for word in WORDS if word in repr(data)] == WORDS[:1] * text
    assert base64.b64encode(WORDS[0].encode()).decode() not in repr(data)


def test_without_capture_figures_and_plain_names_stay(make_traced: MakeTraced) -> None:
    """Whatever their names end in; what people sum and select by."""
    traced = make_traced(capture_content=False)
    kept: dict[str, Any] = {
        "llm.token_count.prompt": 12, "gen_ai.usage.input_tokens": 7, "score.value": 0.5,
        "gen_ai.request.model": "gpt-4o", "gen_ai.tool.name": "find_order", "db.system": "redis",
        "gen_ai.response.finish_reasons": ["stop"], "gen_ai.response.id": "r-1",
        "gen_ai.system": "openai", "gen_ai.tool.call.id": "call-1", "gen_ai.tool.type": "function",
        "openinference.span.kind": "LLM", "http.request.method": "GET", "session.id": "s-1",
    }  # fmt: skip
    traced.otel.start_span("s", attributes=kept).end()
    (data,) = traced.data()
    assert data["attributes"] == kept


def test_masks_are_reported_like_those_of_other_events(make_traced: MakeTraced) -> None:
    """With `report_redactions`, a security event names the span's."""
    traced = make_traced(report_redactions=True)
    traced.span(attributes={"text": OPENAI})
    (report,) = traced.rows("security.reported")
    assert report.data["details"]["event_type"] == "otel.span"


def test_the_log_of_a_failure_has_no_content(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each kind."""
    caplog.set_level(logging.INFO)
    traced.span(attributes={"text": "a" * (3 << 20)})
    assert "aaa" not in caplog.text
