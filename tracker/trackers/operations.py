"""Agents: who they are, what they are doing, and whether they are still there."""

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

_MOST = 10_000
"""Agents whose status is remembered; others' is looked up in the outbox again."""


class AgentOperationsTracker(BaseTracker):
    """Logs what agents are doing, and reads back what this outbox holds of it.

    Every logging call is stored in the outbox before it returns, and returns the event's id.
    Agent ids are non-empty strings of at most 256 characters; metadata is a dict that JSON can
    hold. Registration, status and heartbeat concern the agent alone: wherever they are logged, they
    belong to no conversation. Reads see what was logged through this outbox, by any process, and
    not yet removed: what was delivered longer than `APIConfig.retention_days` ago is gone.

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
        self._statuses = _memories.setdefault(self._client, _Memory())

    def register_agent(
        self,
        agent_id: str,
        *,
        name: str | None = None,
        version: str | None = None,
        capabilities: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Log that an agent exists, and what it is; return the event's id.

        Registering again replaces what was registered before. It says nothing of the status.

        Args:
            agent_id: The agent.
            name: What people call it.
            version: Its version.
            capabilities: What it can do: a list of non-empty strings.
            metadata: Anything else.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        data = {
            "name": validation.check_optional_id("name", name),
            "version": validation.check_optional_id("version", version),
            "capabilities": validation.optional(_check_words, "capabilities", capabilities),
            "metadata": validation.optional(validation.check_metadata, "metadata", metadata),
        }
        return self._record(AGENT_REGISTERED, data, agent_id=agent_id)

    def update_agent_status(
        self,
        agent_id: str,
        status: AgentStatus | Literal["active", "idle", "busy", "error"],
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Log what an agent is doing from now on and return the event's id.

        The previous status is filled in: the one that this process logged last or, if it logged
        none for this agent, the newest in the outbox.

        Args:
            agent_id: The agent; it need not be registered.
            status: ``"active"``, ``"idle"``, ``"busy"`` or ``"error"``, or an `AgentStatus`.
            metadata: Anything else.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        status = AgentStatus(validation.check_choice("status", status, STATUSES))
        metadata = validation.optional(validation.check_metadata, "metadata", metadata)
        self._check_open()
        agent = self._statuses.of(agent_id)
        with agent.lock:  # two threads' changes of one agent name each other, not both the first
            previous = agent.status or self._look_up(agent_id)
            data = {
                "status": status.value,
                "previous_status": previous and previous.value,
                "metadata": metadata,
            }
            event_id = self._record(AGENT_STATUS_CHANGED, data, agent_id=agent_id)
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
    ) -> str:
        """Log something that an agent did and return the event's id.

        Args:
            agent_id: The agent.
            activity: What it did, in words of your own, as in ``"indexed documents"``; at most
                256 characters.
            duration_ms: Milliseconds it took, 0 or more; kept with 2 decimals.
            details: Anything else that JSON can hold. None is left out.
            session_id: The conversation it did it in; by default the current one, if the call is
                made inside `with tracker.conversation(...)`.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        data = {
            "activity": validation.check_id("activity", activity),
            "duration_ms": validation.optional(
                validation.check_milliseconds, "duration_ms", duration_ms
            ),
            "details": validation.check_json("details", details),
        }
        return self._record_about(
            AGENT_ACTIVITY,
            data,
            agent_id=agent_id,
            session_id=validation.check_optional_id("session_id", session_id),
        )

    def heartbeat(self, agent_id: str, *, metadata: Mapping[str, Any] | None = None) -> str:
        """Log that an agent is still there and return the event's id.

        Args:
            agent_id: The agent.
            metadata: Anything else.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        data = {"metadata": validation.optional(validation.check_metadata, "metadata", metadata)}
        return self._record(AGENT_HEARTBEAT, data, agent_id=agent_id)

    def get_agent_status(self, agent_id: str) -> AgentState | None:
        """Return an agent's status, and what else is known of it; None for one not heard of.

        Args:
            agent_id: The agent.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        self._check_open()
        found = self._client.read(lambda connection: queries.agents.states(connection, agent_id))
        return found[0] if found else None

    def get_active_agents(self, *, since: datetime | int | None = None) -> list[AgentState]:
        """Return the agents whose status is ``active``, in the order of their ids.

        Args:
            since: Only those heard of then or later: an aware datetime, or Unix milliseconds. By
                default all of them, be it years ago: an agent that crashed says so to nobody.
        """
        since_ms = validation.check_since("since", since)
        self._check_open()
        found = self._client.read(
            lambda connection: queries.agents.states(connection, None, since_ms)
        )
        return [agent for agent in found if agent.status is AgentStatus.ACTIVE]

    def get_recent_activity(
        self,
        agent_id: str | None = None,
        *,
        limit: int = 50,
        since: datetime | int | None = None,
    ) -> list[AgentActivity]:
        """Return what agents did last, newest first.

        Args:
            agent_id: Only this agent's. By default all agents'.
            limit: How many at most, 1 or more. Default 50.
            since: Only what was logged then or later: an aware datetime, or Unix milliseconds.
        """
        agent_id = validation.check_optional_id("agent_id", agent_id)
        since_ms = validation.check_since("since", since)
        if validation.check_count("limit", limit) < 1:
            raise ValidationError("limit", "is 0; give an int, 1 or more")
        self._check_open()
        return self._client.read(
            lambda connection: queries.agents.recent_activity(connection, agent_id, since_ms, limit)
        )

    def get_operations_overview(self, *, since: datetime | int | None = None) -> OperationsOverview:
        """Return how many agents there are in each status now, and how much was logged.

        Args:
            since: Count only the activities, status changes and heartbeats logged then or later: an
                aware datetime, or Unix milliseconds. By default all; agents always are.
        """
        since_ms = validation.check_since("since", since)
        self._check_open()
        return self._client.read(lambda connection: queries.agents.overview(connection, since_ms))

    def _look_up(self, agent_id: str) -> AgentStatus | None:
        try:
            return self._client.read(
                lambda connection: queries.agents.last_status(connection, agent_id)
            )
        except OutboxError:
            # Recording, which follows, meets the same trouble and deals with it by `on_error`.
            return None


@dataclass
class _Agent:
    """An agent's status as this process logged it last; `lock` orders its changes."""

    status: AgentStatus | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


class _Memory:
    """The agents that this process knows on one outbox: bounded, any thread's."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin afresh: for a forked child, where another thread may have held a lock."""
        self._agents: OrderedDict[str, _Agent] = OrderedDict()
        self._lock = threading.RLock()

    def of(self, agent_id: str) -> _Agent:
        """Return the agent, as yet without a status if it is new here."""
        with self._lock:
            agent = self._agents.setdefault(agent_id, _Agent())
            self._agents.move_to_end(agent_id)
            if len(self._agents) > _MOST:
                self._agents.popitem(last=False)
        return agent


# By client: trackers on one outbox share what they know, or one would name a status long replaced.
_memories: WeakKeyDictionary[object, _Memory] = WeakKeyDictionary()


def _forget_after_fork() -> None:
    for memory in list(_memories.values()):
        memory.forget()


forks.in_child(forks.Stage.AGENTS, _forget_after_fork)


def _check_words(argument: str, value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValidationError(argument, f"is of type {type(value).__name__}; give a list of str")
    return [validation.check_id(f"{argument}[{index}]", item) for index, item in enumerate(value)]
