"""Reads of conversations: history, lists and metrics, all from the local outbox."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tracker import queries, validation
from tracker.trackers.base import BaseTracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tracker.queries.conversations import Conversation
    from tracker.queries.history import HistoryEntry
    from tracker.queries.metrics import Metrics
    from tracker.queries.traces import Trace


class ReadingTracker(BaseTracker):
    """Reads from the outbox, without network access.

    Delivered events stay in the outbox for `APIConfig.retention_days`; later they are only at the
    collector.

    Raises:
        ValidationError: from any of the methods, if an argument is not allowed.
        OutboxError: if the outbox cannot be read.
        TrackerClosedError: after `close`.
    """

    def get_conversation_history(
        self, session_id: str, include_content: bool = True, limit: int | None = None
    ) -> tuple[HistoryEntry, ...]:
        """Return a conversation's messages and tool calls in the order in which they were logged.

        Where none were logged, those that spans of OpenTelemetry tell of.

        Args:
            session_id: The conversation. The history of an unknown one is empty.
            include_content: If False, texts, metadata and the arguments, results and errors of
                tools are left out.
            limit: Return only so many of the newest entries; None for all.
        """
        self._check_open()
        return self._client.read(
            partial(
                queries.history.get_conversation_history,
                session_id=session_id,
                include_content=include_content,
                limit=limit,
            )
        )

    def list_conversations(
        self,
        *,
        agent_id: str | None = None,
        user_id: str | None = None,
        status: str | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
        limit: int | None = 50,
        environment: str | None = None,
        release: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> tuple[Conversation, ...]:
        """Return the newest matching conversations, in the order in which they began.

        Args:
            agent_id: Only conversations of this agent.
            user_id: Only conversations of this user.
            status: Only conversations that are ``"open"``, ``"ended"`` or ``"failed"``.
            since: Only conversations started at this time or later: an aware datetime, or Unix
                milliseconds.
            until: Only conversations started before this time.
            limit: Maximum number of conversations; None for all.
            environment: Only conversations with an event logged in this environment.
            release: Only conversations with an event logged by this release.
            tags: Only conversations with an event that has each of these tags.
        """
        wanted = queries.filters.checked(
            agent_id=agent_id,
            user_id=user_id,
            since=since,
            until=until,
            environment=environment,
            release=release,
            tags=tags,
        )
        self._check_open()
        return self._client.read(
            partial(
                queries.conversations.list_conversations, wanted=wanted, status=status, limit=limit
            )
        )

    def get_metrics(
        self,
        agent_id: str | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
        *,
        environment: str | None = None,
        release: str | None = None,
        tags: Mapping[str, str] | None = None,
        step: str = "day",
    ) -> Metrics:
        """Return metrics of the events logged from `since` until just before `until`.

        Args:
            agent_id: Only events of this agent.
            since: Start of the period: an aware datetime, or Unix milliseconds.
            until: End of the period, which is not included.
            environment: Only events logged in this environment.
            release: Only events logged by this release.
            tags: Only events that have each of these tags.
            step: ``"day"`` or ``"hour"``: whether the metrics have `days` or `hours`, of UTC.
        """
        step = validation.check_choice("step", step, tuple(queries.metrics.STEPS))
        wanted = queries.filters.checked(
            agent_id=agent_id,
            since=since,
            until=until,
            environment=environment,
            release=release,
            tags=tags,
        )
        self._check_open()
        return self._client.read(partial(queries.metrics.get_metrics, wanted=wanted, step=step))

    def get_trace(self, trace_id: str, limit: int | None = 10_000) -> Trace | None:
        """Return a trace as trees of spans; None if no event of it is stored.

        Args:
            trace_id: Its id: 32 hex digits, such as `Span.trace_id`.
            limit: Read only so many of its newest events; None for all. Default 10,000.
        """
        trace_id = queries.traces.check_trace_id("trace_id", trace_id)
        if limit is not None:
            validation.check_count("limit", limit)
        self._check_open()
        return self._client.read(partial(queries.traces.get_trace, trace_id=trace_id, limit=limit))
