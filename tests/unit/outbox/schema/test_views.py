"""The outbox's SQL views say what the queries say."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracker.events import make_event
from tracker.outbox.schema import tables
from tracker.outbox.schema.create import empty_outbox
from tracker.queries.conversations import list_conversations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

LIFE = st.sampled_from(
    [
        ("conversation.started", {}),
        ("conversation.resumed", {}),
        ("conversation.ended", {}),
        ("conversation.ended", {"outcome": "resolved"}),
        ("conversation.ended", {"outcome": "Failure", "quality_score": 4.7}),
        ("conversation.ended", {"quality_score": 2}),
        ("conversation.ended", {"outcome": 7, "quality_score": "5"}),
        ("conversation.ended", {"erased": True}),
        ("conversation.failed", {"error_message": "x"}),
        ("message.logged", {"role": "user", "content": "x"}),
        ("llm.used", {"cost_usd": 0.25}),
        ("llm.used", {"cost_usd": True}),
        ("llm.used", {"cost_usd": -1}),
    ]
)
TRACE = '{"parent_span_id":"cd","span_id":"ab","trace_id":"0a"}'
CONTEXT = '{"environment":"test","release":"1.2"}'
AROUND = ("0a", "ab", "cd", "test", "1.2")
_AROUND = "trace_id, span_id, parent_span_id, environment, release"


def fill(connection: Connection, steps: list[tuple[str, tuple[str, Any]]]) -> None:
    for seq, (session, (type_, data)) in enumerate(steps, 1):
        event = make_event(type_, data, session_id=session)
        connection.execute(
            tables.events.insert().values(seq=seq, chain="", **event._asdict()),
        )


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.sampled_from("ab"), LIFE), max_size=12))
@example(
    steps=[
        ("a", ("conversation.failed", {})),
        ("a", ("conversation.resumed", {})),
        ("a", ("conversation.ended", {})),
    ]
)
def test_a_conversation(steps: list[tuple[str, tuple[str, Any]]]) -> None:
    """The view `conversations` and `list_conversations` agree, resumptions included."""
    with empty_outbox() as connection:
        fill(connection, steps)
        viewed = connection.exec_driver_sql(
            "SELECT session_id, status, outcome, quality_score, cost_usd, unpriced "
            "FROM conversations"
        ).all()
        listed = list_conversations(connection, limit=None)
    by_id = {row[0]: tuple(row)[1:] for row in viewed}
    assert {each.session_id for each in listed} <= set(by_id)
    for each in listed:
        said = (each.status, each.outcome, each.quality_score, each.cost_usd, each.unpriced)
        assert by_id[each.session_id] == said


@pytest.fixture
def outbox() -> Iterator[Connection]:
    with empty_outbox() as connection:
        yield connection


def log(connection: Connection, type: str, data: dict[str, Any]) -> None:
    event = make_event(type, data, session_id="s", context=CONTEXT, trace=TRACE)
    connection.execute(tables.events.insert().values(chain="", **event._asdict()))


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_spans(outbox: Connection) -> None:
    """Spans and observed functions are in one view, each with its place in the trace."""
    log(outbox, "span.recorded", {"name": "a", "input": {"q": 1}, "output": "x", "duration_ms": 2})
    log(outbox, "function.observed", {"name": "f", "arguments": {"n": 7}, "result": [1]})
    log(outbox, "span.recorded", {"name": "b", "error": "down", "attributes": {"k": "v"}})
    log(outbox, "test.noted", {"name": "no span"})
    assert rows(
        outbox, "SELECT name, input, output, error, duration_ms, attributes FROM spans"
    ) == [
        ("a", '{"q":1}', "x", None, 2, None),
        ("f", '{"n":7}', "[1]", None, None, None),
        ("b", None, None, "down", None, '{"k":"v"}'),
    ]
    assert rows(outbox, f"SELECT DISTINCT {_AROUND} FROM spans") == [AROUND]


def test_spans_of_opentelemetry(outbox: Connection) -> None:
    """They have their own times, and fail as they say; a damaged time is none."""
    start, failed = "1790000000123456789", {"code": "error", "message": "too slow"}
    log(outbox, "otel.span", {"name": "chat", "start": start, "end": "1790000000125456999"})
    log(outbox, "otel.span", {"name": "x", "start": start, "end": "1", "status": failed})
    for end in (7, "7e3", "", None, [1], "9" * 99, {"a": 1}):
        log(outbox, "otel.span", {"name": "x", "start": end, "end": end, "status": {"code": end}})
    log(outbox, "otel.span", {"status": {"code": "error"}, "attributes": {"k": 1}, "erased": True})
    found = rows(outbox, "SELECT name, error, duration_ms, attributes FROM spans")
    assert found[:2] == [("chat", None, 2.0, None), ("x", "too slow", 0.0, None)]
    assert {row[1:3] for row in found[2:-1]} == {(None, None), (None, 0.0)}
    assert found[-1] == (None, "error", None, '{"k":1}')


def test_scores(outbox: Connection) -> None:
    """Scores of every kind are in one view, feedback as the score of that name."""
    log(outbox, "score.recorded", {"name": "f1", "value": 0.5, "target_event_id": "e"})
    log(outbox, "score.recorded", {"name": "safe", "value": True, "target_trace_id": "t"})
    log(outbox, "score.recorded", {"name": "tone", "value": "kind", "source": "judge"})
    log(outbox, "feedback.recorded", {"score": 4, "comment": "good", "source": "user"})
    log(outbox, "feedback.recorded", {"comment": "no score"})
    assert rows(
        outbox,
        "SELECT name, value, value_type, target_event_id, target_trace_id, comment, source "
        "FROM scores",
    ) == [
        ("f1", 0.5, "number", "e", None, None, None),
        ("safe", 1, "boolean", None, "t", None, None),
        ("tone", "kind", "text", None, None, None, "judge"),
        ("feedback", 4, "number", None, None, "good", "user"),
        ("feedback", None, None, None, None, "no score", None),
    ]
    assert rows(outbox, f"SELECT DISTINCT {_AROUND} FROM scores") == [AROUND]


def test_tool_and_model_calls(outbox: Connection) -> None:
    """Tool calls and model calls have their fields, and their place in the trace."""
    log(outbox, "tool.called", {"name": "find", "arguments": {"id": 7}, "result": {"ok": True}})
    log(outbox, "llm.used", {"model": "m", "cost_usd": 0.5})
    log(outbox, "message.logged", {"role": "user", "content": "Hello"})
    assert rows(outbox, f"SELECT name, arguments, result, {_AROUND} FROM tool_calls") == [
        ("find", '{"id":7}', '{"ok":true}', *AROUND)
    ]
    assert rows(outbox, f"SELECT model, cost_usd, {_AROUND} FROM llm_usage") == [
        ("m", 0.5, *AROUND)
    ]
    assert rows(outbox, f"SELECT role, content, {_AROUND} FROM messages") == [
        ("user", "Hello", *AROUND)
    ]


def test_a_damaged_row_hides_no_other(outbox: Connection) -> None:
    """Where a row holds no JSON any more, each view still gives all others."""
    for type_ in ("span.recorded", "score.recorded", "tool.called", "llm.used", "message.logged"):
        for _ in range(2):
            log(outbox, type_, {"name": "x"})
    log(outbox, "conversation.ended", {"outcome": "resolved"})
    outbox.exec_driver_sql(
        "UPDATE events SET data = '{\"na', context = 'x', trace = '{' WHERE seq % 2"
    )
    for name in ("spans", "scores", "tool_calls", "llm_usage", "messages"):
        assert len(rows(outbox, f"SELECT * FROM {name}")) == 2, name
    assert len(rows(outbox, "SELECT * FROM conversations")) == 1
