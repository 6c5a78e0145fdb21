"""Queries about whole conversations: agent, user, status and figures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import case, select

from tracker import clock, validation
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
from tracker.queries.newest import CHUNK, chunks, windows
from tracker.queries.slices import of_sessions
from tracker.queries.source import EVENTS, number_field, text_field, unindexed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection, FromClause

    from tracker.queries.filters import Filters
    from tracker.queries.newest import Begun, Window

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


def fields(value: object) -> dict[str, Any]:
    """Return an object's fields; none if the value is no object, as in a damaged row."""
    return value if isinstance(value, dict) else {}


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


MOST_SECONDS = 0.5
"""How long a page may be looked for where somebody waits for it."""


class Page(NamedTuple):
    """A page of conversations.

    Attributes:
        conversations: The conversations, the one that began last first.
        next: The `before` of the next page; None if nothing is left.
        looked_back_to_ms: If the look ended for want of time, how far back it went: a time, Unix
            milliseconds.
    """

    conversations: list[Conversation]
    next: int | None
    looked_back_to_ms: int | None = None


def conversation_page(
    connection: Connection,
    wanted: Filters,
    status: str | None,
    limit: int | None,
    before: int | None = None,
    events: FromClause = EVENTS,
    *,
    seconds: float | None = None,
    among: Iterable[Window] | None = None,
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
        seconds: About how long to look for them, so that a page may have fewer, or none, though
            more are left; None for as long as it takes.
        among: What to look at, as `windows` yields it; None for all of the events.

    Returns:
        The page; its `next` is None if no conversations are left. Those that are left may not
        match.
    """
    if limit == 0:
        return Page([], None)
    found: list[Conversation] = []
    last = before
    ends_at = None if seconds is None else clock.monotonic() + seconds
    if among is None:
        among = windows(connection, events, wanted, before, to_the_end=seconds is None)
    for position, conversation in _looked_at(connection, among, status, events, limit):
        if conversation is not None:
            if len(found) == limit:
                return Page(found, last)
            if _matches(wanted, conversation):
                found.append(conversation)
                last = position
        if ends_at is not None and clock.monotonic() >= ends_at:
            if len(found) == limit:
                return Page(found, last)
            return Page(found, position, _time_at(connection, events, position))
    return Page(found, None)


def _time_at(connection: Connection, events: FromClause, position: int) -> int | None:
    event = events.c
    query = select(event.timestamp_ms).where(event.position == position)
    found = connection.execute(query).scalar()
    return found if isinstance(found, int) else None  # a damaged row has any type


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


def newest_id(connection: Connection) -> str | None:
    """Return the id of the conversation that began last; None if there is none."""
    found = conversation_page(connection, EVERYTHING, None, 1).conversations
    return found[0].session_id if found else None


def newest_first(
    connection: Connection, status: str | None = None, events: FromClause = EVENTS
) -> Iterator[tuple[int, Conversation]]:
    """Yield all conversations, or those with a status, the one that began last first.

    Each has the position of its first event. No cursor is open meanwhile.
    """
    for position, conversation in _looked_at(
        connection, windows(connection, events), status, events, None
    ):
        if conversation is not None:
            yield position, conversation


def _looked_at(
    connection: Connection,
    among: Iterable[Window],
    status: str | None,
    events: FromClause,
    limit: int | None,
) -> Iterator[tuple[int, Conversation | None]]:
    """Yield positions, descending, and the conversation that begins at each if it may be wanted.

    Now and then a position comes without one: all that begins there or after has been looked at.
    """
    at_once = CHUNK if limit is None else min(limit + 1, CHUNK)
    for window in among:
        for some in chunks(window.sessions):
            for few in chunks(_of_status(connection, some, status, events), at_once):
                found = _read(connection, [each.session_id for each in few], events)
                for position, session_id in few:
                    yield position, found.get(session_id)
            yield some[-1].position, None
        if window.lowest is not None:
            yield window.lowest, None


def _of_status(
    connection: Connection, sessions: Sequence[Begun], status: str | None, events: FromClause
) -> Sequence[Begun]:
    """Return those of some sessions that have a status, if there is one."""
    if status is None:
        return sessions
    stand = standings(connection, events, [each.session_id for each in sessions])
    return [each for each in sessions if stand.get(each.session_id, _UNKNOWN).status == status]


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


def standings(
    connection: Connection, events: FromClause = EVENTS, sessions: Sequence[str] | None = None
) -> dict[str, Standing]:
    """Return the standing of each session that was started, resumed or closed; reads few rows.

    With `sessions`, of these alone; they must fit into one query.
    """
    column, outcome = events.c, text_field(events, "outcome")
    closing, mine = column.type.in_(LIFECYCLE), column.session_id.is_not(None)
    if sessions is not None:  # found by their index, not by one that many rows share
        closing = unindexed(column.type).in_(LIFECYCLE)
        mine = column.session_id.in_(sessions)
    rows = connection.execute(
        select(
            *(column.session_id, column.type, case((column.type == CONVERSATION_ENDED, outcome))),
            *(column.position, column.timestamp_ms, column.agent_id, column.user_id),
        ).where(closing, mine)
    ).all()
    found: dict[str, Standing] = {}
    for session_id, type_, said, *event in sorted(rows, key=itemgetter(3)):
        before = found.get(session_id, _UNKNOWN)
        opening = Opening(*event) if type_ in _OPENING else before.opening
        found[session_id] = Standing(next_status(before.status, type_, said), opening)
    return found


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
    query = select(
        *(column.session_id, column.position, type_, column.timestamp_ms),
        *(column.agent_id, column.user_id, found_figure, said),
    )
    costs = defaultdict[str | None, list[float | None]](list)
    for call in model_calls(connection, events, [column.session_id.in_(sessions)]):
        costs[call.session_id].append(call.cost_usd)
    rows = of_sessions(connection, events, query, sessions)
    read = (
        _summary(session_id, stored, costs[session_id], kinds)
        for session_id, stored in groupby(rows, itemgetter(0))
    )
    return {each.session_id: each for each in read if each is not None}


def _summary(
    session_id: str, events: Iterable[Any], costs: list[float | None], kinds: Sequence[str]
) -> Conversation | None:
    """Return the state of a session from its events in order, and what spans in it cost.

    None if it is no conversation: if there is no event of some types.
    """
    status, is_one = OPEN, False
    agent_id = user_id = outcome = quality_score = None
    started_at_ms = last_at_ms = 0
    counts = dict.fromkeys((MESSAGE_LOGGED, TOOL_CALLED), 0)
    tokens_used, costs = 0, [*costs]
    for number, (_, _, type_, last_at_ms, agent, user, value, said) in enumerate(events):
        started_at_ms = started_at_ms if number else last_at_ms
        is_one = is_one or type_ in kinds
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
    if not is_one:
        return None
    cost_usd, unpriced = known_sum(costs)
    return Conversation(
        session_id,
        agent_id,
        user_id,
        status,
        outcome,
        quality_score,
        started_at_ms=started_at_ms,
        last_at_ms=last_at_ms,
        messages=counts[MESSAGE_LOGGED],
        tool_calls=counts[TOOL_CALLED],
        tokens_used=tokens_used,
        cost_usd=cost_usd,
        unpriced=unpriced,
    )
