"""The event logger for AI agents that does not lose an event.

Every logging call is committed to a local SQLite outbox before it returns; a background thread
uploads what is pending, in order, until the collector's receipt says that it is stored.
"""

from __future__ import annotations

import importlib
import typing

from tracker._version import __version__
from tracker.config import APIConfig
from tracker.context import bind
from tracker.context_block import ContextBlock, add_context
from tracker.default import configure, conversation, get_tracker, observe, span
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
from tracker.propagation import RemoteParent, extract, inject
from tracker.sync.destination import Delivery, Destination, Outcome, Rejection, Upload
from tracker.sync.flush import FlushResult
from tracker.trackers.compliance import ComplianceTracker
from tracker.trackers.conversation import ActiveConversation, current_conversation
from tracker.trackers.llm import LLMTracker
from tracker.trackers.operations import AgentOperationsTracker
from tracker.trackers.performance import AgentPerformanceTracker
from tracker.trackers.security import SecurityTracker
from tracker.trackers.span import Span
from tracker.trackers.tool_call import ToolCall
from tracker.trackers.tracker import Tracker

if typing.TYPE_CHECKING:
    from tracker.aio.conversation import AsyncConversation, AsyncToolCall
    from tracker.aio.span import AsyncSpan
    from tracker.aio.trackers import (
        AsyncAgentOperationsTracker,
        AsyncAgentPerformanceTracker,
        AsyncComplianceTracker,
        AsyncLLMTracker,
        AsyncSecurityTracker,
        AsyncTracker,
    )
    from tracker.queries.agents import AgentActivity, AgentState, OperationsOverview
    from tracker.queries.conversations import Conversation
    from tracker.queries.history import HistoryEntry
    from tracker.queries.metrics import Metrics, ResponseTime
    from tracker.queries.scores import Score, ScoreSummary
    from tracker.queries.sessions import IntegrityReport, Problem, UnclosedSession
    from tracker.queries.traces import Trace, TraceEvent, TraceSpan
    from tracker.queries.usage import LLMUsage

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
    "AsyncSpan",
    "AsyncToolCall",
    "AsyncTracker",
    "ComplianceTracker",
    "ConfigurationError",
    "ContextBlock",
    "Conversation",
    "Delivery",
    "Destination",
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
    "Outcome",
    "Problem",
    "Rejection",
    "RemoteParent",
    "ResponseTime",
    "SchemaVersionError",
    "Score",
    "ScoreSummary",
    "SecurityTracker",
    "Span",
    "ToolCall",
    "Trace",
    "TraceEvent",
    "TraceSpan",
    "Tracker",
    "TrackerClosedError",
    "TrackerError",
    "TrackerHandler",
    "UnclosedSession",
    "Upload",
    "ValidationError",
    "__version__",
    "add_context",
    "bind",
    "configure",
    "conversation",
    "current_conversation",
    "extract",
    "get_tracker",
    "inject",
    "observe",
    "span",
]

_LATER = {
    "AgentActivity": "tracker.queries.agents",
    "AgentState": "tracker.queries.agents",
    "AsyncAgentOperationsTracker": "tracker.aio.trackers",
    "AsyncAgentPerformanceTracker": "tracker.aio.trackers",
    "AsyncComplianceTracker": "tracker.aio.trackers",
    "AsyncConversation": "tracker.aio.conversation",
    "AsyncLLMTracker": "tracker.aio.trackers",
    "AsyncSecurityTracker": "tracker.aio.trackers",
    "AsyncSpan": "tracker.aio.span",
    "AsyncToolCall": "tracker.aio.conversation",
    "AsyncTracker": "tracker.aio.trackers",
    "Conversation": "tracker.queries.conversations",
    "HistoryEntry": "tracker.queries.history",
    "IntegrityReport": "tracker.queries.sessions",
    "LLMUsage": "tracker.queries.usage",
    "Metrics": "tracker.queries.metrics",
    "OperationsOverview": "tracker.queries.agents",
    "Problem": "tracker.queries.sessions",
    "ResponseTime": "tracker.queries.metrics",
    "Trace": "tracker.queries.traces",
    "TraceEvent": "tracker.queries.traces",
    "TraceSpan": "tracker.queries.traces",
    "Score": "tracker.queries.scores",
    "ScoreSummary": "tracker.queries.scores",
    "UnclosedSession": "tracker.queries.sessions",
}
"""Modules of the names that are imported on first use: async trackers and results of reads."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
