"""The messages and tool calls of a conversation: those logged, else those that spans tell of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from tracker import canonical, validation
from tracker.events import MESSAGE_LOGGED, OTEL_SPAN, TOOL_CALLED
from tracker.otel import names
from tracker.queries.content import parts_of, readable
from tracker.queries.conversations import text
from tracker.queries.failure import failure_of
from tracker.queries.figures import figure, span_duration, tokens
from tracker.queries.model_calls import counts_of, first_text
from tracker.queries.scores import Score, list_scores
from tracker.queries.source import EVENTS, newest_page
from tracker.queries.spoken import answer, is_tool, question, spoken, value_of

if TYPE_CHECKING:
    from sqlalchemy import BindParameter, ColumnElement, Connection, FromClause


@dataclass(frozen=True)
class ToolCall:
    """A tool call of a conversation.

    Attributes:
        name: The tool's name.
        arguments: The arguments.
        result: The result.
        error: The error, if it failed.
        duration_ms: Milliseconds it took.
        call_id: The id that the model gave the call.
    """

    name: str | None = None
    arguments: Any = None
    result: Any = None
    error: str | None = None
    duration_ms: float | None = None
    call_id: str | None = None


@dataclass(frozen=True)
class HistoryEntry:
    """A message or tool call of a conversation. Values that were not logged are None.

    Attributes:
        seq: Its position in the outbox.
        event_id: Its id.
        type: ``"message.logged"``, ``"tool.called"``, or ``"otel.span"`` for a model or tool call
            that OpenTelemetry recorded in a conversation without such events of its own.
        timestamp_ms: Time when it was logged, Unix milliseconds.
        role: ``"user"``, ``"agent"``, ``"system"`` or ``"tool"``; ``"tool"`` for a tool call.
        content: The message as text, with a line for each part that is none, such as an image;
            None for a tool call.
        response_time_ms: Milliseconds until the answer.
        tokens_used: Tokens used for it.
        model: The model that generated it.
        metadata: Additional data.
        tool_call: The call, for a tool call.
        erased: Whether its data was erased.
        parts: The parts as they are stored, if the message consists of several; otherwise None.
        scores: The scores of this message or call. Those of the conversation as a whole are in
            `list_scores`.
        prompt: What the user had said when the model was called, if only its span tells.
    """

    seq: int
    event_id: str
    type: str
    timestamp_ms: int
    role: str | None = None
    content: str | None = None
    response_time_ms: float | None = None
    tokens_used: int | None = None
    model: str | None = None
    metadata: dict[str, Any] | None = None
    tool_call: ToolCall | None = None
    erased: bool = False
    parts: list[dict[str, Any]] | None = None
    scores: tuple[Score, ...] = ()
    prompt: str | None = None


def get_conversation_history(
    connection: Connection,
    session_id: str,
    include_content: bool = True,
    limit: int | None = None,
    events: FromClause = EVENTS,
) -> tuple[HistoryEntry, ...]:
    """Return a conversation's messages and tool calls in the order in which they were logged.

    Args:
        connection: A connection to the database.
        session_id: The conversation. The history of an unknown one is empty.
        include_content: If False, texts, metadata and the arguments, results and errors of tools
            are left out.
        limit: Return only so many of the newest entries; None for all.
        events: The table of events.

    Raises:
        ValidationError: if an argument is not allowed.
    """
    session_id = validation.check_id("session_id", session_id)
    include_content = validation.check_flag("include_content", include_content)
    if limit is not None:
        validation.check_count("limit", limit)
    found, _ = newest_entries(connection, session_id, include_content, limit, events=events)
    return tuple(reversed(found))


def newest_entries(
    connection: Connection,
    session_id: str,
    include_content: bool,
    limit: int | None,
    before: int | None = None,
    max_characters: int | None = None,
    events: FromClause = EVENTS,
) -> tuple[list[HistoryEntry], int | None]:
    """Return a page of a conversation's history, newest first, and the start of the next page.

    `limit`, `before`, `max_characters` and the second value are those of `newest_page`.
    """
    column = events.c
    told = spoken(connection, session_id, events)
    shown: ColumnElement[bool] = column.type.in_((MESSAGE_LOGGED, TOOL_CALLED))
    if told.positions:
        listed: BindParameter[Any] = bindparam(
            "spans", told.positions, expanding=True, literal_execute=True
        )
        shown |= column.position.in_(listed)
    query = select(
        *(column.seq, column.event_id, column.type, column.timestamp_ms, column.data)
    ).where(column.session_id == session_id, shown)
    rows, following = newest_page(connection, events, query, limit, before, max_characters)
    entries = [entry_of(*row, include_content=include_content) for row in rows]
    if not told.asked:
        entries = [replace(entry, prompt=None) if entry.prompt else entry for entry in entries]
    judged: dict[str, list[Score]] = {}
    for score in list_scores(connection, session_id, events, include_content, max_characters):
        if score.target_event_id is not None:
            judged.setdefault(score.target_event_id, []).append(score)
    if judged:
        entries = [
            replace(entry, scores=tuple(judged[entry.event_id]))
            if entry.event_id in judged
            else entry
            for entry in entries
        ]
    return entries, following


def entry_of(
    seq: int,
    event_id: str,
    type: str,
    timestamp_ms: int,
    stored: str,
    *,
    include_content: bool = True,
) -> HistoryEntry:
    """Return the entry for an event of a type that histories have; `stored` is its data."""
    data = _decode(stored)
    erased = data.get("erased") is True
    if type == OTEL_SPAN:
        return _from_span(
            HistoryEntry(seq, event_id, type, timestamp_ms), data, include_content=include_content
        )
    if type == TOOL_CALLED:
        call = None if erased else _tool_call(data, include_content=include_content)
        return HistoryEntry(
            seq, event_id, type, timestamp_ms, role="tool", tool_call=call, erased=erased
        )
    metadata = data.get("metadata")
    return HistoryEntry(
        seq,
        event_id,
        type,
        timestamp_ms,
        role=text(data.get("role")),
        content=readable(data.get("content")) if include_content else None,
        response_time_ms=figure("response_time_ms", data.get("response_time_ms")),
        tokens_used=tokens("tokens_used", data.get("tokens_used")),
        model=text(data.get("model")),
        metadata=metadata if include_content and isinstance(metadata, dict) else None,
        erased=erased,
        parts=parts_of(data.get("content")) if include_content else None,
    )


def _from_span(entry: HistoryEntry, data: dict[str, Any], *, include_content: bool) -> HistoryEntry:
    """Return the entry of a span of a model or a tool."""
    stored = data.get("attributes")
    given = stored if isinstance(stored, dict) else {}
    took = span_duration(data)
    if is_tool(given):
        call = _called(data, given) if include_content else ToolCall()
        name = first_text(given, names.TOOL_NAME) or text(data.get("name"))
        call_id = first_text(given, names.TOOL_CALL_ID)
        return replace(
            entry,
            role="tool",
            tool_call=replace(call, name=name, duration_ms=took, call_id=call_id),
        )
    return replace(
        entry,
        role="agent",
        content=answer(given) if include_content else None,
        response_time_ms=took,
        tokens_used=counts_of(given)[2],
        model=first_text(given, names.MODEL),
        prompt=question(given) if include_content else None,
    )


def _called(data: dict[str, Any], given: dict[str, Any]) -> ToolCall:
    """Return what a span tells of a call of a tool: arguments, result and error."""
    failed = failure_of(data)
    return ToolCall(
        arguments=_first(given, names.TOOL_ARGUMENTS),
        result=_first(given, names.TOOL_RESULT),
        error=None if failed is None else failed.error,
    )


def _first(given: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((value_of(given[key]) for key in keys if key in given), None)


def _tool_call(data: dict[str, Any], *, include_content: bool) -> ToolCall:
    return ToolCall(
        name=text(data.get("name")),
        arguments=data.get("arguments") if include_content else None,
        result=data.get("result") if include_content else None,
        error=text(data.get("error")) if include_content else None,
        duration_ms=figure("duration_ms", data.get("duration_ms")),
        call_id=text(data.get("call_id")),
    )


def _decode(stored: str) -> dict[str, Any]:
    """Return an event's data; an empty dict if the row is damaged."""
    try:
        data = canonical.decode(stored)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
