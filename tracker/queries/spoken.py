"""What spans of OpenTelemetry tell of a conversation: what was asked, answered and called.

Only what the conversation does not have otherwise: where the application logs its messages or its
tool calls, those are the transcript, and spans would repeat them.
"""

from __future__ import annotations

import re
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from tracker import canonical
from tracker.events import MESSAGE_LOGGED, OTEL_SPAN, TOOL_CALLED
from tracker.otel import names
from tracker.queries.model_calls import decoded, first_text, innermost
from tracker.queries.source import attributes, text_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, FromClause

MOST_SPANS = 10_000
"""Maximum number of spans in a transcript: the newest."""
_NUMBER = re.compile("[0-9]{1,9}")
_LOOKED_AT = (*names.WORK, *names.ANSWERED)


class Spoken(NamedTuple):
    """The spans of a conversation that are in its transcript.

    Attributes:
        positions: Their positions, in order. An answer without text, which calls tools, has none.
        asked: Whether they tell what the user said, too.
    """

    positions: list[int]
    asked: bool


def spoken(connection: Connection, session_id: str, events: FromClause) -> Spoken:
    """Return which spans are in the transcript of a conversation."""
    event = events.c
    mine = event.session_id == session_id
    trace_id = text_field(events, "trace_id", "trace")
    rows = connection.execute(
        select(
            *(trace_id, text_field(events, "span_id", "trace")),
            *(text_field(events, "parent_span_id", "trace"), event.position),
            attributes(events, _LOOKED_AT),
        )
        .where(mine, event.type == OTEL_SPAN)
        .order_by(trace_id, event.position)
    ).all()
    if not rows:
        return Spoken([], asked=False)
    said = connection.execute(
        select(event.type, text_field(events, "role"))
        .where(mine, event.type.in_((MESSAGE_LOGGED, TOOL_CALLED)))
        .distinct()
    ).all()
    logged = {each for type_, role in said for each in (type_, role)}
    found: list[int] = []
    for _, trace in groupby(rows, itemgetter(0)):
        spans = [(*row[1:4], decoded(row[4], _LOOKED_AT)) for row in trace]
        if "agent" not in logged:
            found += innermost(
                (span_id, parent, position if _answers(seen) else None)
                for span_id, parent, position, seen in spans
            )
        if TOOL_CALLED not in logged:  # an agent that is called as a tool calls tools itself
            found += innermost(each[:3] for each in spans if is_tool(each[3]))
    return Spoken(sorted(found)[-MOST_SPANS:], "user" not in logged)


def _answers(seen: Mapping[str, Any]) -> bool:
    return is_model(seen) and answer(seen) is not None


def is_model(given: Mapping[str, Any]) -> bool:
    """Return True if a span with these attributes is a call of a model."""
    return first_text(given, names.WORK) in names.MODEL_WORK


def is_tool(given: Mapping[str, Any]) -> bool:
    """Return True if a span with these attributes is a call of a tool."""
    return first_text(given, names.WORK) in names.TOOL_WORK


def answer(given: Mapping[str, Any]) -> str | None:
    """Return what a model answered, as text; None if the attributes do not tell."""
    texts = [text for _, text in _messages(given, names.OUTPUT) if text]
    return "\n".join(texts) or None


def question(given: Mapping[str, Any]) -> str | None:
    """Return what the user has said since the last answer; None if the attributes do not tell."""
    texts: list[str] = []
    for role, text in reversed(list(_messages(given, names.INPUT))):
        if role in ("assistant", "model", "agent") and text:
            break
        if role == "user" and text:
            texts.append(text)
    return "\n".join(reversed(texts)) or None


def _messages(given: Mapping[str, Any], where: names.Messages) -> Iterator[tuple[object, str]]:
    """Yield role and text of each message, by the first convention that the attributes follow."""
    listed = value_of(given.get(where.listed))
    if isinstance(listed, list):
        for each in listed:
            if isinstance(each, dict):
                yield each.get("role"), _text(each.get("parts", each.get("content")))
        return
    for beginning in where.numbered:
        starts = _numbered(given, beginning)
        for start in starts:
            content = given.get(f"{start}content", _contents(given, start))
            yield given.get(f"{start}role"), _text(value_of(content)) or _text(content)
        if starts:
            return
    whole = given.get(where.whole)
    if isinstance(whole, str) and given.get(where.kind) != "application/json":
        yield "user", whole


def _numbered(given: Mapping[str, Any], beginning: str) -> list[str]:
    """Return the beginnings of the names of all messages, in order; some number them from 1."""
    first, last = beginning.split("{}")
    places = (name[len(first) :].partition(".")[0] for name in given if name.startswith(first))
    numbers = {int(place) for place in places if _NUMBER.fullmatch(place)}
    return [f"{first}{number}{last}" for number in sorted(numbers)]


def _contents(given: Mapping[str, Any], start: str) -> list[object]:
    """Return the texts of a message of several parts, as OpenInference names them."""
    found: list[object] = []
    part = f"{start}contents.0.message_content."
    while f"{part}text" in given or f"{part}type" in given:
        found.append(given.get(f"{part}text"))
        part = f"{start}contents.{len(found)}.message_content."
    return found


def _text(content: object) -> str:
    """Return the texts of a message: of a text, or of a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    found = []
    for part in content:
        said = part.get("content", part.get("text")) if isinstance(part, dict) else part
        if isinstance(said, str) and (not isinstance(part, dict) or part.get("type") == "text"):
            found.append(said)
    return "\n".join(found)


def value_of(given: object) -> Any:
    """Return what JSON text stands for if it is that of a list or an object; others unchanged."""
    if isinstance(given, str) and given[:1] in ("[", "{"):
        try:
            return canonical.decode(given)
        except ValueError:
            return given
    return given
