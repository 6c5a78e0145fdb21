"""What a collector makes of OTLP requests, without HTTP."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.requests import Request

from tests.support.collector import EventChain
from tests.support.received import END_NS, logs_request, span_of, traces_request
from tracker.collector import derived
from tracker.collector.batch import has_its_digest, parse_batch
from tracker.collector.otlp import events, forms
from tracker.collector.otlp.body import items
from tracker.collector.otlp.events import Gathering
from tracker.collector.otlp.forms import JSON, PROTOBUF, Form
from tracker.collector.otlp.signals import LOGS, TRACES, Signal
from tracker.collector.refusal import RefusedError
from tracker.collector.store import Store, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker.collector.batch import Batch, ReceivedEvent

NOW_MS = 1_790_000_000_000
PLACES: tuple[Any, ...] = (
    {"resourceSpans": [{"scopeSpans": [{"spans": [...]}]}]},
    {"resourceSpans": [{"scopeSpans": [...]}]},
    {"resourceSpans": [{"resource": ..., "scopeSpans": [{"spans": [{}]}]}]},
    {"resourceSpans": ...},
    {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": ..., "links": [...]}]}]}]},
    {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"value": ...}]}]}]}]},
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from(["stringValue", "\ud800", "0" * 32, "zz"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["key", "value", "stringValue", "arrayValue", "values", "links", "kind",
                         "attributes", "spans", "traceId", "spanId", "bytesValue", "\ud800"]),
        inner, max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "collector.sqlite3")
    yield store
    store.close()


def gathered(
    body: bytes, signal: Signal = TRACES, form: Form = PROTOBUF, client_id: str = "kiosk-17"
) -> Gathering:
    gathering = Gathering(client_id, signal, NOW_MS)
    gathering.add(items(body, form, signal))
    return gathering


def batch_of(*spans: Span, client_id: str = "kiosk-17") -> Batch:
    return gathered(traces_request(*spans), client_id=client_id).batch()


def event_of(span: Span, client_id: str = "kiosk-17") -> ReceivedEvent:
    (event,) = batch_of(span, client_id=client_id).events
    return event


def records(*bodies: str, **fields: int) -> tuple[ReceivedEvent, ...]:
    return gathered(logs_request(*bodies, **fields), LOGS).batch().events


def test_the_id_of_a_span_is_made_of_client_end_trace_and_span() -> None:
    """The same for the same span, whatever else is said of it; a UUIDv7 of its end."""
    first = event_of(span_of(1))
    assert first.event_id == "01a0c450-6c00-7911-8580-d65379ecccdd"
    assert event_of(span_of(1, name="other")).event_id == first.event_id
    found = uuid.UUID(first.event_id)
    assert (found.version, found.variant, found.int >> 80) == (7, uuid.RFC_4122, END_NS // 10**6)
    others = {
        event_of(span_of(2)).event_id,
        event_of(span_of(1), client_id="kiosk-18").event_id,
        event_of(span_of(1, end_time_unix_nano=END_NS + 10**6)).event_id,
    }
    assert len(others - {first.event_id}) == 3


def test_log_records_that_differ_in_anything_are_different() -> None:
    """Body, time; and where a clock is coarse, the same line twice in one request."""
    found = records("a", "b", "a", time_unix_nano=7)
    again = records("a", "b", "a", time_unix_nano=7)
    assert len({event.event_id for event in found}) == 3
    assert [event.event_id for event in again] == [event.event_id for event in found]
    (later,) = records("a", time_unix_nano=8)
    assert later.event_id not in {event.event_id for event in found}


def test_a_log_record_without_a_time_gets_that_of_its_receipt() -> None:
    """The event and its `observed` say when it came."""
    (event,) = records("a")
    assert event.timestamp_ms == NOW_MS
    assert json.loads(event.data)["observed"] == str(NOW_MS * 10**6)


def test_events_have_their_digests_and_what_their_attributes_name() -> None:
    """Conversation, agent and user, as of the spans in an outbox; and their place in a trace."""
    names = {
        "gen_ai.conversation.id": "s",
        "gen_ai.agent.id": "",
        "agent.name": "a",
        "user.id": "u",
    }
    event = event_of(span_of(1, parent_span_id=bytes([9] * 8), attributes=names))
    assert (event.session_id, event.agent_id, event.user_id) == ("s", "a", "u")
    assert event.trace is not None
    assert json.loads(event.trace)["parent_span_id"] == "09" * 8
    assert has_its_digest(event)
    assert not has_its_digest(event._replace(user_id="w"))


def test_what_comes_is_numbered_and_chained_after_what_came_before(store: Store) -> None:
    """Under one outbox of the client's; what came before, or twice, is a duplicate."""
    stored = [
        store.store_batch(batch_of(*map(span_of, numbers)), NOW_MS)
        for numbers in ([1, 2], [2, 3, 3], [1], [4])
    ]
    assert [tuple(each)[:3] for each in stored] == [(2, 0, 2), (1, 2, 3), (0, 1, 3), (1, 0, 4)]
    outbox_id = derived.outbox_id_of("kiosk-17")
    assert [row["seq"] for row in store.chain_page("kiosk-17", outbox_id, 0, 10)] == [1, 2, 3, 4]
    found = store.outbox_report("kiosk-17", outbox_id)
    assert (found.events, found.missing, found.chain_breaks_at_seq) == (4, [], None)
    assert (found.chain, found.received_directly) == ("unverifiable", True)


def test_what_was_changed_in_the_database_is_seen(store: Store) -> None:
    """The chain is the collector's own, but a chain."""
    store.store_batch(batch_of(*map(span_of, range(1, 5))), NOW_MS)
    with store.writing("kiosk-17") as connection:
        connection.exec_driver_sql("UPDATE events SET digest = chain WHERE seq = 3")
        connection.exec_driver_sql("DELETE FROM events WHERE seq = 1")
    found = store.outbox_report("kiosk-17", derived.outbox_id_of("kiosk-17"))
    assert (found.chain, found.chain_breaks_at_seq, found.missing) == ("broken", 3, [(1, 1)])


def test_nobody_sends_under_the_outbox_of_what_has_none() -> None:
    """Such events would pass for spans that the collector received."""
    chain = EventChain()
    chain.outbox_id = derived.outbox_id_of("a").upper()
    body = json.dumps(chain.batch(chain.events(1), "a")).encode()
    with pytest.raises(RefusedError, match="without an outbox"):
        parse_batch(body, "a")


def test_bad_spans_are_told_apart_from_good_ones() -> None:
    """What cannot be told from others, or has not ended; one reason for each, and noted."""
    bad = [
        span_of(2, trace_id=b"short"),
        span_of(3, span_id=bytes(8)),
        span_of(4, end_time_unix_nano=0),
        span_of(5, parent_span_id=b"12"),
        span_of(6, attributes={"a": "x" * events.MOST_EVENT_BYTES}),
        span_of(7, events=[Span.Event()] * 180_001),
    ]
    gathering = gathered(traces_request(span_of(1), *bad))
    batch = gathering.batch()
    assert (len(batch.events), gathering.rejected) == (1, 6)
    assert [each.message.partition(":")[0] for each in batch.rejected] == [
        *("trace_id", "span_id", "end_time_unix_nano", "parent_span_id", "span", "events"),
    ]
    assert batch.rejected[-1].code == "too_large"
    assert len({each.event_id for each in batch.rejected}) == 6
    assert "1 (trace_id: is not 16 bytes" in gathering.message


def test_a_link_that_leads_nowhere_is_counted_as_dropped() -> None:
    """Its span is kept."""
    span = span_of(1, dropped_links_count=1)
    span.links.add(trace_id=b"x", span_id=bytes([1] * 8))
    span.links.add(trace_id=bytes([1] * 16), span_id=bytes([1] * 8))
    data = json.loads(event_of(span).data)
    assert (len(data["links"]), data["dropped_links"]) == (1, 2)


@pytest.mark.parametrize("resource", ["x" * 300_000, "x" * (events.MOST_EVENT_BYTES + 1)])
def test_a_resource_is_not_repeated_without_end(resource: str) -> None:
    """A small request cannot become terabytes in the database, nor days of work."""
    body = traces_request(*map(span_of, range(1, 500)), resource={"a": resource})
    with pytest.raises(RefusedError) as refused:
        gathered(body)
    assert refused.value.status == 413


def test_json_says_the_same_as_protobuf() -> None:
    """With ids in hex, in either case, and numbers as text or not."""
    span = span_of(1, attributes={"a": 1.0, "b": "é"}, parent_span_id=bytes([0xAB] * 8))
    span.links.add(trace_id=bytes([1] * 16), span_id=bytes([0xCD] * 8))
    sent = json_format.MessageToDict(span)
    places = [(sent, span), (sent["links"][0], span.links[0])]
    for shown, message in places:
        for name in ("trace_id", "span_id", "parent_span_id"):
            if getattr(message, name, b""):
                camel = name.replace("_i", "I").replace("_s", "S")
                shown[camel] = getattr(message, name).hex().upper()
    sent["startTimeUnixNano"] = int(sent["startTimeUnixNano"])
    sent["unknown"] = {"of": "a later version"}
    body = json.dumps({"resourceSpans": [{"resource": None, "scopeSpans": [{"spans": [sent]}]}]})
    (found,) = gathered(body.encode(), form=JSON).batch().events
    expected = event_of(span)
    assert (found.event_id, found.data) == (expected.event_id, expected.data)


@given(st.sampled_from(PLACES), ANYTHING)
def test_no_json_raises_anything_but_a_refusal(place: Any, value: Any) -> None:
    """Of any shape, in any place."""
    body = json.dumps(put(place, value)).encode()
    try:
        gathering = gathered(body, form=JSON)
    except RefusedError as error:
        assert error.status in (400, 413)  # noqa: PT017 - it may be none
    else:
        assert gathering.rejected == len(gathering.batch().rejected)


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes) -> None:
    """In either form, of either signal."""
    for signal in (TRACES, LOGS):
        for form in (PROTOBUF, JSON):
            try:
                gathered(body, signal, form)
            except RefusedError as error:
                assert error.status == 400  # noqa: PT017 - it may be none


@pytest.mark.parametrize("form", [PROTOBUF, JSON])
def test_nesting_without_end_is_refused(form: Form) -> None:
    """By either parser, and before the stack is at its end."""
    inner = json.dumps("x")
    for _ in range(5_000):
        inner = '{"arrayValue":{"values":[' + inner + "]}}"
    deep = b""
    for _ in range(200):
        deep = field(5, field(1, deep))
    if form == PROTOBUF:
        attribute = field(9, field(1, b"a") + field(2, deep))
        body = field(1, field(2, field(2, attribute)))
    else:
        span = '{"attributes":[{"key":"a","value":' + inner + "}]}"
        body = ('{"resourceSpans":[{"scopeSpans":[{"spans":[' + span + "]}]}]}").encode()
    with pytest.raises(RefusedError) as refused:
        gathered(body, form=form)
    assert refused.value.status == 400


def field(number: int, content: bytes) -> bytes:
    """Return a field of variable length of a message."""
    length, found = len(content), bytearray([number << 3 | 2])
    while length > 0x7F:
        found.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*found, length]) + content


def put(place: Any, value: Any) -> Any:
    if place is ...:
        return value
    if isinstance(place, dict):
        return {name: put(inner, value) for name, inner in place.items()}
    return [put(inner, value) for inner in place] if isinstance(place, list) else place


def test_what_was_erased_does_not_come_back(store: Store) -> None:
    """An erasure may name a span that is sent again, or for the first time."""
    chain, span = EventChain(), span_of(1, attributes={"user.id": "u"})
    store.store_batch(batch_of(span), NOW_MS)
    named = [event_of(each).event_id for each in (span, span_of(2))]
    erasure = chain.event({"event_ids": named}, type="compliance.erased")
    body = json.dumps(chain.batch([erasure], "kiosk-17")).encode()
    store.store_batch(parse_batch(body, "kiosk-17"), NOW_MS)
    stored: Stored = store.store_batch(batch_of(span, span_of(2)), NOW_MS)
    assert (stored.accepted, stored.duplicates) == (1, 1)
    rows, _ = store.events_after("kiosk-17", 0, 10, 10**6)
    gone = {row["event_id"]: (row["data"].strip(), row["user_id"]) for row in rows}
    assert [gone[event_id] for event_id in named] == [('{"erased":true}', None)] * 2
    report = store.outbox_report("kiosk-17", derived.outbox_id_of("kiosk-17"))
    assert (report.chain_breaks_at_seq, report.missing) == (None, [])


def test_a_body_that_came_too_slowly_is_sent_again() -> None:
    """Exporters give up after 408, which the collector says elsewhere; nothing else is changed."""
    sent = {"type": "http", "method": "POST", "path": "/v1/traces", "headers": []}
    statuses = [forms.error(Request(sent), status, "slow", None).status_code
                for status in (408, 400, 413, 429)]  # fmt: skip
    assert statuses == [503, 400, 413, 429]
