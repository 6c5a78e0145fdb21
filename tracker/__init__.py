"""The event logger for AI agents that does not lose an event.

Every logging call is committed to a local SQLite outbox before it returns; a background thread
uploads what is pending, in order, until the collector's receipt says that it is stored.
"""

from __future__ import annotations

from tracker._version import __version__
from tracker.aio.conversation import AsyncConversation, AsyncToolCall
from tracker.aio.trackers import (
    AsyncAgentOperationsTracker,
    AsyncAgentPerformanceTracker,
    AsyncComplianceTracker,
    AsyncLLMTracker,
    AsyncSecurityTracker,
    AsyncTracker,
)
from tracker.config import APIConfig
from tracker.context import bind, current_conversation
from tracker.erasure import ErasureResult
from tracker.errors import (
    ConfigurationError,
    NotAnOutboxError,
    OutboxDamagedError,
    OutboxError,
    OutboxFullError,
    SchemaVersionError,
    TrackerClosedError,
    TrackerError,
    ValidationError,
)
from tracker.events import AgentStatus
from tracker.health import Health
from tracker.log_handler import TrackerHandler
from tracker.queries.agents import AgentActivity, AgentState, OperationsOverview
from tracker.queries.conversations import Conversation
from tracker.queries.history import HistoryEntry
from tracker.queries.metrics import Metrics, ResponseTime
from tracker.queries.sessions import IntegrityReport, Problem, UnclosedSession
from tracker.queries.usage import LLMUsage
from tracker.sync.flush import FlushResult
from tracker.trackers.compliance import ComplianceTracker
from tracker.trackers.conversation import ActiveConversation, ToolCall
from tracker.trackers.llm import LLMTracker
from tracker.trackers.operations import AgentOperationsTracker
from tracker.trackers.performance import AgentPerformanceTracker
from tracker.trackers.security import SecurityTracker
from tracker.trackers.tracker import Tracker

__all__ = [
    "APIConfig",
    "ActiveConversation",
    "AgentActivity",
    "AgentOperationsTracker",
    "AgentPerformanceTracker",
    "AgentState",
    "AgentStatus",
    "AsyncAgentOperationsTracker",
    "AsyncAgentPerformanceTracker",
    "AsyncComplianceTracker",
    "AsyncConversation",
    "AsyncLLMTracker",
    "AsyncSecurityTracker",
    "AsyncToolCall",
    "AsyncTracker",
    "ComplianceTracker",
    "ConfigurationError",
    "Conversation",
    "ErasureResult",
    "FlushResult",
    "Health",
    "HistoryEntry",
    "IntegrityReport",
    "LLMTracker",
    "LLMUsage",
    "Metrics",
    "NotAnOutboxError",
    "OperationsOverview",
    "OutboxDamagedError",
    "OutboxError",
    "OutboxFullError",
    "Problem",
    "ResponseTime",
    "SchemaVersionError",
    "SecurityTracker",
    "ToolCall",
    "Tracker",
    "TrackerClosedError",
    "TrackerError",
    "TrackerHandler",
    "UnclosedSession",
    "ValidationError",
    "__version__",
    "bind",
    "current_conversation",
]
