"""What a tracker can say of the past: history, conversations and metrics, all from this machine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tracker import queries
from tracker.trackers.base import BaseTracker

if TYPE_CHECKING:
    from datetime import datetime

    from tracker.queries.conversations import Conversation
    from tracker.queries.history import HistoryEntry
    from tracker.queries.metrics import Metrics


class ReadingTracker(BaseTracker):
    """Reads what is stored in the outbox. Nothing is asked of the network.

    Delivered events stay in the outbox for `APIConfig.retention_days`; what was pruned is in the
    collector only.

    Raises:
        ValidationError: from any of the methods, if an argument is not allowed.
        OutboxError: if the outbox cannot be read.
        TrackerClosedError: after `close`.
    """

    def get_conversation_history(
        self, session_id: str, include_content: bool = True, limit: int | None = None
    ) -> tuple[HistoryEntry, ...]:
        """Return a conversation's messages and tool calls, in the order they were logged.

        Args:
            session_id: The conversation; of one that is not stored, the history is empty.
            include_content: False leaves out what was said: texts, metadata, and the tools'
                arguments, results and errors.
            limit: The newest so many; None for all.
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
    ) -> tuple[Conversation, ...]:
        """Return the newest `limit` of the conversations wanted, in the order they began.

        Args:
            agent_id: Only this agent's.
            user_id: Only this user's.
            status: Only those that are ``"open"``, ``"ended"`` or ``"failed"``.
            since: Only those started then or later: a datetime with a time zone, or Unix
                milliseconds.
            until: Only those started before then.
            limit: How many at most; None for all.
        """
        self._check_open()
        return self._client.read(
            partial(
                queries.conversations.list_conversations,
                agent_id=agent_id,
                user_id=user_id,
                status=status,
                since=since,
                until=until,
                limit=limit,
            )
        )

    def get_metrics(
        self,
        agent_id: str | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
    ) -> Metrics:
        """Return the figures of what was logged from `since` until just before `until`.

        Args:
            agent_id: Only events of this agent.
            since: The first moment: a datetime with a time zone, or Unix milliseconds.
            until: The moment after the last one.
        """
        self._check_open()
        return self._client.read(
            partial(queries.metrics.get_metrics, agent_id=agent_id, since=since, until=until)
        )
