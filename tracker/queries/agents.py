"""What the agents do: their state, their activity, and a view of all of them."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker.events import AgentStatus

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True)
class AgentState:
    """An agent, as its events in this outbox tell.

    Attributes:
        agent_id: The agent.
        name: Its name, as last registered; None if it gave none.
        version: Its version, as last registered; None if it gave none.
        status: What it said last that it was doing; None if it never did.
        previous_status: What it was doing before; None if that is not known.
        status_at_ms: When it said so, Unix milliseconds.
        last_seen_ms: When it was last heard of (registration, status, activity or heartbeat),
            Unix milliseconds.
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
    """Something that an agent did.

    Attributes:
        event_id: The event's id.
        agent_id: The agent.
        session_id: The conversation it did it in; None if it named none.
        timestamp_ms: When it was logged, Unix milliseconds.
        activity: What it did.
        duration_ms: Milliseconds it took; None if that was not said.
        details: Anything else that was logged with it; None if nothing was.
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
    """All agents at a glance.

    Attributes:
        agents: Agents heard of; the five counts that follow add up to it.
        active: Of these, those whose status is ``active``.
        idle: Those whose status is ``idle``.
        busy: Those whose status is ``busy``.
        error: Those whose status is ``error``.
        without_status: Those that never said.
        activities: Activities logged.
        status_changes: Status changes logged.
        heartbeats: Heartbeats logged.
        last_seen_ms: When any of them was last heard of, Unix milliseconds; None without agents.
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


_TYPES = "('agent.registered', 'agent.status_changed', 'agent.activity', 'agent.heartbeat')"

_LAST_STATUS = """
SELECT data FROM events WHERE type = 'agent.status_changed' AND agent_id = ?
ORDER BY seq DESC LIMIT 1
"""

_STATES = f"""
WITH seen AS (
    SELECT agent_id, max(timestamp_ms) AS last_seen_ms,
           max(CASE WHEN type = 'agent.registered' THEN seq END) AS registration,
           max(CASE WHEN type = 'agent.status_changed' THEN seq END) AS change
    FROM events WHERE type IN {_TYPES} AND agent_id = ifnull(?, agent_id) GROUP BY agent_id
)
SELECT seen.agent_id, last_seen_ms, registered.data, changed.data, changed.timestamp_ms
FROM seen LEFT JOIN events AS registered ON registered.seq = registration
          LEFT JOIN events AS changed ON changed.seq = change
WHERE last_seen_ms >= ifnull(?, last_seen_ms)
ORDER BY seen.agent_id
"""

# An erased activity says no longer what was done.
_ACTIVITIES = """
type = 'agent.activity'
  AND CASE WHEN json_valid(data) THEN json_extract(data, '$.activity') END IS NOT NULL
"""

_ACTIVITY = f"""
SELECT event_id, agent_id, session_id, timestamp_ms, data FROM events
WHERE {_ACTIVITIES} AND agent_id = ifnull(?, agent_id) AND timestamp_ms >= ifnull(?, timestamp_ms)
ORDER BY seq DESC LIMIT ?
"""

_LAST_ACTIVITIES = f"""
SELECT event_id, agent_id, session_id, timestamp_ms, data FROM events
WHERE seq IN (SELECT max(seq) FROM events WHERE {_ACTIVITIES} GROUP BY agent_id)
  AND agent_id IS NOT NULL
"""

_COUNTS = f"""
SELECT type, count(*) FROM events
WHERE type IN {_TYPES} AND timestamp_ms >= ? GROUP BY type
"""


def last_status(connection: Connection, agent_id: str) -> AgentStatus | None:
    """Return what an agent said last that it was doing."""
    row = connection.exec_driver_sql(_LAST_STATUS, (agent_id,)).first()
    return None if row is None else _status(_fields(row[0]).get("status"))


def states(
    connection: Connection, agent_id: str | None = None, since_ms: int | None = None
) -> list[AgentState]:
    """Return the agents heard of since then, in the order of their ids; or one of them."""
    rows = connection.exec_driver_sql(_STATES, (agent_id, since_ms)).all()
    return [_state(*row) for row in rows]


def recent_activity(
    connection: Connection, agent_id: str | None, since_ms: int | None, limit: int
) -> list[AgentActivity]:
    """Return the newest `limit` activities, newest first, of one agent or of all."""
    rows = connection.exec_driver_sql(_ACTIVITY, (agent_id, since_ms, limit)).all()
    return [_activity(*row) for row in rows]


def last_activities(connection: Connection) -> dict[str, AgentActivity]:
    """Return what each agent did last, by its id."""
    found = [_activity(*row) for row in connection.exec_driver_sql(_LAST_ACTIVITIES)]
    return {activity.agent_id: activity for activity in found}


def overview(connection: Connection, since_ms: int | None) -> OperationsOverview:
    """Return the state of all agents now, and how much was logged since then."""
    agents = states(connection)
    of_status = Counter(agent.status for agent in agents)
    counted = connection.exec_driver_sql(_COUNTS, (since_ms or 0,)).all()
    logged: dict[str, int] = dict(map(tuple, counted))
    return OperationsOverview(
        agents=len(agents),
        active=of_status[AgentStatus.ACTIVE],
        idle=of_status[AgentStatus.IDLE],
        busy=of_status[AgentStatus.BUSY],
        error=of_status[AgentStatus.ERROR],
        without_status=of_status[None],
        activities=logged.get("agent.activity", 0),
        status_changes=logged.get("agent.status_changed", 0),
        heartbeats=logged.get("agent.heartbeat", 0),
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
        activity=fields["activity"],
        duration_ms=fields.get("duration_ms"),
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
        name=registration.get("name"),
        version=registration.get("version"),
        status=_status(change.get("status")),
        previous_status=_status(change.get("previous_status")),
        status_at_ms=changed_ms,
        last_seen_ms=last_seen_ms,
    )


def _fields(data: str | None) -> dict[str, Any]:
    """Return an event's own fields; none of them if the row is damaged."""
    try:
        fields = json.loads(data or "{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _status(word: object) -> AgentStatus | None:
    """Return the status; None for none, and for one that only a newer version knows."""
    try:
        return AgentStatus(word)
    except ValueError:
        return None
