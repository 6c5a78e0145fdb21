"""All trackers in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.trackers.compliance import ComplianceTracker
from tracker.trackers.llm import LLMTracker
from tracker.trackers.operations import AgentOperationsTracker
from tracker.trackers.performance import AgentPerformanceTracker
from tracker.trackers.security import SecurityTracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.config import APIConfig
    from tracker.sync.destination import Destination
    from tracker.sync.flush import FlushResult


class Tracker(AgentPerformanceTracker):
    """All trackers in one, on one outbox and one sync thread. Any thread may call it.

    Conversations, messages, observed functions and scores are its own methods, those of
    `AgentPerformanceTracker`; the other areas are attributes.

    ::

        with Tracker(APIConfig(api_key="...")) as tracker:
            session_id = tracker.start_conversation("agent-1")
            tracker.llm.record_usage("openai", "gpt-4o", 900, 120, session_id=session_id)
            tracker.track("cart.abandoned", {"items": 3}, session_id=session_id)

    Args:
        config: Settings; by default those of the environment.
        destination: Function that makes a `Destination` to use in place of HTTP to the collector.

    Attributes:
        performance: This tracker, for code that names the area of each call.
        operations: What agents are doing, an `AgentOperationsTracker`.
        llm: Calls to language models, an `LLMTracker`.
        security: Security events, unclosed conversations, integrity, a `SecurityTracker`.
        compliance: Audit records, acknowledgements, erasure, a `ComplianceTracker`.

    Raises:
        ConfigurationError: if a setting is missing or invalid.
        OutboxError: if the outbox cannot be opened.
    """

    def __init__(
        self,
        config: APIConfig | None = None,
        *,
        destination: Callable[[], Destination] | None = None,
    ) -> None:
        super().__init__(config, destination=destination)
        self.operations = AgentOperationsTracker(self.config)
        self.llm = LLMTracker(self.config)
        self.security = SecurityTracker(self.config)
        self.compliance = ComplianceTracker(self.config)

    @property
    def performance(self) -> AgentPerformanceTracker:
        """This tracker."""
        return self

    def close(self, timeout: float = 2.0) -> FlushResult:
        """Close this tracker and all its parts; see `BaseTracker.close`.

        Args:
            timeout: Maximum number of seconds to upload; a failed attempt ends it. Default 2.
        """
        parts = (self.operations, self.llm, self.security, self.compliance)
        for part in parts:
            part.close(timeout=0)  # never the last one: this tracker still holds the outbox
        return super().close(timeout)
