"""Agents: registration, status, activities and heartbeats."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tracker import forks, queries, validation
from tracker.errors import OutboxError, ValidationError
from tracker.events import (
    AGENT_ACTIVITY,
    AGENT_HEARTBEAT,
    AGENT_REGISTERED,
    AGENT_STATUS_CHANGED,
    AgentStatus,
)
from tracker.trackers.base import BaseTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Literal

    from tracker.config import APIConfig
    from tracker.queries.agents import AgentActivity, AgentState, OperationsOverview
    from tracker.sync.destination import Destination

STATUSES = tuple(status.value for status in AgentStatus)


class AgentOperationsTracker(BaseTracker):
    """Logs what agents are doing, and reads it back from this outbox.

    Every logging call returns the event's id, once the event is stored in the outbox. Agent ids
    are non-empty strings of at most 256 characters; metadata is a dict that JSON can represent.
    Registration, status and heartbeat belong to no conversation, wherever they are logged. Reads
    cover the events of all processes that are still in this outbox, which delivered events leave
    after `APIConfig.retention_days`.

    Raises:
        ValidationError: from any call, if an argument is not allowed; nothing is stored.
        OutboxError: from any read, if the outbox cannot be read; from any logging call, if storage
            failed and `APIConfig.on_error` is "raise".
        TrackerClosedError: from any call after `close`.
    """

    def __init__(
        self,
        config: APIConfig | None = None,
        *,
        destination: Callable[[], Destination] | None = None,
    ) -> None:
        super().__init__(config, destination=destination)
        self._statuses = _known.setdefault(self._client, Statuses())

    def register_agent(
        self,
        agent_id: str,
        *,
        name: str | None = None,
        version: str | None = None,
        capabilities: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log that an agent exists, and describe it; return the event's id.

        Registering an agent again replaces its description. The status does not change.

        Args:
            agent_id: The agent.
            name: A name for people.
            version: The agent's version.
            capabilities: What the agent can do: a list of non-empty strings.
            metadata: Additional data.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        data = {
            "name": validation.check_optional_id("name", name),
            "version": validation.check_optional_id("version", version),
            "capabilities": validation.optional(_check_words, "capabilities", capabilities),
            "metadata": self._metadata("metadata", metadata),
        }
        return self._record(AGENT_REGISTERED, data, agent_id=agent_id, timestamp=timestamp)

    def update_agent_status(
        self,
        agent_id: str,
        status: AgentStatus | Literal["active", "idle", "busy", "error"],
        *,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log the new status of an agent and return the event's id.

        The event includes the previous status: the last one that this process logged or, if it
        logged none for this agent, the newest in the outbox.

        Args:
            agent_id: The agent; it need not be registered.
            status: ``"active"``, ``"idle"``, ``"busy"`` or ``"error"``, or an `AgentStatus`.
            metadata: Additional data.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        status = AgentStatus(validation.check_choice("status", status, STATUSES))
        metadata = self._metadata("metadata", metadata)
        self._check_open()
        agent = self._statuses.of(agent_id)
        with agent.lock:  # the second of two threads has the first one's status as previous
            previous = agent.status or self._look_up(agent_id)
            data = {
                "status": status.value,
                "previous_status": previous and previous.value,
                "metadata": metadata,
            }
            event_id = self._record(
                AGENT_STATUS_CHANGED, data, agent_id=agent_id, timestamp=timestamp
            )
            agent.status = status
        return event_id

    def log_activity(
        self,
        agent_id: str,
        activity: str,
        *,
        duration_ms: float | None = None,
        details: Any = None,
        session_id: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log an activity of an agent and return the event's id.

        Args:
            agent_id: The agent.
            activity: What it did, such as ``"indexed documents"``; at most 256 characters.
            duration_ms: Milliseconds it took, 0 or more; rounded to 2 decimals.
            details: Additional data that JSON can represent. None is left out.
            session_id: The conversation it belongs to; by default the current one, if there is
                one.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        data = {
            "activity": validation.check_id("activity", activity),
            "duration_ms": validation.optional(
                validation.check_milliseconds, "duration_ms", duration_ms
            ),
            "details": self._json("details", details),
        }
        return self._record_about(
            AGENT_ACTIVITY,
            data,
            agent_id=agent_id,
            session_id=validation.check_optional_id("session_id", session_id),
            timestamp=timestamp,
        )

    def heartbeat(
        self,
        agent_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log that an agent is still running and return the event's id.

        Args:
            agent_id: The agent.
            metadata: Additional data.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        data = {"metadata": self._metadata("metadata", metadata)}
        return self._record(AGENT_HEARTBEAT, data, agent_id=agent_id, timestamp=timestamp)

    def get_agent_status(self, agent_id: str) -> AgentState | None:
        """Return the state of an agent; None if no stored event is about it.

        Args:
            agent_id: The agent.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        self._check_open()
        wanted = queries.filters.checked(agent_id=agent_id)
        found = self._client.read(lambda connection: queries.agents.states(connection, wanted))
        return found[0] if found else None

    def get_active_agents(
        self,
        *,
        since: datetime | int | None = None,
        environment: str | None = None,
        release: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[AgentState]:
        """Return the agents whose status is ``active``, in the order of their ids.

        Args:
            since: Only agents with an event at this time or later: an aware datetime, or Unix
                milliseconds. By default all, even if their last event is years old: an agent that
                has crashed logs nothing.
            environment: Only agents with an event logged in this environment.
            release: Only agents with an event logged by this release.
            tags: Only agents with an event that has each of these tags.
        """
        wanted = queries.filters.checked(
            since=validation.check_since("since", since),
            environment=environment,
            release=release,
            tags=tags,
        )
        self._check_open()
        found = self._client.read(lambda connection: queries.agents.states(connection, wanted))
        return [agent for agent in found if agent.status is AgentStatus.ACTIVE]

    def get_recent_activity(
        self,
        agent_id: str | None = None,
        *,
        limit: int = 50,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
        environment: str | None = None,
        release: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[AgentActivity]:
        """Return the latest activities of agents, newest first.

        Args:
            agent_id: Only activities of this agent. By default those of all agents.
            limit: Maximum number of activities, 1 or more. Default 50.
            since: Only activities logged at this time or later: an aware datetime, or Unix
                milliseconds.
            until: Only activities logged before this time.
            environment: Only activities logged in this environment.
            release: Only activities logged by this release.
            tags: Only activities that have each of these tags.
        """
        wanted = queries.filters.checked(
            agent_id=agent_id,
            since=validation.check_since("since", since),
            until=validation.check_since("until", until),
            environment=environment,
            release=release,
            tags=tags,
        )
        if validation.check_count("limit", limit) < 1:
            raise ValidationError("limit", "is 0; give an int, 1 or more")
        self._check_open()
        return self._client.read(
            lambda connection: queries.agents.recent_activity(connection, wanted, limit)
        )

    def get_operations_overview(
        self,
        *,
        since: datetime | int | None = None,
        environment: str | None = None,
        release: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> OperationsOverview:
        """Return how many agents have each status now, and how much was logged.

        Args:
            since: Count only activities, status changes and heartbeats logged at this time or
                later: an aware datetime, or Unix milliseconds. By default all of them. Agents
                are counted whenever they were last seen.
            environment: Count only events logged in this environment, and the agents with one.
            release: Count only events logged by this release, and the agents with one.
            tags: Count only events that have each of these tags, and the agents with one.
        """
        wanted = queries.filters.checked(
            since=validation.check_since("since", since),
            environment=environment,
            release=release,
            tags=tags,
        )
        self._check_open()
        return self._client.read(lambda connection: queries.agents.overview(connection, wanted))

    def _look_up(self, agent_id: str) -> AgentStatus | None:
        try:
            return self._client.read(
                lambda connection: queries.agents.last_status(connection, agent_id)
            )
        except OutboxError:
            # The append that follows fails as well and applies `on_error`.
            return None


@dataclass
class _Agent:
    """The status of an agent that this process logged last; `lock` orders its changes."""

    status: AgentStatus | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


class Statuses:
    """The agents on one outbox that this process knows. Bounded and thread-safe.

    Args:
        most: How many to remember; the status of others is looked up in the outbox.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self.forget()

    def forget(self) -> None:
        """Start again: in a forked child, another thread of the parent may have held a lock."""
        self._agents: OrderedDict[str, _Agent] = OrderedDict()
        self._lock = threading.RLock()

    def of(self, agent_id: str) -> _Agent:
        """Return the agent, without a status if it is new here."""
        with self._lock:
            agent = self._agents.setdefault(agent_id, _Agent())
            self._agents.move_to_end(agent_id)
            if len(self._agents) > self._most:
                self._agents.popitem(last=False)
        return agent


# Per client: trackers on one outbox share the statuses, or one would use a status long replaced.
_known: WeakKeyDictionary[object, Statuses] = WeakKeyDictionary()


def _forget_after_fork() -> None:
    for statuses in list(_known.values()):
        statuses.forget()


forks.in_child(forks.Stage.AGENTS, _forget_after_fork)


def _check_words(argument: str, value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValidationError(argument, f"is of type {type(value).__name__}; give a list of str")
    return [validation.check_id(f"{argument}[{index}]", item) for index, item in enumerate(value)]
