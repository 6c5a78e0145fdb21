"""`RolledReads`: reads of a client's events from roll-ups, wherever they tell what is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker.collector.rollups import agents, conversations, metrics, usage
from tracker.collector.rollups.coverage import covered
from tracker.collector.tables import events_of
from tracker.queries.conversations import MOST_SECONDS, conversation_page
from tracker.queries.metrics import DAY
from tracker.queries.reads import Reads

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.queries.agents import AgentState, OperationsOverview
    from tracker.queries.conversations import Page
    from tracker.queries.filters import Filters
    from tracker.queries.metrics import Metrics
    from tracker.queries.reads import Usages


@dataclass(frozen=True)
class RolledReads(Reads):
    """Answers from the roll-ups of a client, and from its events where they do not tell.

    Attributes:
        client_id: The client.
    """

    client_id: str

    def metrics(self, connection: Connection, wanted: Filters, step: str = DAY) -> Metrics:
        """Return metrics; percentiles are at most one percent off if they are rolled up."""
        known = covered(connection, self.client_id, wanted) if step == DAY else None
        if known is None:
            return super().metrics(connection, wanted, step)
        return metrics.get_metrics(connection, known, wanted, self.events)

    def usage(
        self,
        connection: Connection,
        by: str,
        wanted: Filters,
        offset: int = 0,
        limit: int | None = None,
    ) -> Usages:
        """Return at most `limit` rows after the first `offset` of the usage."""
        known = covered(connection, self.client_id, wanted)
        if known is not None:
            asked = (by, wanted, self.events, offset, limit)
            found = usage.usage(connection, known, *asked)
            if found is not None:
                return found
        return super().usage(connection, by, wanted, offset, limit)

    def agents(self, connection: Connection, wanted: Filters) -> list[AgentState]:
        """Return agents and their state."""
        known = covered(connection, self.client_id, wanted.without("since_ms"))
        if known is None or wanted.until_ms is not None:
            return super().agents(connection, wanted)
        return agents.states(connection, known, wanted, self.events)

    def overview(self, connection: Connection, wanted: Filters) -> OperationsOverview:
        """Return the overview of the agents."""
        known = covered(connection, self.client_id, wanted)
        if known is None:
            return super().overview(connection, wanted)
        return agents.overview(connection, known, wanted, self.events)

    def conversations(
        self,
        connection: Connection,
        wanted: Filters,
        status: str | None,
        limit: int,
        before: int | None = None,
    ) -> Page:
        """Return a page of conversations, each as its own events tell."""
        look = conversations.look(connection, self.client_id, wanted, status)
        if look is None:
            return super().conversations(connection, wanted, status, limit, before)
        return conversation_page(
            *(connection, wanted, status, limit, before, self.events),
            seconds=MOST_SECONDS,
            among=look.windows(before, limit),
        )


def reads_of(client_id: str) -> RolledReads:
    """Return the reads of a client."""
    return RolledReads(events_of(client_id), client_id)
