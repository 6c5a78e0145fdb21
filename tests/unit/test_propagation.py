"""`inject` and `extract`: the headers of W3C Trace Context, valid and not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.recorded import Recorded
from tracker import Span, ValidationError, extract, inject
from tracker.context import current_span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig
    from tracker import AgentPerformanceTracker

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def tracker(config: MakeConfig) -> Iterator[AgentPerformanceTracker]:
    opened = Recorded(config(disabled=True))
    with opened.tracker:
        yield opened.tracker


def parent_of(headers: Any, tracker: AgentPerformanceTracker) -> str | None:
    with extract(headers):
        span = tracker.span("s")
    return f"{span.trace_id}-{span.parent_span_id}" if span.parent_span_id else None


VALID = [
    {"traceparent": PARENT},
    {"TraceParent": f" {PARENT}\t"},
    {b"TRACEPARENT": PARENT.encode()},
    {"traceparent": [PARENT]},
    [("host", "x"), ("traceparent", PARENT)],
    [(b"host", b"x"), (b"traceparent", PARENT.encode())],
    {"traceparent": f"cc-{TRACE}-{SPAN}-01"},
    {"traceparent": f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"},
    {"traceparent": f"00-{TRACE}-{SPAN}-00"},
]
INVALID = [
    {},
    {"traceparent": ""},
    {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
    {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
    {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
    {"traceparent": PARENT.upper()},
    {"traceparent": f"{PARENT}-more"},
    {"traceparent": f"{PARENT}\n"},
    {"traceparent": f"cc-{TRACE}-{SPAN}-01.what"},
    {"traceparent": f"00-{TRACE[1:]}-{SPAN}-01"},
    {"traceparent": f"00-{TRACE}-{SPAN}-1"},
    {"traceparent": f"00-{TRACE}-{SPAN}-0x"},
    {"traceparent": [PARENT, PARENT]},
    [("traceparent", PARENT), ("TraceParent", PARENT)],
    {"traceparent": None},
    {"traceparent": b"\xff"},
    {"traceparent": 7},
]


@pytest.mark.parametrize("headers", VALID)
def test_a_valid_parent_is_continued(headers: Any, tracker: AgentPerformanceTracker) -> None:
    """Whatever the form of the headers, and of a version that is not written yet."""
    assert parent_of(headers, tracker) == f"{TRACE}-{SPAN}"


@pytest.mark.parametrize("headers", INVALID)
def test_an_invalid_parent_is_ignored(headers: Any, tracker: AgentPerformanceTracker) -> None:
    """The request begins a trace of its own."""
    assert parent_of(headers, tracker) is None


@given(st.dictionaries(st.sampled_from(["traceparent", "tracestate"]), st.text() | st.binary()))
def test_no_header_raises(headers: dict[str, Any]) -> None:
    """Anybody may send any bytes."""
    with extract(headers):
        sent: dict[str, str] = {}
        inject(sent)
    assert sent == {}


@pytest.mark.parametrize("headers", [None, 5, "traceparent", ["traceparent"], [5]])
def test_what_are_no_headers_is_the_callers_mistake(headers: Any) -> None:
    """It is told at once."""
    with pytest.raises(ValidationError, match=r"^headers: "):
        extract(headers)
    if not isinstance(headers, list):
        with pytest.raises(ValidationError, match=r"^headers: "):
            inject(headers)


def test_headers_are_only_added_inside_of_a_span(tracker: AgentPerformanceTracker) -> None:
    """As ids of the sizes of W3C, recorded, and in the place of those that came."""
    came = {"Traceparent": PARENT, "TRACESTATE": "a=1", "Host": "x"}
    headers = dict(came)
    inject(headers)
    assert headers == came
    with tracker.span("s") as span:
        tracker.inject(headers)
        pairs = [("TraceParent", PARENT), ("Host", "x")]
        inject(pairs)
    expected = f"00-{span.trace_id}-{span.span_id}-01"
    assert headers == {"traceparent": expected, "Host": "x"}
    assert pairs == [("Host", "x"), ("traceparent", expected)]


def test_state_and_flags_are_passed_on(tracker: AgentPerformanceTracker) -> None:
    """What came is sent on with a new parent; a state that is not valid is dropped."""
    for state, sent in (
        (["a=1", "b=2"], "a=1,b=2"),
        ("a=1\r\nX-Forged: 1", None),
        (",".join(f"k{number}=1" for number in range(33)), None),
        ("", None),
    ):
        headers: dict[str, str] = {}
        with tracker.extract({"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": state}):
            with tracker.span("s") as span:
                inject(headers)
            assert headers.pop("traceparent") == f"00-{TRACE}-{span.span_id}-00"
            assert headers.pop("tracestate", None) == sent
    with tracker.extract({"traceparent": f"cc-{TRACE}-{SPAN}-ff"}):
        inject(headers)
    assert headers["traceparent"] == f"00-{TRACE}-{SPAN}-01"


def test_a_state_without_a_valid_parent_is_ignored(tracker: AgentPerformanceTracker) -> None:
    """It belongs to a trace that nobody knows."""
    headers: dict[str, str] = {}
    with extract({"traceparent": "00-", "tracestate": "a=1"}), tracker.span("s"):
        inject(headers)
    assert set(headers) == {"traceparent"}


def test_a_block_of_the_sender_may_be_entered_again(tracker: AgentPerformanceTracker) -> None:
    """Inside itself too; afterwards nothing is current."""
    block = extract({"traceparent": PARENT})
    for _ in range(2):
        with block, block:
            assert isinstance(tracker.span("s"), Span)
            assert tracker.span("s").parent_span_id == SPAN
    assert current_span() is None
