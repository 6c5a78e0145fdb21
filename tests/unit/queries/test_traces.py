"""`get_trace`: trees of spans, of whatever the events say."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import NOON_MS, fill
from tracker import AgentPerformanceTracker, Trace, TraceSpan, ValidationError, canonical
from tracker.cli.output import to_json
from tracker.cli.trace import _as_dict
from tracker.events import Event, make_event
from tracker.outbox.outbox import Outbox
from tracker.queries import source
from tracker.queries.traces import MOST_LEVELS, get_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def made(
    type: str,
    span_id: Any,
    parent: Any = None,
    *,
    at: int = 0,
    trace_id: str = TRACE,
    session_id: str | None = None,
    **data: Any,
) -> Event:
    """Return an event of a trace, logged `at` milliseconds after noon."""
    ids = {"span_id": span_id, "trace_id": trace_id}
    if parent is not None:
        ids["parent_span_id"] = parent
    event = make_event(type, data, trace=canonical.encode(ids), session_id=session_id)
    event = event._replace(timestamp_ms=NOON_MS + at)
    return event._replace(digest=canonical.digest_of(*event))


def step(name: str, parent: str | None = None, *, at: int = 0, took: float = 0) -> Event:
    return made("span.recorded", name, parent, at=at, name=name, duration_ms=took)


def read(config: MakeConfig, events: list[Event], **options: Any) -> Trace:
    settings = config()
    fill(settings, events)
    with closing(Outbox(settings)) as outbox, outbox.reading() as connection:
        found = get_trace(connection, TRACE, **options)
    assert found is not None
    return found


def drawn(spans: tuple[TraceSpan, ...]) -> dict[str, Any]:
    return {str(span.name or span.span_id): drawn(span.children) for span in spans}


def all_of(spans: tuple[TraceSpan, ...]) -> Iterator[TraceSpan]:
    for span in spans:
        yield span
        yield from all_of(span.children)


def test_spans_become_a_tree_in_the_order_of_their_start(config: MakeConfig) -> None:
    """Each has its start, its duration, and what was logged inside it."""
    found = read(
        config,
        [
            made("cart.changed", "b", "a", at=30, items=1),
            step("b", "a", at=40, took=20),
            step("c", "a", at=50, took=45.5),
            step("a", at=60, took=60),
            step("other", at=5, took=1)._replace(trace=None),
        ],
    )
    assert drawn(found.spans) == {"a": {"c": {}, "b": {}}}
    assert (found.started_at_ms, found.duration_ms, found.complete) == (NOON_MS, 60, True)
    (root,) = found.spans
    later, inner = root.children
    assert (later.started_at_ms, later.duration_ms) == (NOON_MS + 5, 45.5)
    assert [(event.type, event.data) for event in inner.events] == [("cart.changed", {"items": 1})]
    assert inner.parent_span_id == root.span_id
    assert root.kind == "span"


def test_a_conversation_is_read_as_it_was_logged(config: MakeConfig) -> None:
    """The turn, its spans with input, output and error, and its messages."""
    with AgentPerformanceTracker(config()) as tracker:

        @tracker.observe(name="look")
        def look(number: int) -> None:
            raise KeyError(number)

        with tracker.conversation("agent", session_id="s") as c:
            c.user("hello")
            with tracker.span("retrieve", input=1, attributes={"a": 2}) as span:
                span.output = 3
                with pytest.raises(KeyError):
                    look(7)
            c.tool("find", {"id": 7}, result="sent", duration_ms=3)
            c.agent("hi")
        found = tracker.get_trace(span.trace_id.upper())
        assert tracker.get_trace("0" * 31 + "1") is None
        with pytest.raises(ValidationError, match=r"^trace_id: is 'x'; give the 32 hex digits"):
            tracker.get_trace("x")
        with pytest.raises(ValidationError, match=r"^limit: "):
            tracker.get_trace(TRACE, limit=-1)
    assert found is not None
    (turn,) = found.spans
    assert (turn.kind, turn.name, turn.session_id) == ("turn", "agent", "s")
    assert [event.type for event in turn.events] == [
        *("conversation.started", "message.logged", "message.logged", "conversation.ended")
    ]
    # `find` took 3 ms, and so may have begun before the span that was over then.
    retrieve, find = sorted(turn.children, key=lambda child: child.kind)
    assert (retrieve.input, retrieve.output, retrieve.attributes) == (1, 3, {"a": 2})
    assert (find.kind, find.name, find.input, find.output) == ("tool", "find", {"id": 7}, "sent")
    (call,) = retrieve.children
    assert (call.kind, call.name, call.input) == ("function", "look", {"number": 7})
    assert (call.error_type, call.error) == ("KeyError", "7")


def test_a_conversation_inside_a_span_is_a_span(config: MakeConfig) -> None:
    """With the time from its start, and why it failed."""
    with AgentPerformanceTracker(config()) as tracker:
        with pytest.raises(KeyError), tracker.span("outer") as span, tracker.conversation("agent"):
            raise KeyError("x")
        found = tracker.get_trace(span.trace_id)
    assert found is not None
    (talk,) = found.spans[0].children
    assert (talk.kind, talk.name, talk.error_type, talk.error) == (
        *("conversation", "agent", "KeyError", "'x'"),
    )
    assert [event.type for event in talk.events] == ["conversation.started"]


def test_a_span_whose_parent_is_missing_is_a_root(config: MakeConfig) -> None:
    """It was recorded elsewhere, has not ended, or was pruned; its id is kept."""
    found = read(config, [step("a", "gone"), step("b"), made("x.y", "open", "b", at=7)])
    assert drawn(found.spans) == {"a": {}, "b": {"open": {}}}
    assert found.spans[0].parent_span_id == "gone"
    (unknown,) = found.spans[1].children
    assert (unknown.kind, unknown.name, len(unknown.events)) == ("unknown", None, 1)


def test_circles_and_doubles_end(config: MakeConfig) -> None:
    """What is forged is shown, each event once."""
    found = read(
        config,
        [
            step("self", "self"),
            *(step(name, parent) for name, parent in ("ab", "bc", "ca", "dc")),
            step("twice", "self"),
            step("twice", "a"),
            made("x.y", "twice"),
        ],
    )
    names = [span.name for span in all_of(found.spans)]
    assert sorted(map(str, names)) == ["a", "b", "c", "d", "self", "twice", "twice"]
    assert sum(len(span.events) for span in all_of(found.spans)) == 1


def test_any_depth_is_read(config: MakeConfig) -> None:
    """Below some level spans are shown side by side, so that the JSON can be read back."""
    found = read(config, [step(str(n), str(n - 1) if n else None) for n in range(3_000)])
    names = [span.name for span in all_of(found.spans)]
    assert len(names) == len(set(names)) == 3_000
    level, spans = 0, found.spans
    while spans:
        level, spans = level + 1, max((span.children for span in spans), key=len)
    assert level == MOST_LEVELS
    assert to_json(_as_dict(found, content=True)).count('"span_id"') == 3_000


def test_only_the_newest_events_of_a_long_trace_are_read(config: MakeConfig) -> None:
    """And the answer says so."""
    found = read(config, [step("a"), step("b"), step("c")], limit=2)
    assert drawn(found.spans) == {"b": {}, "c": {}}
    assert not found.complete


@pytest.mark.parametrize("ids", [5, None, "[]", '{"span_id":7}', '{"span_id":["a"]}'])
def test_odd_ids_and_erased_data_do_no_harm(config: MakeConfig, ids: Any) -> None:
    """Rows that are damaged or written by hand come out as what can be read of them."""
    settings = config()
    fill(settings, [step("a"), step("b", "a"), step("c", "b")])
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        text = None if ids is None else str(ids)[:-1] + f',"trace_id":"{TRACE}"}}'
        connection.execute("UPDATE events SET trace = ? WHERE seq = 1", (text,))
        connection.execute("UPDATE events SET data = '{\"erased\":true}' WHERE seq = 2")
        connection.execute("UPDATE events SET timestamp_ms = 'x', data = x'ff' WHERE seq = 3")
        connection.commit()
    with closing(Outbox(settings)) as outbox, outbox.reading() as connection:
        found = get_trace(connection, TRACE)
    assert found is not None
    by_id = {span.span_id: span for span in all_of(found.spans)}
    assert by_id["b"].erased
    assert by_id["b"].name is None
    assert by_id["c"].started_at_ms == 0


def test_a_trace_is_found_by_an_index(config: MakeConfig) -> None:
    """A million other events are not looked at, neither for spans nor for what is in the turn."""
    settings = config()
    fill(settings, [step("a"), made("x.y", "a", session_id="s")])
    with closing(Outbox(settings)) as outbox, outbox.reading() as connection:
        condition = " AND ".join(
            str(
                each.compile(
                    connection, compile_kwargs={"literal_binds": True, "render_postcompile": True}
                )
            )
            for each in source.of_trace(connection, source.EVENTS, TRACE)
        )
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN SELECT seq FROM events WHERE {condition} "  # noqa: S608 - our own
            "ORDER BY rowid DESC"
        ).all()
    used = [str(row[3]).split("INDEX ")[1].split()[0] for row in plan if "USING" in str(row[3])]
    assert used[:2] == ["ix_events_trace", "ix_events_session_id"]
    assert not [row for row in plan if str(row[3]).startswith("SCAN")]


def test_a_turn_without_a_span_is_found(config: MakeConfig) -> None:
    """No index knows it; its id may be that of any event in it."""
    with AgentPerformanceTracker(config()) as tracker:
        with tracker.conversation("agent") as c:
            c.user("hello")
            headers: dict[str, str] = {}
            tracker.inject(headers)
        found = tracker.get_trace(headers["traceparent"].split("-")[1])
    assert found is not None
    assert [(span.kind, len(span.events)) for span in found.spans] == [("turn", 3)]
