"""Queries about agents: their state, their activities, and an overview."""

from __future__ import annotations

from collections import Counter, defaultdict
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
from tracker.queries.slices import Slices
from tracker.queries.source import EVENTS, MAX_TEXT, newest_page, portions, text_field

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, FromClause

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
    heard = _heard(connection, wanted.agent_id, events)
    if wanted.without("agent_id", "since_ms") != EVERYTHING:
        named = _named(connection, wanted, events)
        heard = {agent_id: each for agent_id, each in heard.items() if agent_id in named}
    since_ms = wanted.since_ms
    found = {
        agent_id: each
        for agent_id, each in heard.items()
        if since_ms is None or each.last_seen_ms >= since_ms
    }
    places = {each.registration for each in found.values()} | {
        each.change for each in found.values()
    }
    told = _told(connection, events, places - {0})
    return [
        _state(agent_id, each.last_seen_ms, told.get(each.registration), told.get(each.change))
        for agent_id, each in sorted(found.items())
    ]


@dataclass
class _Heard:
    """When an agent was heard of last, and the positions of what it then told; 0 if nothing."""

    last_seen_ms: int = 0
    registration: int = 0
    change: int = 0

    def add(self, last_seen_ms: object, registration: int | None, change: int | None) -> None:
        """Add what was heard in other events."""
        if isinstance(last_seen_ms, int):  # a damaged row may have any type
            self.last_seen_ms = max(self.last_seen_ms, last_seen_ms)
        self.registration = max(self.registration, registration or 0)
        self.change = max(self.change, change or 0)


def _heard(connection: Connection, agent_id: str | None, events: FromClause) -> dict[str, _Heard]:
    slices = Slices(connection, events)
    event = slices.events.c
    query = (
        select(
            event.agent_id,
            func.max(event.timestamp_ms),
            *(
                func.max(case((event.type == type_, event.position)))
                for type_ in (AGENT_REGISTERED, AGENT_STATUS_CHANGED)
            ),
        )
        .where(event.agent_id.is_not(None) if agent_id is None else event.agent_id == agent_id)
        .group_by(event.agent_id)
    )
    found = defaultdict[str, _Heard](_Heard)
    for each, *row in slices.rows(query):
        if isinstance(each, str):  # as above
            found[each].add(*row)
    return found


def _named(connection: Connection, wanted: Filters, events: FromClause) -> set[str]:
    """Return the agents that the events that match name."""
    slices = Slices(connection, events, wanted)
    return {row.agent_id for row in slices.rows(select(slices.events.c.agent_id).distinct())}


def _told(
    connection: Connection, events: FromClause, positions: Collection[int]
) -> dict[int, tuple[str, int]]:
    """Return data and time of events, by their positions."""
    event, found = events.c, {}
    query = select(event.position, event.data, event.timestamp_ms)
    for some in portions(positions):
        for position, *told in connection.execute(query.where(event.position.in_(some))):
            found[position] = (told[0], told[1])
    return found


def recent_activity(
    connection: Connection, wanted: Filters, limit: int, events: FromClause = EVENTS
) -> list[AgentActivity]:
    """Return the newest `limit` activities that match, newest first."""
    return newest_activities(connection, wanted, limit, events=events)[0]


def last_activities(
    connection: Connection, events: FromClause = EVENTS
) -> dict[str, AgentActivity]:
    """Return the last activity of each agent, by its id."""
    slices = Slices(connection, events)
    event = slices.events.c
    newest = (
        select(event.agent_id, func.max(event.position))
        .where(
            event.type == AGENT_ACTIVITY,
            event.agent_id.is_not(None),
            text_field(slices.events, "activity").is_not(None),
        )
        .group_by(event.agent_id)
    )
    # A later slice has the later positions.
    last = dict(map(tuple, slices.rows(newest)))
    stored, found = events.c, {}
    query = select(
        *(stored.event_id, stored.agent_id, stored.session_id, stored.timestamp_ms, stored.data)
    )
    for some in portions(last.values()):
        for row in connection.execute(query.where(stored.position.in_(some))):
            found[row.agent_id] = _activity(*row)
    return found


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
    slices = Slices(connection, events, wanted)
    type_, logged = slices.events.c.type, Counter[str]()
    for name, number in slices.rows(
        select(type_, func.count()).where(type_.in_(_TYPES)).group_by(type_)
    ):
        logged[name] += number
    return OperationsOverview(
        agents=len(agents),
        active=of_status[AgentStatus.ACTIVE],
        idle=of_status[AgentStatus.IDLE],
        busy=of_status[AgentStatus.BUSY],
        error=of_status[AgentStatus.ERROR],
        without_status=of_status[None],
        activities=logged[AGENT_ACTIVITY],
        status_changes=logged[AGENT_STATUS_CHANGED],
        heartbeats=logged[AGENT_HEARTBEAT],
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
    registered: tuple[str, int] | None,
    changed: tuple[str, int] | None,
) -> AgentState:
    registration = _fields(None if registered is None else registered[0])
    change = _fields(None if changed is None else changed[0])
    return AgentState(
        agent_id,
        name=_name(registration.get("name")),
        version=_name(registration.get("version")),
        status=_status(change.get("status")),
        previous_status=_status(change.get("previous_status")),
        status_at_ms=None if changed is None else changed[1],
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
