"""OpenTelemetry's spans as children of the tracker's own."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tracker import bind, context, extract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.otel.conftest import MakeTraced, Traced


@pytest.fixture
def nested(make_traced: MakeTraced) -> Iterator[Traced]:
    """Until the end of the test: it holds for the process."""
    yield make_traced(options={"nest": True})
    context.nest_with(None)


def named(span: Any) -> tuple[str, list[Any]]:
    return span.name, [named(each) for each in span.children]


def tree(traced: Traced, trace_id: str) -> list[Any]:
    """Return the spans of a trace by name, each with those inside it."""
    found = traced.tracker.performance.get_trace(trace_id)
    assert found is not None
    return [named(span) for span in found.spans]


def test_spans_of_both_nest_in_one_another(nested: Traced) -> None:
    with nested.tracker.span("request") as request:
        with nested.otel.start_as_current_span("agent"), nested.tracker.span("look up"):
            nested.span("query")
        nested.span("reply")
    inside: list[Any] = [("agent", [("look up", [("query", [])])]), ("reply", [])]
    assert tree(nested, request.trace_id) == [("request", inside)]
    nested.span("later")
    assert "parent_span_id" not in nested.data()[-1]


def test_so_they_do_in_whatever_else_is_a_span(nested: Traced) -> None:
    """An observed function, a generator of which others run between the steps, and a tool."""
    tracker = nested.tracker

    @tracker.observe(name="answer")
    def answer() -> None:
        nested.span("model")
        with suppress(ValueError), c.tool("find", {}):
            nested.span("query")
            raise ValueError

    @tracker.observe(name="stream")
    def stream() -> Iterator[int]:
        nested.span("first")
        yield 1
        nested.span("second")

    with tracker.span("request") as request, tracker.conversation("agent_1") as c:
        answer()
        for _ in stream():
            nested.span("between")
    said = str(tree(nested, request.trace_id))
    assert "('answer', [('model', []), ('find', [('query', [])])])" in said
    assert "('stream', [('first', []), ('second', [])])" in said
    assert "('between', [])" in said
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_trace_that_comes_from_elsewhere_goes_on_in_both(nested: Traced) -> None:
    parent = f"00-{'0a' * 16}-{'0b' * 8}-01"
    with extract({"traceparent": parent}):
        nested.span("inside")
    data = nested.data()[0]
    assert (data["trace_id"], data["parent_span_id"]) == ("0a" * 16, "0b" * 8)


def test_blocks_that_are_left_in_any_order_leave_no_span_behind(nested: Traced) -> None:
    """Nor take away what was set inside them."""
    one, two = nested.tracker.span("one"), nested.tracker.span("two")
    one.__enter__()
    two.__enter__()
    token = otel_context.attach(baggage.set_baggage("tenant", "a"))
    one.__exit__(None, None, None)
    nested.span("inside two")
    two.__exit__(None, None, None)
    nested.span("outside")
    assert baggage.get_baggage("tenant") == "a"
    otel_context.detach(token)
    inside, outside = nested.data()[:2]
    assert inside["parent_span_id"] == two.span_id
    assert "parent_span_id" not in outside


def test_other_threads_get_the_parent_with_the_rest_of_the_context(nested: Traced) -> None:
    with nested.tracker.span("request") as request:
        work = bind(nested.span)
    work("inside")
    assert nested.data()[0]["parent_span_id"] == request.span_id


def test_what_is_not_sampled_stays_so_inside(nested: Traced) -> None:
    """A span of the tracker passes on what the one around it says."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with provider.get_tracer("x").start_as_current_span("outer"), nested.tracker.span("own"):
        nested.span("inner")
    assert nested.data() == []


def test_by_default_opentelemetry_has_traces_of_its_own(traced: Traced) -> None:
    """What it does is the application's to choose: samplers and other exporters see parents."""
    with traced.tracker.span("request"):
        traced.span("inside")
    assert "parent_span_id" not in traced.data()[0]
