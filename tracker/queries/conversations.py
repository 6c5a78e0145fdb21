"""Conversations as wholes: whose they are, how they stand, what was in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import case, func, select

from tracker import validation
from tracker.errors import ValidationError
from tracker.events import (
    CONVERSATION_ENDED,
    CONVERSATION_FAILED,
    CONVERSATION_RESUMED,
    CONVERSATION_STARTED,
    MESSAGE_LOGGED,
    TOOL_CALLED,
)
from tracker.queries.figures import figure, known_sum, tokens
from tracker.queries.source import EVENTS, number_field, text_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, FromClause

T = TypeVar("T")

OPEN = "open"
ENDED = "ended"
FAILED = "failed"
STATUSES = (OPEN, ENDED, FAILED)

FAILURE_OUTCOMES = frozenset({"failure", "failed", "error"})
"""Outcomes, in any case, by which a conversation that ended counts as failed."""

_OPENING = (CONVERSATION_STARTED, CONVERSATION_RESUMED)
LIFECYCLE = (*_OPENING, CONVERSATION_ENDED, CONVERSATION_FAILED)

LLM_USED = "llm.used"

_OF_CONVERSATIONS = (*LIFECYCLE, MESSAGE_LOGGED, TOOL_CALLED)
"""Types that make a conversation of a session; others may name any session."""

_CHUNK = 200
"""Conversations read at once; SQLite before 3.32 binds at most 999 values."""


@dataclass(frozen=True)
class Conversation:
    """One conversation, as it stands.

    Attributes:
        session_id: Its id.
        agent_id: The agent, as far as it is known.
        user_id: The user, as far as it is known.
        status: ``"open"``, ``"ended"`` or ``"failed"``, since it was last started or resumed. It
            failed if a failure was recorded, or if it ended with the outcome ``"failure"``,
            ``"failed"`` or ``"error"``.
        outcome: What came of it, as `end_conversation` was told last.
        quality_score: The score that `end_conversation` was given last.
        started_at_ms: When its first event that is stored here was logged, Unix milliseconds.
        last_at_ms: When its newest event was logged.
        messages: How many messages were logged.
        tool_calls: How many tool calls were logged.
        tokens_used: Sum of its messages' `tokens_used`.
        cost_usd: US dollars of those of its model calls whose cost is known; None if none is.
            Only calls that name the session belong to it.
        unpriced: How many of its model calls have a cost that is not known, and so not in
            `cost_usd`.
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


def milliseconds(argument: str, moment: datetime | int | None) -> int | None:
    """Return a moment as Unix milliseconds; None for None.

    Raises:
        ValidationError: if it is neither an int nor a datetime with a time zone.
    """
    if moment is None or (isinstance(moment, int) and not isinstance(moment, bool)):
        return moment
    if not isinstance(moment, datetime):
        raise ValidationError(
            argument, f"is of type {type(moment).__name__}; give a datetime or Unix milliseconds"
        )
    if moment.utcoffset() is None:
        raise ValidationError(
            argument, "has no time zone; give one, as in datetime.now(timezone.utc)"
        )
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    # In whole numbers: timestamp() would be a float that lies beside some milliseconds.
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 1000 + (
        since_epoch.microseconds // 1000
    )


def text(value: object) -> str | None:
    """Return what was found in a field if it is text, otherwise None."""
    return value if isinstance(value, str) else None


def next_status(status: str, type: str, outcome: object) -> str:
    """Return how a conversation stands after an event of that type.

    A failure stays one, also when the conversation is then ended in order; starting or resuming
    it opens it again.
    """
    if type in _OPENING:
        return OPEN
    if type == CONVERSATION_FAILED or (type == CONVERSATION_ENDED and is_failure(outcome)):
        return FAILED
    if type == CONVERSATION_ENDED and status == OPEN:
        return ENDED
    return status


def is_failure(outcome: object) -> bool:
    """Tell whether a conversation with that outcome counts as failed."""
    return isinstance(outcome, str) and outcome.casefold() in FAILURE_OUTCOMES


@dataclass(frozen=True)
class Wanted:
    """Which conversations are wanted; None wants all.

    Attributes:
        agent_id: The agent.
        user_id: The user.
        status: One of `STATUSES`.
        since_ms: Started then or later, Unix milliseconds.
        until_ms: Started before then.
    """

    agent_id: str | None = None
    user_id: str | None = None
    status: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def matches(self, conversation: Conversation) -> bool:
        """Tell whether a conversation is one of those wanted."""
        mine = (self.agent_id, self.user_id, self.status)
        its = (conversation.agent_id, conversation.user_id, conversation.status)
        if any(want is not None and want != has for want, has in zip(mine, its, strict=True)):
            return False
        if self.since_ms is None and self.until_ms is None:
            return True
        started: object = conversation.started_at_ms
        if not isinstance(started, int):  # a damaged row holds any type
            return False
        return (self.since_ms is None or started >= self.since_ms) and (
            self.until_ms is None or started < self.until_ms
        )


def list_conversations(
    connection: Connection,
    *,
    agent_id: str | None = None,
    user_id: str | None = None,
    status: str | None = None,
    since: datetime | int | None = None,
    until: datetime | int | None = None,
    limit: int | None = 50,
    events: FromClause = EVENTS,
) -> tuple[Conversation, ...]:
    """Return the newest `limit` of the conversations wanted, in the order they began.

    Conversations without a stored start count too: those begun elsewhere, or whose oldest events
    were pruned.

    Args:
        connection: A connection to the database.
        agent_id: Only this agent's.
        user_id: Only this user's.
        status: Only those that are ``"open"``, ``"ended"`` or ``"failed"``.
        since: Only those started then or later: a datetime with a time zone, or Unix milliseconds.
        until: Only those started before then.
        limit: How many at most; None for all.
        events: Where they are.

    Raises:
        ValidationError: if an argument is not allowed.
    """
    if status is not None:
        validation.check_choice("status", status, STATUSES)
    wanted = Wanted(
        validation.check_optional_id("agent_id", agent_id),
        validation.check_optional_id("user_id", user_id),
        status,
        milliseconds("since", since),
        milliseconds("until", until),
    )
    if limit is not None:
        validation.check_count("limit", limit)
    page = conversation_page(connection, wanted, limit, events=events)
    return tuple(reversed(page.conversations))


class Page(NamedTuple):
    """Conversations, the one that began last first, and where the next page begins."""

    conversations: list[Conversation]
    next: int | None


def conversation_page(
    connection: Connection,
    wanted: Wanted,
    limit: int | None,
    before: int | None = None,
    events: FromClause = EVENTS,
) -> Page:
    """Return the newest `limit` of the conversations wanted.

    Args:
        connection: A connection to the database.
        wanted: Which.
        limit: How many at most; None for all.
        before: The `next` of the page before this one; None for the first.
        events: Where they are.

    Returns:
        The page; its `next` is None if nothing is left to look at. What is left need not match.
    """
    found: list[Conversation] = []
    last = None
    for position, conversation in newest_first(connection, wanted.status, before, events):
        if limit is not None and len(found) >= limit:
            return Page(found, last)
        if wanted.matches(conversation):
            found.append(conversation)
            last = position
    return Page(found, None)


def newest_first(
    connection: Connection,
    status: str | None = None,
    before: int | None = None,
    events: FromClause = EVENTS,
) -> Iterator[tuple[int, Conversation]]:
    """Yield all conversations, or those of a status, the one that began last first.

    Each comes with its first event's position. No cursor is open meanwhile.
    """
    # Answered by the index of session ids alone: the rows are not read.
    first = func.min(events.c.position)
    query = (
        select(first, events.c.session_id)
        .where(events.c.session_id.is_not(None))
        .group_by(events.c.session_id)
        .order_by(first.desc())
    )
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
    """The event that opened a conversation, its last start or resumption, as the row has it."""

    position: int
    timestamp_ms: int
    agent_id: str | None
    user_id: str | None


class Standing(NamedTuple):
    """How a session stands, and what opened it last; None if nothing that is stored did."""

    status: str = OPEN
    opening: Opening | None = None


_UNKNOWN = Standing()


def standings(connection: Connection, events: FromClause = EVENTS) -> dict[str, Standing]:
    """Return how each session stands in which anything began or ended; few rows tell."""
    column, outcome = events.c, text_field(events, "outcome")
    rows = connection.execute(
        select(
            *(column.session_id, column.type, case((column.type == CONVERSATION_ENDED, outcome))),
            *(column.position, column.timestamp_ms, column.agent_id, column.user_id),
        )
        .where(column.timestamp_ms >= -(2**63))  # any; so that its index is taken
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
    """Yield the sessions, as many at a time as one query can name."""
    for start in range(0, len(sessions), _CHUNK):
        yield sessions[start : start + _CHUNK]


def find_conversation(
    connection: Connection, session_id: str, events: FromClause = EVENTS
) -> Conversation | None:
    """Return one conversation; None if nothing of it is stored."""
    return _read(connection, [session_id], events).get(session_id)


def _read(
    connection: Connection, sessions: Sequence[str], events: FromClause
) -> dict[str, Conversation]:
    """Return the conversations among these sessions, by id."""
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
    found = {}
    for session_id, group in groupby(rows, itemgetter(0)):
        stored = list(group)
        if any(event[1] in _OF_CONVERSATIONS for event in stored):
            found[session_id] = _summary(session_id, stored)
    return found


def _summary(session_id: str, events: Sequence[Any]) -> Conversation:
    """Fold a session's events, in order, into what is known of it."""
    status = OPEN
    agent_id = user_id = outcome = quality_score = None
    counts = dict.fromkeys((MESSAGE_LOGGED, TOOL_CALLED), 0)
    tokens_used, costs = 0, list[float | None]()
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
