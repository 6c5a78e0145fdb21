"""The event logger for AI agents that does not lose an event.

Every logging call is committed to a local SQLite outbox before it returns; a background thread
uploads what is pending, in order, until the collector's receipt says that it is stored.
"""

from __future__ import annotations

import logging

from tracker._version import __version__
from tracker.config import APIConfig
from tracker.errors import (
    ConfigurationError,
    NotAnOutboxError,
    OutboxError,
    OutboxFullError,
    SchemaVersionError,
    TrackerClosedError,
    TrackerError,
    ValidationError,
)
from tracker.events import AgentStatus
from tracker.queries.agents import AgentActivity, AgentState, OperationsOverview
from tracker.queries.usage import LLMUsage
from tracker.sync.flush import FlushResult
from tracker.trackers.llm import LLMTracker
from tracker.trackers.operations import AgentOperationsTracker
from tracker.trackers.performance import AgentPerformanceTracker
from tracker.trackers.tracker import Tracker

__all__ = [
    "APIConfig",
    "AgentActivity",
    "AgentOperationsTracker",
    "AgentPerformanceTracker",
    "AgentState",
    "AgentStatus",
    "ConfigurationError",
    "FlushResult",
    "LLMTracker",
    "LLMUsage",
    "NotAnOutboxError",
    "OperationsOverview",
    "OutboxError",
    "OutboxFullError",
    "SchemaVersionError",
    "Tracker",
    "TrackerClosedError",
    "TrackerError",
    "ValidationError",
    "__version__",
]

logging.getLogger("tracker").addHandler(logging.NullHandler())
