"""The agents: their status, what each did last, and when it was heard of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tracker.pages.view import Page
from tracker.queries.agents import (
    AgentActivity,
    AgentState,
    OperationsOverview,
    last_activities,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.pages.view import View

_MOST_ROWS = 200


class Agents(NamedTuple):
    """All agents, what each did last, and how many there are in each status."""

    states: list[AgentState]
    activities: dict[str, AgentActivity]
    overview: OperationsOverview


def agents_page(view: View) -> Page:
    """Return the page."""
    found: Agents | None = view.part("agents", agents_of(view)).value
    rows = [] if found is None else sorted(found.states, key=lambda each: -_seen(each))
    return Page("agents.html", "Agents", {
        "ready": found is not None,
        "rows": rows[:_MOST_ROWS],
        "left_out": max(len(rows) - _MOST_ROWS, 0),
        "activities": {} if found is None else found.activities,
        "overview": None if found is None else found.overview,
    })  # fmt: skip


def agents_of(view: View) -> Callable[[Connection], Agents]:
    """Return the query for the agents of a source that match the filters."""
    wanted, source = view.filters(), view.source
    return lambda connection: Agents(
        source.reads.agents(connection, wanted),
        last_activities(connection, source.events),
        source.reads.overview(connection, wanted),
    )


def _seen(agent: AgentState) -> int:
    seen: object = agent.last_seen_ms
    return seen if isinstance(seen, int) else 0  # a damaged row has any type
