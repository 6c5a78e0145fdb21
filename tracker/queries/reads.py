"""`Reads`: the reads that may go through all events of a period."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tracker.queries import agents
from tracker.queries.conversations import MOST_SECONDS, conversation_page
from tracker.queries.metrics import DAY, get_metrics
from tracker.queries.usage import usage

if TYPE_CHECKING:
    from sqlalchemy import Connection, FromClause

    from tracker.queries.agents import AgentState, OperationsOverview
    from tracker.queries.conversations import Page
    from tracker.queries.filters import Filters
    from tracker.queries.metrics import Metrics
    from tracker.queries.usage import LLMUsage


class Usages(NamedTuple):
    """A part of the usage by some key.

    Attributes:
        rows: The usages.
        groups: How many there are in all, those before and after these rows included; it may be 0
            if there are no rows.
    """

    rows: list[LLMUsage]
    groups: int


@dataclass(frozen=True)
class Reads:
    """Answers from the events themselves.

    Attributes:
        events: The table of events.
    """

    events: FromClause

    def metrics(self, connection: Connection, wanted: Filters, step: str = DAY) -> Metrics:
        """Return metrics; see `metrics.get_metrics`."""
        return get_metrics(connection, wanted, self.events, step=step)

    def usage(
        self,
        connection: Connection,
        by: str,
        wanted: Filters,
        offset: int = 0,
        limit: int | None = None,
    ) -> Usages:
        """Return at most `limit` rows after the first `offset` of the usage; see `usage.usage`."""
        return part_of(usage(connection, by, wanted, self.events), offset, limit)

    def agents(self, connection: Connection, wanted: Filters) -> list[AgentState]:
        """Return agents and their state; see `agents.states`."""
        return agents.states(connection, wanted, self.events)

    def overview(self, connection: Connection, wanted: Filters) -> OperationsOverview:
        """Return the overview of the agents; see `agents.overview`."""
        return agents.overview(connection, wanted, self.events)

    def conversations(
        self,
        connection: Connection,
        wanted: Filters,
        status: str | None,
        limit: int,
        before: int | None = None,
    ) -> Page:
        """Return a page of conversations, soon; see `conversations.conversation_page`."""
        return conversation_page(
            connection, wanted, status, limit, before, self.events, seconds=MOST_SECONDS
        )


def part_of(found: list[LLMUsage], offset: int, limit: int | None) -> Usages:
    """Return a part of the usage."""
    return Usages(found[offset:][:limit], len(found))
