"""Routes for what trackers read from their own outbox, with the same names and figures."""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import Connection, FromClause

from tracker.collector.access import Client, Identifier, Operator, parts_of
from tracker.collector.answers import json_answer
from tracker.collector.erasures import newest_erasures
from tracker.collector.filtered import Filtered
from tracker.collector.models import (
    ERRORS,
    Activities,
    Agents,
    Clients,
    Conversations,
    Erasures,
    History,
    MetricsPage,
    Rejections,
    Scores,
    Usage,
)
from tracker.collector.refusal import RefusedError
from tracker.collector.rollups.reads import reads_of
from tracker.collector.tables import events_of
from tracker.events import AgentStatus
from tracker.queries import agents, history, metrics, scores, traces
from tracker.queries.agents import OperationsOverview
from tracker.queries.traces import Trace

router = APIRouter(tags=["reading"], responses=ERRORS)

_MAX_INTEGER = 2**63 - 1
_MAX_ROWS = 1_000
_MOST_NAMED = 100

Limit = Annotated[int, Query(ge=1, le=_MAX_ROWS, description="Maximum number of items.")]
Before = Annotated[
    int | None, Query(ge=0, le=_MAX_INTEGER, description="`next` of the previous page.")
]


class Reader:
    """Runs queries on the events that a request may read, in a worker thread.

    Only a few run at once, so that a long one may delay other readers but never a batch.
    """

    def __init__(self, request: Request, client_id: Client) -> None:
        self._parts = parts_of(request)
        self._client_id = client_id
        self.of = reads_of(client_id)
        self.max_characters = self._parts.settings.max_page_bytes

    async def answer(self, query: Callable[[Connection, FromClause], object]) -> Response:
        """Call `query` with a connection and the client's events, and return its result as JSON."""

        def run() -> Response:
            with self._parts.store.reading() as connection:
                found = query(connection, events_of(self._client_id))
            return json_answer(found)

        return await self._parts.read(self._client_id, run)


Read = Annotated[Reader, Depends()]


@router.get("/v1/history", response_model=History)
async def show_history(
    read: Read,
    session_id: Identifier,
    include_content: bool = True,
    limit: Limit = _MAX_ROWS,
    before: Before = None,
) -> Response:
    """Answer with a conversation's newest messages and tool calls, in the order of logging."""

    def query(connection: Connection, events: FromClause) -> History:
        entries, following = history.newest_entries(
            connection, session_id, include_content, limit, before, read.max_characters, events
        )
        told = scores.list_scores(
            connection, session_id, events, include_content, read.max_characters
        )
        whole = [score for score in told if score.target_event_id is None]
        return History(session_id, entries[::-1], following, whole[-_MOST_NAMED:])

    return await read.answer(query)


@router.get("/v1/traces/{trace_id}", response_model=Trace)
async def show_trace(
    read: Read,
    trace_id: Annotated[str, Path(pattern="^[0-9a-fA-F]{32}$")],
    limit: Annotated[int, Query(ge=1, le=traces.MOST_EVENTS)] = traces.MOST_EVENTS,
) -> Response:
    """Answer with the trees of a trace, as far as its newest events tell."""

    def query(connection: Connection, events: FromClause) -> Trace:
        found = traces.get_trace(connection, trace_id.lower(), limit, read.max_characters, events)
        if found is None:
            raise RefusedError(404, "not_found", "No event of this trace is stored.")
        return found

    return await read.answer(query)


@router.get("/v1/conversations", response_model=Conversations)
async def list_conversations(
    read: Read,
    wanted: Filtered,
    status: Literal["open", "ended", "failed"] | None = None,
    limit: Limit = 50,
    before: Before = None,
) -> Response:
    """Answer with the newest matching conversations, in the order in which they began."""

    def query(connection: Connection, _: FromClause) -> Conversations:
        found = read.of.conversations(connection, wanted, status, limit, before)
        return Conversations(found.conversations[::-1], found.next, found.looked_back_to_ms)

    return await read.answer(query)


@router.get("/v1/agents", response_model=Agents)
async def list_agents(
    read: Read,
    wanted: Filtered,
    status: AgentStatus | None = None,
    limit: Limit = _MAX_ROWS,
    after: Annotated[str, Query(description="`next` of the previous page.")] = "",
) -> Response:
    """Answer with the agents that have a matching event, all or those with a status."""

    def query(connection: Connection, _: FromClause) -> Agents:
        found = [
            agent
            for agent in read.of.agents(connection, wanted)
            if agent.agent_id > after and status in (None, agent.status)
        ]
        following = found[limit - 1].agent_id if len(found) > limit else None
        return Agents(found[:limit], following)

    return await read.answer(query)


@router.get("/v1/activities", response_model=Activities)
async def list_activities(
    read: Read, wanted: Filtered, limit: Limit = 50, before: Before = None
) -> Response:
    """Answer with the latest activities of agents, newest first."""

    def query(connection: Connection, events: FromClause) -> Activities:
        found = agents.newest_activities(
            connection, wanted, limit, before, read.max_characters, events
        )
        return Activities(*found)

    return await read.answer(query)


@router.get("/v1/overview", response_model=OperationsOverview)
async def show_overview(read: Read, wanted: Filtered) -> Response:
    """Answer with the number of agents in each status, and of events that match."""
    return await read.answer(lambda connection, _: read.of.overview(connection, wanted))


@router.get("/v1/usage", response_model=Usage)
async def show_usage(
    read: Read,
    wanted: Filtered,
    by: Literal["model", "agent", "session", "day"] = "model",
    limit: Limit = _MAX_ROWS,
    offset: Annotated[int, Query(ge=0, le=_MAX_INTEGER)] = 0,
) -> Response:
    """Answer with tokens and cost by model, agent, session or day."""

    def query(connection: Connection, _: FromClause) -> Usage:
        found = read.of.usage(connection, by, wanted, offset, limit)
        end = offset + limit
        return Usage(found.rows, end if found.groups > end else None)

    return await read.answer(query)


@router.get("/v1/scores", response_model=Scores)
async def show_scores(
    read: Read,
    wanted: Filtered,
    by: Literal["name", "day", "release"] = "name",
    limit: Limit = _MAX_ROWS,
    offset: Annotated[int, Query(ge=0, le=_MAX_INTEGER)] = 0,
) -> Response:
    """Answer with scores by name, day or release."""

    def query(connection: Connection, events: FromClause) -> Scores:
        found = scores.get_scores(connection, by, wanted, events)
        end = offset + limit
        return Scores(found[offset:end], end if len(found) > end else None)

    return await read.answer(query)


@router.get("/v1/metrics", response_model=MetricsPage)
async def show_metrics(
    read: Read,
    wanted: Filtered,
    limit: Annotated[
        int, Query(ge=0, le=_MAX_ROWS, description="Maximum number of days or hours.")
    ] = 366,
    step: Literal["day", "hour"] = "day",
) -> Response:
    """Answer with the metrics from `since` until just before `until`, in total and by UTC step.

    Percentiles of response times are exact in SQLite, by hour, and for a day or less; otherwise
    they are at most one percent off.
    """

    def query(connection: Connection, _: FromClause) -> dict[str, Any]:
        found = read.of.metrics(connection, wanted, step)
        first = max(len(found.steps) - limit, 0)
        following = found.steps[first - 1].until_ms if first else None
        shown = tuple(map(_bounded, found.steps[first:]))
        return {**vars(_bounded(found)), f"{step}s": shown, "next": following}

    return await read.answer(query)


def _bounded(found: metrics.Metrics) -> metrics.Metrics:
    """Return metrics with only the most frequent outcomes and scores: a client can make up more."""
    outcomes = Counter(found.outcomes).most_common(_MOST_NAMED)
    most = sorted(found.scores, key=lambda score: (-score.count, score.name))[:_MOST_NAMED]
    most.sort(key=lambda score: score.name)
    return replace(found, outcomes=dict(sorted(outcomes)), scores=tuple(most))


@router.get("/v1/erasures", response_model=Erasures)
async def list_erasures(read: Read, limit: Limit = 50, before: Before = None) -> Response:
    """Answer with the recorded erasures, the newest first."""

    def query(connection: Connection, events: FromClause) -> Erasures:
        return Erasures(*newest_erasures(connection, limit, before, read.max_characters, events))

    return await read.answer(query)


@router.get("/v1/rejections", response_model=Rejections)
async def list_rejections(
    request: Request, client_id: Client, limit: Limit = 50, before: Before = None
) -> Response:
    """Answer with the refused events that have not been accepted since, the newest first."""
    parts = parts_of(request)

    def query() -> Response:
        found, following = parts.store.rejection_page(client_id, limit, before)
        return json_answer({"rejections": found, "next": following})

    return await parts.read(client_id, query)


@router.get("/v1/clients", response_model=Clients)
async def list_clients(
    request: Request,
    operator: Operator,
    limit: Limit = _MAX_ROWS,
    after: Annotated[
        str, Query(pattern=r"^[^\x00]*$", description="`next` of the previous page.")
    ] = "",
) -> Response:
    """Answer with the clients that have a key or have sent events; for operators."""
    parts = parts_of(request)

    def query() -> Response:
        found = parts.store.client_ids(after, limit + 1)
        following = found[limit - 1] if len(found) > limit else None
        return json_answer(Clients(found[:limit], following))

    return await parts.read(f"operator {operator.id}", query)
