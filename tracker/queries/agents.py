"""Queries about agents: their state, their activities, and an overview."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select

from tracker import canonical
from tracker.events import (
    AGENT_ACTIVITY,
    AGENT_HEARTBEAT,
    AGENT_REGISTERED,
    AGENT_STATUS_CHANGED,
    AgentStatus,
)
from tracker.queries.figures import figure
from tracker.queries.filters import EVERYTHING
from tracker.queries.source import EVENTS, MAX_TEXT, newest_page, text_field

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, FromClause, Select

    from tracker.queries.filters import Filters


@dataclass(frozen=True)
class AgentState:
    """The state of an agent, from its events in this outbox.

    Attributes:
        agent_id: The agent.
        name: The name last registered, or None.
        version: The version last registered, or None.
        status: The last status, or None.
        previous_status: The status before it, or None.
        status_at_ms: Time of the last status, Unix milliseconds.
        last_seen_ms: Time when an event of the agent was last logged, Unix milliseconds.
    """

    agent_id: str
    name: str | None
    version: str | None
    status: AgentStatus | None
    previous_status: AgentStatus | None
    status_at_ms: int | None
    last_seen_ms: int


@dataclass(frozen=True)
class AgentActivity:
    """An activity of an agent.

    Attributes:
        event_id: The event's id.
        agent_id: The agent.
        session_id: The conversation that it belongs to, or None.
        timestamp_ms: Time when it was logged, Unix milliseconds.
        activity: What the agent did.
        duration_ms: Milliseconds it took, or None.
        details: Additional data, or None.
    """

    event_id: str
    agent_id: str
    session_id: str | None
    timestamp_ms: int
    activity: str
    duration_ms: float | None
    details: Any


@dataclass(frozen=True)
class OperationsOverview:
    """Overview of all agents.

    Attributes:
        agents: Number of agents; the sum of the following five counts.
        active: Number of agents whose status is ``active``.
        idle: Number of agents whose status is ``idle``.
        busy: Number of agents whose status is ``busy``.
        error: Number of agents whose status is ``error``.
        without_status: Number of agents without a status.
        activities: Number of activities logged.
        status_changes: Number of status changes logged.
        heartbeats: Number of heartbeats logged.
        last_seen_ms: Time when an event of any agent was last logged, Unix milliseconds; None if
            there are no agents.
    """

    agents: int
    active: int
    idle: int
    busy: int
    error: int
    without_status: int
    activities: int
    status_changes: int
    heartbeats: int
    last_seen_ms: int | None


_TYPES = (AGENT_REGISTERED, AGENT_STATUS_CHANGED, AGENT_ACTIVITY, AGENT_HEARTBEAT)


def last_status(
    connection: Connection, agent_id: str, events: FromClause = EVENTS
) -> AgentStatus | None:
    """Return the last status of an agent."""
    event = events.c
    query = (
        select(event.data)
        .where(event.type == AGENT_STATUS_CHANGED, event.agent_id == agent_id)
        .order_by(event.position.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else _status(_fields(row[0]).get("status"))


def states(
    connection: Connection, wanted: Filters = EVERYTHING, events: FromClause = EVENTS
) -> list[AgentState]:
    """Return the agents with an event that matches, in the order of their ids.

    Their state is from all of their events.
    """
    rows = connection.execute(_states(wanted, events)).all()
    found = (
        _state(*row) for row in rows if isinstance(row[0], str)
    )  # a damaged row may have any type
    return sorted(found, key=lambda agent: agent.agent_id)


def _states(wanted: Filters, events: FromClause) -> Select[Any]:
    event, agent_id = events.c, wanted.agent_id
    last_seen = func.max(event.timestamp_ms)
    whose = event.agent_id.is_not(None) if agent_id is None else event.agent_id == agent_id
    if wanted.without("agent_id", "since_ms") != EVERYTHING:
        whose &= event.agent_id.in_(select(wanted.of(events).c.agent_id))
    heard = (
        select(
            event.agent_id,
            last_seen.label("last_seen_ms"),
            _newest(events, AGENT_REGISTERED).label("registration"),
            _newest(events, AGENT_STATUS_CHANGED).label("change"),
        )
        .where(whose)
        .group_by(event.agent_id)
    )
    if wanted.since_ms is not None:
        heard = heard.having(last_seen >= wanted.since_ms)
    seen = heard.cte("seen")
    registered, changed = events.alias("registered"), events.alias("changed")
    return select(
        *(seen.c.agent_id, seen.c.last_seen_ms, registered.c.data),
        *(changed.c.data, changed.c.timestamp_ms),
    ).select_from(
        seen.outerjoin(registered, registered.c.position == seen.c.registration).outerjoin(
            changed, changed.c.position == seen.c.change
        )
    )


def _newest(events: FromClause, type: str) -> ColumnElement[int | None]:
    return func.max(case((events.c.type == type, events.c.position)))


def recent_activity(
    connection: Connection, wanted: Filters, limit: int, events: FromClause = EVENTS
) -> list[AgentActivity]:
    """Return the newest `limit` activities that match, newest first."""
    return newest_activities(connection, wanted, limit, events=events)[0]


def last_activities(
    connection: Connection, events: FromClause = EVENTS
) -> dict[str, AgentActivity]:
    """Return the last activity of each agent, by its id."""
    event = events.c
    newest = (
        select(func.max(event.position))
        .where(
            event.type == AGENT_ACTIVITY,
            event.agent_id.is_not(None),
            text_field(events, "activity").is_not(None),
        )
        .group_by(event.agent_id)
    )
    query = select(
        *(event.event_id, event.agent_id, event.session_id, event.timestamp_ms, event.data)
    ).where(event.position.in_(newest))
    found = [_activity(*row) for row in connection.execute(query)]
    return {activity.agent_id: activity for activity in found}


def newest_activities(
    connection: Connection,
    wanted: Filters,
    limit: int,
    before: int | None = None,
    max_characters: int | None = None,
    events: FromClause = EVENTS,
) -> tuple[list[AgentActivity], int | None]:
    """Return a page of activities, newest first, and the start of the next page.

    `limit`, `before`, `max_characters` and the second value are those of `newest_page`.
    """
    events = wanted.of(events)
    event = events.c
    # An erased activity has no text any more.
    query = select(
        *(event.event_id, event.agent_id, event.session_id, event.timestamp_ms, event.data)
    ).where(event.type == AGENT_ACTIVITY, text_field(events, "activity").is_not(None))
    rows, following = newest_page(connection, events, query, limit, before, max_characters)
    return [_activity(*row) for row in rows], following


def overview(
    connection: Connection, wanted: Filters = EVERYTHING, events: FromClause = EVENTS
) -> OperationsOverview:
    """Return the overview of the agents now, whatever the period, and of the events that match."""
    agents = states(connection, wanted.without("since_ms", "until_ms"), events)
    of_status = Counter(agent.status for agent in agents)
    type_ = wanted.of(events).c.type
    counted = connection.execute(
        select(type_, func.count()).where(type_.in_(_TYPES)).group_by(type_)
    ).all()
    logged: dict[str, int] = dict(map(tuple, counted))
    return OperationsOverview(
        agents=len(agents),
        active=of_status[AgentStatus.ACTIVE],
        idle=of_status[AgentStatus.IDLE],
        busy=of_status[AgentStatus.BUSY],
        error=of_status[AgentStatus.ERROR],
        without_status=of_status[None],
        activities=logged.get(AGENT_ACTIVITY, 0),
        status_changes=logged.get(AGENT_STATUS_CHANGED, 0),
        heartbeats=logged.get(AGENT_HEARTBEAT, 0),
        last_seen_ms=max((agent.last_seen_ms for agent in agents), default=None),
    )


def _activity(
    event_id: str, agent_id: str, session_id: str | None, timestamp_ms: int, data: str
) -> AgentActivity:
    fields = _fields(data)
    return AgentActivity(
        event_id,
        agent_id,
        session_id,
        timestamp_ms,
        activity=str(fields.get("activity", "unknown")),
        duration_ms=figure("duration_ms", fields.get("duration_ms")),
        details=fields.get("details"),
    )


def _state(
    agent_id: str,
    last_seen_ms: int,
    registered: str | None,
    changed: str | None,
    changed_ms: int | None,
) -> AgentState:
    registration, change = _fields(registered), _fields(changed)
    return AgentState(
        agent_id,
        name=_name(registration.get("name")),
        version=_name(registration.get("version")),
        status=_status(change.get("status")),
        previous_status=_status(change.get("previous_status")),
        status_at_ms=changed_ms,
        last_seen_ms=last_seen_ms,
    )


def _fields(data: str | None) -> dict[str, Any]:
    """Return the fields of an event; none if the row is damaged."""
    try:
        fields = canonical.decode(data or "{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _name(value: object) -> str | None:
    """Return a name like `text_field`; None if it is not text."""
    return value[:MAX_TEXT].replace("\0", "\ufffd") if isinstance(value, str) else None


def _status(word: object) -> AgentStatus | None:
    """Return the status; None if there is none or it is unknown to this version."""
    try:
        return AgentStatus(word)
    except ValueError:
        return None
