"""Agents from roll-ups: the same as those of `queries.agents`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import ARRAY, BigInteger, any_, func, literal, select, union_all

from tracker.collector.rollups import partial
from tracker.collector.rollups.adding import part
from tracker.collector.rollups.fields import OF_AGENTS
from tracker.collector.rollups.tables import rolled_agents, rolled_figures
from tracker.collector.tables import events
from tracker.events import AGENT_ACTIVITY, AGENT_HEARTBEAT, AGENT_STATUS_CHANGED
from tracker.queries import agents
from tracker.queries.filters import EVERYTHING

if TYPE_CHECKING:
    from sqlalchemy import Connection, FromClause

    from tracker.collector.rollups.coverage import Covered
    from tracker.queries.agents import AgentState, OperationsOverview
    from tracker.queries.filters import Filters


def states(
    connection: Connection, covered: Covered, wanted: Filters, whose: FromClause
) -> list[AgentState]:
    """Return a client's agents that were heard of since the beginning of a period."""
    last_seen, telling = _heard(connection, covered, wanted)
    # From these events alone, an agent's state is what it is from all of them.
    return [
        replace(agent, last_seen_ms=last_seen[agent.agent_id])
        for agent in agents.states(connection, EVERYTHING, _few(whose, telling))
    ]


def overview(
    connection: Connection, covered: Covered, wanted: Filters, whose: FromClause
) -> OperationsOverview:
    """Return the overview of a client's agents now, and of its events that match."""
    always = wanted.without("since_ms", "until_ms")
    last_seen, telling = _heard(connection, covered, always)
    found = agents.overview(connection, EVERYTHING, _few(whose, telling))
    row = covered.rows(rolled_figures, wanted).c
    mine = (row.of_all == (wanted.agent_id is None), row.kind.in_(OF_AGENTS))
    query = select(row.kind, func.sum(row.amount)).where(*mine).group_by(row.kind)
    logged = {kind: int(amount) for kind, amount in connection.execute(query)}
    return replace(
        found,
        activities=logged.get(AGENT_ACTIVITY, 0),
        status_changes=logged.get(AGENT_STATUS_CHANGED, 0),
        heartbeats=logged.get(AGENT_HEARTBEAT, 0),
        last_seen_ms=max(last_seen.values(), default=None),
    )


def _heard(
    connection: Connection, covered: Covered, wanted: Filters
) -> tuple[dict[str, int], set[int]]:
    """Return when each agent was heard of last, and the ids of the events that tell its state."""
    table, event = rolled_agents, events.c
    mine = [table.c.client_id == covered.client_id]
    new = [event.client_id == covered.client_id, event.id > covered.position]
    if wanted.agent_id is not None:
        mine.append(table.c.agent_id == wanted.agent_id)
        new.append(event.agent_id == wanted.agent_id)
    row = union_all(select(table).where(*mine), partial.agents(part(*new))).subquery().c
    ids = map(func.max, (row.last_id, row.registered_id, row.changed_id))
    last_seen = func.greatest(func.max(row.last_seen_ms), 0)  # as `queries.agents` has it
    query = select(row.agent_id, last_seen, *ids).group_by(row.agent_id)
    if wanted.since_ms is not None:
        query = query.having(last_seen >= wanted.since_ms)
    found = connection.execute(query).all()
    return {each[0]: each[1] for each in found}, {place for each in found for place in each[2:]}


def _few(whose: FromClause, ids: set[int]) -> FromClause:
    listed = literal(sorted(ids), ARRAY(BigInteger))
    return select(whose).where(whose.c.position == any_(listed)).subquery("few")
