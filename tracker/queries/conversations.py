"""Queries about whole conversations: agent, user, status and figures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import case, func, select

from tracker import validation
from tracker.events import (
    CONVERSATION_ENDED,
    CONVERSATION_FAILED,
    CONVERSATION_RESUMED,
    CONVERSATION_STARTED,
    MESSAGE_LOGGED,
    OTEL_SPAN,
    TOOL_CALLED,
)
from tracker.queries.figures import figure, known_sum, tokens
from tracker.queries.filters import EVERYTHING
from tracker.queries.model_calls import model_calls
from tracker.queries.source import EVENTS, number_field, text_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, FromClause

    from tracker.queries.filters import Filters

T = TypeVar("T")

OPEN = "open"
ENDED = "ended"
FAILED = "failed"
STATUSES = (OPEN, ENDED, FAILED)

FAILURE_OUTCOMES = frozenset({"failure", "failed", "error"})
"""Outcomes, in upper or lower case, with which an ended conversation counts as failed."""

_OPENING = (CONVERSATION_STARTED, CONVERSATION_RESUMED)
LIFECYCLE = (*_OPENING, CONVERSATION_ENDED, CONVERSATION_FAILED)

LLM_USED = "llm.used"

_OF_CONVERSATIONS = (*LIFECYCLE, MESSAGE_LOGGED, TOOL_CALLED)
"""Types whose events make a session a conversation; others may name any session."""

_CHUNK = 200
"""Maximum number of conversations per query; SQLite before 3.32 binds at most 999 values."""


@dataclass(frozen=True)
class Conversation:
    """The state of a conversation.

    Attributes:
        session_id: Its id.
        agent_id: The agent, or None if it is unknown.
        user_id: The user, or None if it is unknown.
        status: ``"open"``, ``"ended"`` or ``"failed"``, since it was last started or resumed. It
            failed if a failure was recorded, or if it ended with the outcome ``"failure"``,
            ``"failed"`` or ``"error"``.
        outcome: The outcome last passed to `end_conversation`.
        quality_score: The score last passed to `end_conversation`.
        started_at_ms: Time of its first event stored here, Unix milliseconds.
        last_at_ms: Time of its newest event, Unix milliseconds.
        messages: Number of messages logged.
        tool_calls: Number of tool calls logged.
        tokens_used: Sum of the `tokens_used` of its messages.
        cost_usd: Cost in US dollars of its model calls, as far as known; None if none is known.
            Only calls that name the session belong to it.
        unpriced: Number of its model calls whose cost is unknown and not in `cost_usd`.
    """

    session_id: str
    agent_id: str | None = None
    user_id: str | None = None
    status: str = OPEN
    outcome: str | None = None
    quality_score: float | None = None
    started_at_ms: int = 0
    last_at_ms: int = 0
    messages: int = 0
    tool_calls: int = 0
    tokens_used: int = 0
    cost_usd: float | None = None
    unpriced: int = 0


def text(value: object) -> str | None:
    """Return the value of a field if it is text, otherwise None."""
    return value if isinstance(value, str) else None


def next_status(status: str, type: str, outcome: object) -> str:
    """Return the status of a conversation after an event of that type.

    A failed conversation stays failed, even if it is then ended; starting or resuming it opens it
    again.
    """
    if type in _OPENING:
        return OPEN
    if type == CONVERSATION_FAILED or (type == CONVERSATION_ENDED and is_failure(outcome)):
        return FAILED
    if type == CONVERSATION_ENDED and status == OPEN:
        return ENDED
    return status


def is_failure(outcome: object) -> bool:
    """Return True if a conversation with that outcome counts as failed."""
    return isinstance(outcome, str) and outcome.casefold() in FAILURE_OUTCOMES


def list_conversations(
    connection: Connection,
    wanted: Filters = EVERYTHING,
    status: str | None = None,
    limit: int | None = 50,
    events: FromClause = EVENTS,
) -> tuple[Conversation, ...]:
    """Return the newest matching conversations, in the order in which they began.

    Conversations without a stored start are included: those started elsewhere, or whose oldest
    events were pruned.

    Args:
        connection: A connection to the database.
        wanted: Which conversations; see `conversation_page`.
        status: Only conversations that are ``"open"``, ``"ended"`` or ``"failed"``.
        limit: Maximum number of conversations; None for all.
        events: The table of events.

    Raises:
        ValidationError: if an argument is not allowed.
    """
    if status is not None:
        validation.check_choice("status", status, STATUSES)
    if limit is not None:
        validation.check_count("limit", limit)
    page = conversation_page(connection, wanted, status, limit, events=events)
    return tuple(reversed(page.conversations))


class Page(NamedTuple):
    """Conversations, the one that began last first, and the start of the next page."""

    conversations: list[Conversation]
    next: int | None


def conversation_page(
    connection: Connection,
    wanted: Filters,
    status: str | None,
    limit: int | None,
    before: int | None = None,
    events: FromClause = EVENTS,
) -> Page:
    """Return a page of the newest matching conversations.

    Args:
        connection: A connection to the database.
        wanted: Which conversations: those of an agent and a user, begun in a period, with an event
            that matches the rest.
        status: Only conversations with this status; None for all.
        limit: Maximum number of conversations; None for all.
        before: The `next` of the previous page; None for the first page.
        events: The table of events.

    Returns:
        The page; its `next` is None if no conversations are left. Those that are left may not
        match.
    """
    found: list[Conversation] = []
    last = None
    rest = wanted.without("agent_id", "user_id", "since_ms", "until_ms")
    for position, conversation in newest_first(connection, status, before, events, rest):
        if limit is not None and len(found) >= limit:
            return Page(found, last)
        if status in (None, conversation.status) and _matches(wanted, conversation):
            found.append(conversation)
            last = position
    return Page(found, None)


def _matches(wanted: Filters, conversation: Conversation) -> bool:
    """Return True if a conversation is of the agent and the user, and begun in the period."""
    mine, its = (wanted.agent_id, wanted.user_id), (conversation.agent_id, conversation.user_id)
    if any(want is not None and want != has for want, has in zip(mine, its, strict=True)):
        return False
    since_ms, until_ms = wanted.since_ms, wanted.until_ms
    if since_ms is None and until_ms is None:
        return True
    started: object = conversation.started_at_ms
    if not isinstance(started, int):  # a damaged row holds any type
        return False
    return (since_ms is None or started >= since_ms) and (until_ms is None or started < until_ms)


def newest_first(
    connection: Connection,
    status: str | None = None,
    before: int | None = None,
    events: FromClause = EVENTS,
    wanted: Filters = EVERYTHING,
) -> Iterator[tuple[int, Conversation]]:
    """Yield the conversations with an event that matches, the one that began last first.

    With a `status`, only those that may have it.

    Each has the position of its first event. No cursor is open meanwhile.
    """
    # Answered from the index of session ids alone, without reading the rows.
    first = func.min(events.c.position)
    query = (
        select(first, events.c.session_id)
        .where(events.c.session_id.is_not(None))
        .group_by(events.c.session_id)
        .order_by(first.desc())
    )
    if wanted != EVERYTHING:
        query = query.where(events.c.session_id.in_(select(wanted.of(events).c.session_id)))
    if before is not None:
        query = query.having(first < before)
    sessions: Sequence[Any] = connection.execute(query).all()
    if status is not None:
        stand = standings(connection, events)
        sessions = [each for each in sessions if stand.get(each[1], _UNKNOWN).status == status]
    for chunk in chunks(sessions):
        found = _read(connection, [session_id for _, session_id in chunk], events)
        for position, session_id in chunk:
            if session_id in found:
                yield position, found[session_id]


class Opening(NamedTuple):
    """The event that last started or resumed a conversation."""

    position: int
    timestamp_ms: int
    agent_id: str | None
    user_id: str | None


class Standing(NamedTuple):
    """The status of a session, and the event that opened it last; None if it is not stored."""

    status: str = OPEN
    opening: Opening | None = None


_UNKNOWN = Standing()


def standings(connection: Connection, events: FromClause = EVENTS) -> dict[str, Standing]:
    """Return the standing of each session that was started, resumed or closed; reads few rows."""
    column, outcome = events.c, text_field(events, "outcome")
    rows = connection.execute(
        select(
            *(column.session_id, column.type, case((column.type == CONVERSATION_ENDED, outcome))),
            *(column.position, column.timestamp_ms, column.agent_id, column.user_id),
        )
        .where(column.type.in_(LIFECYCLE), column.session_id.is_not(None))
        .order_by(column.position)
    ).all()
    found: dict[str, Standing] = {}
    for session_id, type_, said, *event in rows:
        before = found.get(session_id, _UNKNOWN)
        opening = Opening(*event) if type_ in _OPENING else before.opening
        found[session_id] = Standing(next_status(before.status, type_, said), opening)
    return found


def chunks(sessions: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the sessions in chunks that fit into one query."""
    for start in range(0, len(sessions), _CHUNK):
        yield sessions[start : start + _CHUNK]


def find_conversation(
    connection: Connection, session_id: str, events: FromClause = EVENTS
) -> Conversation | None:
    """Return one conversation; None if none of its events is stored.

    Spans of OpenTelemetry are enough for it: a framework may name conversations itself.
    """
    kinds = (*_OF_CONVERSATIONS, OTEL_SPAN)
    return _read(connection, [session_id], events, kinds).get(session_id)


def _read(
    connection: Connection,
    sessions: Sequence[str],
    events: FromClause,
    kinds: Sequence[str] = _OF_CONVERSATIONS,
) -> dict[str, Conversation]:
    """Return the conversations among these sessions, by id: those with an event of some types."""
    type_ = events.c.type
    found_figure = case(
        (type_ == MESSAGE_LOGGED, number_field(events, "tokens_used")),
        (type_ == CONVERSATION_ENDED, number_field(events, "quality_score")),
        (type_ == LLM_USED, number_field(events, "cost_usd")),
    )
    said = case((type_ == CONVERSATION_ENDED, text_field(events, "outcome")))
    column = events.c
    rows = connection.execute(
        select(
            *(column.session_id, type_, column.timestamp_ms, column.agent_id, column.user_id),
            found_figure,
            said,
        )
        .where(column.session_id.in_(sessions))
        .order_by(column.session_id, column.position)
    ).all()
    costs = defaultdict[str | None, list[float | None]](list)
    for call in model_calls(connection, events, [column.session_id.in_(sessions)]):
        costs[call.session_id].append(call.cost_usd)
    found = {}
    for session_id, group in groupby(rows, itemgetter(0)):
        stored = list(group)
        if any(event[1] in kinds for event in stored):
            found[session_id] = _summary(session_id, stored, costs[session_id])
    return found


def _summary(session_id: str, events: Sequence[Any], costs: list[float | None]) -> Conversation:
    """Return the state of a session from its events in order, and what spans in it cost."""
    status = OPEN
    agent_id = user_id = outcome = quality_score = None
    counts = dict.fromkeys((MESSAGE_LOGGED, TOOL_CALLED), 0)
    tokens_used, costs = 0, [*costs]
    for _, type_, _, agent, user, value, said in events:
        agent_id, user_id = agent or agent_id, user or user_id
        status = next_status(status, type_, said)
        if type_ in counts:
            counts[type_] += 1
        if type_ == CONVERSATION_ENDED:
            outcome = text(said) or outcome
            quality_score = figure("quality_score", value) or quality_score
        elif type_ == MESSAGE_LOGGED:
            tokens_used += tokens("tokens_used", value) or 0
        elif type_ == LLM_USED:
            costs.append(figure("cost_usd", value))
    cost_usd, unpriced = known_sum(costs)
    return Conversation(
        session_id,
        agent_id,
        user_id,
        status,
        outcome,
        quality_score,
        started_at_ms=events[0][2],
        last_at_ms=events[-1][2],
        messages=counts[MESSAGE_LOGGED],
        tool_calls=counts[TOOL_CALLED],
        tokens_used=tokens_used,
        cost_usd=cost_usd,
        unpriced=unpriced,
    )
